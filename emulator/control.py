"""SageMaker's control plane: AWS JSON 1.1 in and out, for models, configurations and endpoints, and
for training jobs (`jobcontrol.py`).

Every request is held to botocore's service model before anything is done; what the model cannot
say is checked where the records are. Operations that are not ours go on to the companion.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import orjson

from emulator import descriptions, jobcontrol, service
from emulator.address import Addressing, Home, Key
from emulator.asgi import Asgi, Receive, Scope, Send, answer, take_in
from emulator.constraints import checked
from emulator.copies import REMOTE
from emulator.endpoints import Endpoint, EndpointConfig, Model, Tags, Variant
from emulator.errors import (
    LukewarmError,
    NotFound,
    RequestTooLarge,
    SerializationException,
    SetupError,
    UnknownOperationException,
    ValidationException,
)
from emulator.hosting import Hosting
from emulator.paging import Entry, page
from emulator.registry import KINDS, Record, Registry, arn_of
from emulator.training import Trainings

log = logging.getLogger("lukewarm.control")

TARGET = "SageMaker."
LARGEST = 4 << 20  # bytes of a request
TAGS_PAGE = 50
Params = dict[str, Any]
Handler = Callable[[Hosting, Home, Params], Awaitable[Params]]

_TYPE = (b"content-type", b"application/x-amz-json-1.1")


class Control:
    """The control plane of one server; `companion` answers what is not ours."""

    def __init__(
        self, hosting: Hosting, trainings: Trainings, addressing: Addressing, companion: Asgi
    ) -> None:
        self._hosting, self._addressing, self._companion = hosting, addressing, companion
        self._operations = {
            **{name: partial(handler, hosting) for name, handler in OPERATIONS.items()},
            **{
                name: partial(handler, trainings) for name, handler in jobcontrol.OPERATIONS.items()
            },
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        operation = headers.get(b"x-amz-target", b"").decode("latin-1").removeprefix(TARGET)
        if operation not in self._operations and operation in known().operations:
            await self._companion(scope, receive, send)
            return
        body = await take_in(receive, LARGEST)
        if body is None:
            return
        home = self._addressing.of(headers.get(b"authorization", b"")).home
        try:
            if operation not in self._operations:
                raise UnknownOperationException
            if body.size > LARGEST:
                raise RequestTooLarge(f"The request has more than {LARGEST} bytes.")
            params = checked(known().requests[operation], parsed(body.kept))
            if "ResourceArn" in params and not _ours(self._hosting.registry, params["ResourceArn"]):
                await self._companion(scope, body.again(receive), send)
                return
            done = await self._operations[operation](home, params)
        except LukewarmError as error:
            await refuse(send, error)
        except sqlite3.Error as error:
            log.error("%s could not be kept: %s.", operation, error)
            text = f"The ledger cannot be used ({error}); nothing was changed."
            await respond(send, 500, {"__type": "InternalFailure", "message": text})
        else:
            await respond(send, 200, done)


@cache
def known() -> service.Service:
    """The service model, read when it is first needed."""
    return service.load((*OPERATIONS, *jobcontrol.OPERATIONS))


def parsed(body: bytes) -> Any:
    """The JSON of a request; none at all is an empty one. Raises SerializationException."""
    try:
        return orjson.loads(body or b"{}")
    except ValueError as error:
        raise SerializationException(f"The body is not JSON: {error}.") from None


async def respond(send: Send, status: int, document: Params) -> None:
    headers = [(b"x-amzn-requestid", str(uuid.uuid4()).encode()), _TYPE]
    # An operation without an answer has an empty body, not an empty structure.
    await answer(send, status, headers, orjson.dumps(document) if document else b"")


async def refuse(send: Send, error: LukewarmError) -> None:
    """An error as JSON 1.1 has it; what a person has to mend is a validation error to a client."""
    document = {"__type": error.code, "message": str(error)}
    status = error.status
    if isinstance(error, SetupError):
        document["__type"], status = ValidationException.code, ValidationException.status
    if isinstance(error, UnknownOperationException):
        del document["message"]
    await respond(send, status, document)


def _ours(registry: Registry, resource: str) -> bool:
    kind = resource.split(":", 5)[-1].partition("/")[0]
    return kind in {name for name, _, _ in KINDS.values()}


def _tags(params: Params) -> Tags:
    return {tag["Key"]: tag["Value"] for tag in params.get("Tags", ())}


def _request(params: Params) -> Params:
    return {name: value for name, value in params.items() if name != "Tags"}


# -- models ---------------------------------------------------------------------------------------


async def create_model(hosting: Hosting, home: Home, params: Params) -> Params:
    given = params.get("PrimaryContainer")
    if (given is None) == (not params.get("Containers")):
        raise ValidationException("A model has either a PrimaryContainer or Containers.")
    for container in [given] if given else params["Containers"]:
        if bool(container.get("Image")) == bool(container.get("ModelPackageName")):
            raise ValidationException("A container has either an Image or a ModelPackageName.")
        if container.get("ModelDataUrl") and container.get("ModelDataSource"):
            raise ValidationException("A container has either ModelDataUrl or ModelDataSource.")
        await _check_data(hosting, home, container.get("ModelDataUrl", ""))
    key = Key(home, params["ModelName"])
    hosting.create_model(key, _request(params), _tags(params))
    return {"ModelArn": arn_of(Model, key)}


async def _check_data(hosting: Hosting, home: Home, url: str) -> None:
    if url.startswith(REMOTE):
        try:
            await hosting.objects.stamp(url, home)
        except SetupError as error:
            raise ValidationException(f"Could not find model data at {url}. {error}") from error


async def describe_model(hosting: Hosting, home: Home, params: Params) -> Params:
    model = hosting.registry.find(Model, Key(home, params["ModelName"]))
    return descriptions.model(model, known().answers["DescribeModel"])


async def list_models(hosting: Hosting, home: Home, params: Params) -> Params:
    entries = (Entry(one.key.name, one.created) for one in hosting.registry.of(Model, home))
    return _page(entries, params, "Models", home, Model)


async def delete_model(hosting: Hosting, home: Home, params: Params) -> Params:
    hosting.registry.remove(hosting.registry.find(Model, Key(home, params["ModelName"])))
    return {}


# -- endpoint configurations ----------------------------------------------------------------------


async def create_endpoint_config(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointConfigName"])
    hosting.create_config(key, _request(params), _tags(params))
    return {"EndpointConfigArn": arn_of(EndpointConfig, key)}


async def describe_endpoint_config(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointConfigName"])
    config = hosting.registry.find(EndpointConfig, key)
    return descriptions.config(config, known().answers["DescribeEndpointConfig"])


async def list_endpoint_configs(hosting: Hosting, home: Home, params: Params) -> Params:
    configs = hosting.registry.of(EndpointConfig, home)
    entries = (Entry(one.key.name, one.created) for one in configs)
    return _page(entries, params, "EndpointConfigs", home, EndpointConfig)


async def delete_endpoint_config(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointConfigName"])
    hosting.registry.remove(hosting.registry.find(EndpointConfig, key))
    return {}


# -- endpoints ------------------------------------------------------------------------------------


async def create_endpoint(hosting: Hosting, home: Home, params: Params) -> Params:
    key, config = Key(home, params["EndpointName"]), params["EndpointConfigName"]
    hosting.create_endpoint(key, config, _tags(params), params.get("DeploymentConfig"))
    await hosting.settle(key)
    return {"EndpointArn": arn_of(Endpoint, key)}


async def describe_endpoint(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointName"])
    record = hosting.registry.find(Endpoint, key)
    config = hosting.registry.get(EndpointConfig, Key(home, record.current.config))
    return descriptions.endpoint(record, config, known().answers["DescribeEndpoint"])


async def list_endpoints(hosting: Hosting, home: Home, params: Params) -> Params:
    records = hosting.registry.of(Endpoint, home)
    entries = (Entry(r.key.name, r.created, r.modified, r.status.value) for r in records)
    return _page(entries, params, "Endpoints", home, Endpoint)


async def update_endpoint(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointName"])
    excluded = params.get("ExcludeRetainedVariantProperties", ())
    retained: frozenset[str] = frozenset()
    if params.get("RetainAllVariantProperties"):
        retained = frozenset({"DesiredWeight", "DesiredInstanceCount"})
        retained -= {one["VariantPropertyType"] for one in excluded}
    elif excluded:
        raise ValidationException(
            "ExcludeRetainedVariantProperties is given without RetainAllVariantProperties."
        )
    options = params.get("DeploymentConfig")
    if params.get("RetainDeploymentConfig") and options is None:
        options = hosting.find(key).record.deployment_config
    hosting.update_endpoint(key, params["EndpointConfigName"], retained, options)
    await hosting.settle(key)
    return {"EndpointArn": arn_of(Endpoint, key)}


async def update_weights(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointName"])
    current = hosting.find(key).record.current
    wanted: dict[str, Variant] = {}
    for desired in params["DesiredWeightsAndCapacities"]:
        name = desired["VariantName"]
        deployed = current.named(name)
        if deployed is None or name in wanted:
            what = "is named twice" if deployed else f"is none of {arn_of(Endpoint, key)}"
            raise ValidationException(f'The variant "{name}" {what}.')
        wanted[name] = _desired(deployed.variant, desired)
    hosting.rescale_endpoint(key, list(wanted.values()))
    await hosting.settle(key)
    return {"EndpointArn": arn_of(Endpoint, key)}


def _desired(variant: Variant, desired: Mapping[str, Any]) -> Variant:
    """The variant with what is asked for in place. Raises ValidationException."""
    weight = desired.get("DesiredWeight", variant.weight)
    instances, serverless = variant.instances, variant.serverless
    if "DesiredInstanceCount" in desired:
        if instances is None:
            raise ValidationException(f"The variant {variant.name} is serverless: no instances.")
        instances = replace(instances, count=desired["DesiredInstanceCount"])
    if update := desired.get("ServerlessUpdateConfig"):
        if serverless is None:
            raise ValidationException(f"The variant {variant.name} is not serverless.")
        serverless = replace(
            serverless,
            max_concurrency=update.get("MaxConcurrency", serverless.max_concurrency),
            provisioned_concurrency=update.get(
                "ProvisionedConcurrency", serverless.provisioned_concurrency
            ),
        )
    return replace(variant, weight=weight, instances=instances, serverless=serverless)


async def delete_endpoint(hosting: Hosting, home: Home, params: Params) -> Params:
    key = Key(home, params["EndpointName"])
    hosting.delete_endpoint(key)
    await hosting.settle(key)
    return {}


# -- tags -----------------------------------------------------------------------------------------


async def add_tags(hosting: Hosting, home: Home, params: Params) -> Params:
    tags = hosting.registry.tag(params["ResourceArn"], _tags(params))
    return {"Tags": descriptions.tags(tags)}


async def list_tags(hosting: Hosting, home: Home, params: Params) -> Params:
    tags = hosting.registry.tags(params["ResourceArn"])
    if tags is None:
        raise NotFound(f'Could not find resource "{params["ResourceArn"]}".')
    wanted = {"SortBy": "Name", "SortOrder": "Ascending", **params}
    entries, token = page((Entry(name, 0) for name in tags), wanted, TAGS_PAGE)
    given = {"Tags": descriptions.tags({entry.name: tags[entry.name] for entry in entries})}
    return given if token is None else {**given, "NextToken": token}


async def delete_tags(hosting: Hosting, home: Home, params: Params) -> Params:
    hosting.registry.tag(params["ResourceArn"], {}, frozenset(params["TagKeys"]))
    return {}


def _page(
    entries: Iterable[Entry], params: Params, member: str, home: Home, kind: type[Record]
) -> Params:
    given, token = page(entries, params)
    one = member.removesuffix("s")
    listed = [descriptions.entry(e, one, arn_of(kind, Key(home, e.name))) for e in given]
    return {member: listed} if token is None else {member: listed, "NextToken": token}


OPERATIONS: Mapping[str, Handler] = {
    "CreateModel": create_model,
    "DescribeModel": describe_model,
    "ListModels": list_models,
    "DeleteModel": delete_model,
    "CreateEndpointConfig": create_endpoint_config,
    "DescribeEndpointConfig": describe_endpoint_config,
    "ListEndpointConfigs": list_endpoint_configs,
    "DeleteEndpointConfig": delete_endpoint_config,
    "CreateEndpoint": create_endpoint,
    "DescribeEndpoint": describe_endpoint,
    "ListEndpoints": list_endpoints,
    "UpdateEndpoint": update_endpoint,
    "UpdateEndpointWeightsAndCapacities": update_weights,
    "DeleteEndpoint": delete_endpoint,
    "AddTags": add_tags,
    "ListTags": list_tags,
    "DeleteTags": delete_tags,
}
