"""Models, endpoint configurations and endpoints as records, and the rules they are held to.

A record keeps what it was made from as the SageMaker API has it (botocore's service model), so that
a description gives back what was given; what runs is derived from that. Records are frozen and
travel as JSON documents; nothing here starts or stops anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from emulator.address import Home, Key
from emulator.core import MIB, Persona
from emulator.errors import ResourceLimitExceeded, ValidationException
from emulator.realtime import Routing

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
MAX_NAME = 63
VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
MAX_VARIABLE = 1024  # characters of a name and of a value
MAX_VARIABLES = 100
MEMORY_SIZES_MB = (1024, 2048, 3072, 4096, 5120, 6144)
MAX_CONCURRENCY = 200
MAX_VARIANTS = 10
MAX_REASON = 1024
MB_PER_VCPU = 1769  # Lambda's rule; AWS publishes none for serverless inference

BUNDLED = "lukewarm:endpoint"  # tag of what our own REST makes, and takes away with the endpoint

Request = Mapping[str, Any]
Tags = Mapping[str, str]


class Status(StrEnum):
    """`EndpointStatus`, as far as an endpoint can get here."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"
    FAILED = "Failed"
    DELETING = "Deleting"


SERVING = frozenset(
    {Status.IN_SERVICE, Status.UPDATING, Status.ROLLING_BACK, Status.UPDATE_ROLLBACK_FAILED}
)
IN_PROGRESS = frozenset({Status.CREATING, Status.UPDATING, Status.ROLLING_BACK})


@dataclass(frozen=True, slots=True)
class Container:
    """What a model's container is made of: its image ("" if none was named), where the model is
    ("" if there is none), and its environment. `prefix` tells that everything below `url` is the
    model, unpacked."""

    image: str = ""
    url: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A model; `request` is CreateModel's, without the tags."""

    key: Key
    created: int
    request: Request
    tags: Tags = field(default_factory=dict)

    @property
    def container(self) -> Container:
        """The container that serves it. Raises ValidationException for what is not hosted here."""
        containers = self.request.get("Containers") or []
        given = self.request.get("PrimaryContainer") or (containers[0] if containers else {})
        if len(containers) > 1:
            raise _not_hosted(self.key, "is an inference pipeline of several containers")
        if given.get("Mode") == "MultiModel":
            raise _not_hosted(self.key, "is a multi-model container")
        if given.get("ModelPackageName"):
            raise _not_hosted(self.key, "comes from a model package")
        source = (given.get("ModelDataSource") or {}).get("S3DataSource") or {}
        return Container(
            given.get("Image", ""),
            source.get("S3Uri") or given.get("ModelDataUrl", ""),
            dict(given.get("Environment") or {}),
            source.get("CompressionType") == "None",
        )


@dataclass(frozen=True, slots=True)
class ServerlessConfig:
    """`ServerlessConfig` of a production variant."""

    memory_mb: int
    max_concurrency: int
    provisioned_concurrency: int = 0

    @property
    def memory_bytes(self) -> int:
        return self.memory_mb * MIB

    @property
    def cpu_share(self) -> tuple[int, int]:
        """vCPUs as a fraction: numerator, denominator."""
        return self.memory_mb, MB_PER_VCPU


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """The instances of a real-time variant. `start_s` is ContainerStartupHealthCheckTimeout, 0
    where none was given."""

    instance_type: str
    count: int = 1
    routing: Routing = Routing.RANDOM
    volume_gb: int = 0
    start_s: int = 0


@dataclass(frozen=True, slots=True)
class Variant:
    """One production variant: a model under one persona."""

    name: str
    model: str
    serverless: ServerlessConfig | None = None
    instances: InstanceConfig | None = None
    weight: float = 1.0

    @property
    def persona(self) -> Persona:
        return Persona.SERVERLESS if self.serverless else Persona.REALTIME


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """An endpoint configuration; `request` is CreateEndpointConfig's, without the tags."""

    key: Key
    created: int
    request: Request
    tags: Tags = field(default_factory=dict)

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(map(variant_from, self.request["ProductionVariants"]))


@dataclass(frozen=True, slots=True)
class Deployed:
    """A variant in force, the container that it runs, and the copy of its model on this machine,
    "" until there is one. An endpoint goes on when its model and configuration are deleted."""

    variant: Variant
    container: Container
    directory: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What an endpoint runs: the name of the configuration that it came from, and its variants."""

    config: str
    variants: tuple[Deployed, ...]

    def named(self, name: str) -> Deployed | None:
        return next((one for one in self.variants if one.variant.name == name), None)

    @property
    def serverless(self) -> bool:
        return any(one.variant.serverless for one in self.variants)

    def rescales(self, other: Deployment) -> bool:
        """Whether it is the other one with other weights and capacities."""
        return self.config == other.config and self._models == other._models

    @property
    def _models(self) -> list[tuple[str, str]]:
        return [(one.variant.name, one.directory) for one in self.variants]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint: what it runs, and, during an update, what it is to run."""

    key: Key
    created: int
    modified: int
    current: Deployment
    target: Deployment | None = None
    status: Status = Status.CREATING
    failure_reason: str = ""
    tags: Tags = field(default_factory=dict)
    deployment_config: Request | None = None

    def turned(self, status: Status, now: int, failure_reason: str = "") -> Endpoint:
        reason = failure_reason[:MAX_REASON]
        return replace(self, status=status, modified=now, failure_reason=reason)


Record = Model | EndpointConfig | Endpoint


@dataclass(frozen=True, slots=True)
class Quotas:
    """The account's limits, per region, that are checked when an endpoint is created or updated.
    `instances` is per instance type."""

    serverless_concurrency: int
    serverless_memory_mb: int
    serverless_endpoints: int
    instances: int


def variant_from(given: Request) -> Variant:
    """The variant that a `ProductionVariant` of the API describes."""
    serverless = instances = None
    if config := given.get("ServerlessConfig"):
        serverless = ServerlessConfig(
            config["MemorySizeInMB"],
            config["MaxConcurrency"],
            config.get("ProvisionedConcurrency") or 0,
        )
    if "InstanceType" in given:
        routing = (given.get("RoutingConfig") or {}).get("RoutingStrategy", Routing.RANDOM)
        if routing not in set(Routing):
            raise ValidationException(
                f"RoutingStrategy {routing} is not hosted here; use {' or '.join(Routing)}."
            )
        instances = InstanceConfig(
            given["InstanceType"],
            given.get("InitialInstanceCount", 0),
            Routing(routing),
            given.get("VolumeSizeInGB") or 0,
            given.get("ContainerStartupHealthCheckTimeoutInSeconds") or 0,
        )
    return Variant(
        given["VariantName"],
        given.get("ModelName", ""),
        serverless,
        instances,
        given.get("InitialVariantWeight", 1.0),
    )


def production_variant(variant: Variant) -> dict[str, Any]:
    """The same as a `ProductionVariant` of the API."""
    given: dict[str, Any] = {
        "VariantName": variant.name,
        "ModelName": variant.model,
        "InitialVariantWeight": variant.weight,
    }
    if serverless := variant.serverless:
        given["ServerlessConfig"] = serverless_request(serverless)
    if instances := variant.instances:
        given["InstanceType"] = instances.instance_type
        given["InitialInstanceCount"] = instances.count
        given["RoutingConfig"] = {"RoutingStrategy": instances.routing.value}
        if instances.volume_gb:
            given["VolumeSizeInGB"] = instances.volume_gb
        if instances.start_s:
            given["ContainerStartupHealthCheckTimeoutInSeconds"] = instances.start_s
    return given


def serverless_request(config: ServerlessConfig) -> dict[str, int]:
    """A `ServerlessConfig` as the API has it, where 0 stands for no provisioned concurrency."""
    given = {"MemorySizeInMB": config.memory_mb, "MaxConcurrency": config.max_concurrency}
    if config.provisioned_concurrency:
        given["ProvisionedConcurrency"] = config.provisioned_concurrency
    return given


def check_name(name: str, member: str) -> None:
    """Raises ValidationException, in AWS's words, unless `name` is one an endpoint may have."""
    constraint = ""
    if len(name) > MAX_NAME:
        constraint = f"Member must have length less than or equal to {MAX_NAME}"
    elif not NAME.fullmatch(name):
        constraint = f"Member must satisfy regular expression pattern: ^{NAME.pattern}"
    if constraint:
        raise ValidationException(
            f"1 validation error detected: Value '{name}' at '{member}' failed to satisfy "
            f"constraint: {constraint}"
        )


def check_variables(variables: Mapping[str, str]) -> None:
    """Raises ValidationException unless the API lets a container have this environment."""
    if len(variables) > MAX_VARIABLES:
        raise ValidationException(
            f"The environment has {len(variables)} variables; it has at most {MAX_VARIABLES}."
        )
    for name, value in variables.items():
        if not VARIABLE.fullmatch(name) or len(name) > MAX_VARIABLE:
            raise ValidationException(
                f"The variable name {name[:80]!r} is not letters, digits and underscores, up to "
                f"{MAX_VARIABLE} of them, the first no digit."
            )
        if len(value) > MAX_VARIABLE or "\0" in value:
            raise ValidationException(
                f"The variable {name} has {len(value)} characters; it has at most {MAX_VARIABLE}, "
                "none of them NUL."
            )


def check_variants(variants: Iterable[Variant]) -> None:
    """Raises ValidationException unless an endpoint configuration may have these variants."""
    variants = tuple(variants)
    if not 1 <= len(variants) <= MAX_VARIANTS:
        raise ValidationException(
            f"An endpoint has 1 to {MAX_VARIANTS} production variants, not {len(variants)}."
        )
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ValidationException(f"The variant names {', '.join(names)} are not all different.")
    if len(variants) > 1 and any(variant.serverless for variant in variants):
        raise ValidationException("An endpoint with a serverless variant has no other variant.")
    for variant in variants:
        check_name(variant.name, "variantName")
        check_variant(variant)


def check_variant(variant: Variant) -> None:
    """Raises ValidationException unless a variant may be like this."""
    if (variant.serverless is None) == (variant.instances is None):
        raise ValidationException(
            f"The variant {variant.name} needs either a serverless configuration or instances."
        )
    if not 0 <= variant.weight <= 1_000_000:
        raise ValidationException(
            f"The weight {variant.weight:g} of {variant.name} is not from 0 to 1000000."
        )
    if variant.serverless:
        _check_serverless(variant.serverless)
    elif variant.instances:
        _check_instances(variant.instances)


def _check_serverless(config: ServerlessConfig) -> None:
    if config.memory_mb not in MEMORY_SIZES_MB:
        sizes = ", ".join(map(str, MEMORY_SIZES_MB))
        raise ValidationException(f"MemorySizeInMB is {config.memory_mb}; it is one of {sizes}.")
    if not 1 <= config.max_concurrency <= MAX_CONCURRENCY:
        raise ValidationException(
            f"MaxConcurrency is {config.max_concurrency}; it is from 1 to {MAX_CONCURRENCY}."
        )
    if not 0 <= config.provisioned_concurrency <= config.max_concurrency:
        raise ValidationException(
            f"ProvisionedConcurrency is {config.provisioned_concurrency}; it is at most "
            f"MaxConcurrency, {config.max_concurrency}."
        )


def _check_instances(config: InstanceConfig) -> None:
    if not 1 <= config.count <= 100:
        raise ValidationException(f"The instance count {config.count} is not from 1 to 100.")
    if not 0 <= config.volume_gb <= 512:
        raise ValidationException(f"VolumeSizeInGB is {config.volume_gb}; it is at most 512.")


def check_quotas(new: Iterable[Variant], others: Iterable[Variant], quotas: Quotas) -> None:
    """Raises ResourceLimitExceeded if an endpoint with the variants `new` does not fit beside
    `others`, those of all other endpoints of the account in the region."""
    others = tuple(others)
    for variant in new:
        if variant.serverless:
            _check_serverless_quotas(variant.serverless, others, quotas)
        elif variant.instances:
            wanted = variant.instances
            kind = wanted.instance_type
            used = sum(
                one.instances.count
                for one in others
                if one.instances and one.instances.instance_type == kind
            )
            quota = f"{kind} for endpoint usage"
            _check_quota(quota, quotas.instances, used, wanted.count, "Instances")
        others += (variant,)


def _check_serverless_quotas(
    wanted: ServerlessConfig, others: Iterable[Variant], quotas: Quotas
) -> None:
    held = [other.serverless for other in others if other.serverless]
    _check_quota(
        "Memory size in MB per serverless endpoint",
        quotas.serverless_memory_mb, 0, wanted.memory_mb, "MBs",
    )  # fmt: skip
    _check_quota(
        "Number of serverless endpoints", quotas.serverless_endpoints, len(held), 1, "endpoints"
    )
    _check_quota(
        "Maximum total concurrency that can be allocated across all serverless endpoints",
        quotas.serverless_concurrency, sum(one.max_concurrency for one in held),
        wanted.max_concurrency, "requests",
    )  # fmt: skip


def _check_quota(quota: str, limit: int, used: int, wanted: int, unit: str) -> None:
    if used + wanted > limit:
        raise ResourceLimitExceeded(
            f"The account-level service limit '{quota}' is {limit} {unit}, with current "
            f"utilization of {used} {unit} and a request delta of {wanted} {unit}. Please use AWS "
            "Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
            "available, contact AWS support to request an increase for this quota."
        )


def _not_hosted(key: Key, what: str) -> ValidationException:
    return ValidationException(
        f"The model {key.name} {what}, which is not hosted here: give it one container with its "
        "model in ModelDataUrl."
    )


def document(record: Any) -> dict[str, Any]:
    """A record, a dataclass with a `key`, as JSON types."""
    return {**asdict(record), "key": (*record.key.home, record.key.name)}


def model_from(document: Mapping[str, Any]) -> Model:
    return Model(**{**document, "key": _key(document)})


def config_from(document: Mapping[str, Any]) -> EndpointConfig:
    return EndpointConfig(**{**document, "key": _key(document)})


def endpoint_from(document: Mapping[str, Any]) -> Endpoint:
    target = document["target"]
    return Endpoint(
        **{
            **document,
            "key": _key(document),
            "status": Status(document["status"]),
            "current": _deployment(document["current"]),
            "target": _deployment(target) if target else None,
        }
    )


def _key(document: Mapping[str, Any]) -> Key:
    account, region, name = document["key"]
    return Key(Home(account, region), name)


def _deployment(document: Mapping[str, Any]) -> Deployment:
    return Deployment(document["config"], tuple(map(_deployed, document["variants"])))


def _deployed(document: Mapping[str, Any]) -> Deployed:
    variant = made_variant(document["variant"])
    return Deployed(variant, Container(**document["container"]), document["directory"])


def made_variant(document: Mapping[str, Any]) -> Variant:
    """The variant that a document holds."""
    serverless, instances = document["serverless"], document["instances"]
    if instances:
        instances = InstanceConfig(**{**instances, "routing": Routing(instances["routing"])})
    if serverless:
        serverless = ServerlessConfig(**serverless)
    return Variant(**{**document, "serverless": serverless, "instances": instances})
