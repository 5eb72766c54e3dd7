"""Records as the SageMaker API describes them. Members without a value are left out: an empty
structure makes clients fail that read answers strictly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emulator.core import SECOND
from emulator.endpoints import (
    IN_PROGRESS,
    SERVING,
    Deployed,
    Deployment,
    Endpoint,
    EndpointConfig,
    Model,
    Request,
    Status,
    Tags,
    Variant,
    serverless_request,
)
from emulator.paging import Entry
from emulator.registry import arn_of

_VARIANT_STATUS = {Status.CREATING: "Creating", Status.UPDATING: "Updating"}


def model(record: Model, members: Iterable[str]) -> dict[str, Any]:
    """DescribeModel."""
    own = {"ModelArn": arn_of(Model, record.key), "CreationTime": seconds(record.created)}
    return {"EnableNetworkIsolation": False, **_given(record.request, members), **own}


def config(record: EndpointConfig, members: Iterable[str]) -> dict[str, Any]:
    """DescribeEndpointConfig; a variant without a weight has 1."""
    variants = [
        {"InitialVariantWeight": 1.0, **one} for one in record.request["ProductionVariants"]
    ]
    return {
        **_given(record.request, members),
        "ProductionVariants": variants,
        "EndpointConfigArn": arn_of(EndpointConfig, record.key),
        "CreationTime": seconds(record.created),
    }


def endpoint(
    record: Endpoint, made_from: EndpointConfig | None, members: Iterable[str]
) -> dict[str, Any]:
    """DescribeEndpoint; `made_from` is its configuration, if that is still there."""
    described: dict[str, Any] = {
        "EndpointName": record.key.name,
        "EndpointArn": arn_of(Endpoint, record.key),
        "EndpointConfigName": record.current.config,
        "EndpointStatus": record.status.value,
        "CreationTime": seconds(record.created),
        "LastModifiedTime": seconds(record.modified),
    }
    if made_from:
        kept = set(members) - {"ProductionVariants"}
        described |= _given(made_from.request, kept - described.keys())
        if capture := described.get("DataCaptureConfig"):
            described["DataCaptureConfig"] = _capture(capture)
    if record.status in SERVING or record.status is Status.DELETING:
        described["ProductionVariants"] = _variants(record)
    if record.failure_reason:
        described["FailureReason"] = record.failure_reason
    if record.deployment_config:
        described["LastDeploymentConfig"] = record.deployment_config
    if record.status in IN_PROGRESS:
        described["PendingDeploymentSummary"] = _pending(record)
    return described


def entry(listed: Entry, kind: str, arn: str) -> dict[str, Any]:
    """One entry of a list of endpoints, models or configurations."""
    given: dict[str, Any] = {
        f"{kind}Name": listed.name,
        f"{kind}Arn": arn,
        "CreationTime": seconds(listed.created),
    }
    if listed.status:
        given["LastModifiedTime"] = seconds(listed.modified)
        given["EndpointStatus"] = listed.status
    return given


def tags(given: Tags) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in given.items()]


def _variants(record: Endpoint) -> list[dict[str, Any]]:
    """What serves, and, while it is being rescaled, what is wanted of it."""
    target = record.target
    rescaled = target is not None and target.rescales(record.current)
    summaries = []
    for deployed in record.current.variants:
        wanted = target.named(deployed.variant.name) if target and rescaled else None
        desired = wanted.variant if wanted else deployed.variant
        summary = _summary(record, deployed, desired)
        if word := _VARIANT_STATUS.get(record.status):
            summary["VariantStatus"] = [{"Status": word, "StartTime": seconds(record.modified)}]
        summaries.append(summary)
    return summaries


def _summary(record: Endpoint, deployed: Deployed, desired: Variant) -> dict[str, Any]:
    current = deployed.variant
    summary: dict[str, Any] = {
        "VariantName": current.name,
        "CurrentWeight": current.weight,
        "DesiredWeight": desired.weight,
    }
    if deployed.container.image:
        image = {"SpecifiedImage": deployed.container.image}
        summary["DeployedImages"] = [{**image, "ResolutionTime": seconds(record.created)}]
    if current.instances and desired.instances:
        summary["CurrentInstanceCount"] = current.instances.count
        summary["DesiredInstanceCount"] = desired.instances.count
        summary["RoutingConfig"] = {"RoutingStrategy": current.instances.routing.value}
    if current.serverless and desired.serverless:
        summary["CurrentInstanceCount"] = 0  # as captured descriptions have it
        summary["CurrentServerlessConfig"] = serverless_request(current.serverless)
        if desired.serverless != current.serverless:
            summary["DesiredServerlessConfig"] = serverless_request(desired.serverless)
    return summary


def _pending(record: Endpoint) -> dict[str, Any]:
    deployment: Deployment = record.target or record.current
    word = _VARIANT_STATUS.get(record.status, "Deleting")
    variants = []
    for deployed in deployment.variants:
        summary = _summary(record, deployed, deployed.variant)
        if deployed.variant.instances:
            summary["InstanceType"] = deployed.variant.instances.instance_type
        summary["VariantStatus"] = [{"Status": word, "StartTime": seconds(record.modified)}]
        variants.append(summary)
    return {
        "EndpointConfigName": deployment.config,
        "ProductionVariants": variants,
        "StartTime": seconds(record.modified),
    }


def _capture(config: Request) -> dict[str, Any]:
    """`DataCaptureConfigSummary`: nothing is captured here."""
    return {
        "EnableCapture": config.get("EnableCapture", False),
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def _given(request: Request, members: Iterable[str]) -> dict[str, Any]:
    """The members of a request that its description has, too, if they have a value."""
    allowed = set(members)
    return {
        name: value for name, value in request.items() if name in allowed and value not in ({}, [])
    }


def seconds(instant: int) -> float:
    """An instant as the API has it, to the millisecond."""
    return round(instant / SECOND, 3)
