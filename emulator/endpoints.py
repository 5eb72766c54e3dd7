"""Models, endpoint configurations and endpoints as records, and the rules they are held to.

Names and limits are those of the SageMaker API (botocore's service model).
Records are frozen and travel as JSON documents; nothing here starts or stops anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

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
MB_PER_VCPU = 1769  # Lambda's rule; AWS publishes none for serverless inference


class Status(StrEnum):
    """`EndpointStatus`, as far as an endpoint can get here."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    FAILED = "Failed"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class Model:
    """A model: the unpacked archive it is served from and its container's environment."""

    name: str
    directory: str
    source: str
    created: int
    variables: Mapping[str, str] = field(default_factory=dict)


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
    """The instances of a real-time variant."""

    instance_type: str
    count: int = 1
    routing: Routing = Routing.RANDOM
    volume_gb: int = 0


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
    name: str
    created: int
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    name: str
    config: str
    created: int
    modified: int
    status: Status = Status.CREATING
    failure_reason: str = ""

    def turned(self, status: Status, now: int, failure_reason: str = "") -> Endpoint:
        return replace(self, status=status, modified=now, failure_reason=failure_reason[:1024])


@dataclass(frozen=True, slots=True)
class Quotas:
    """The account's limits that are checked when an endpoint is created."""

    serverless_concurrency: int
    serverless_memory_mb: int
    serverless_endpoints: int


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
        _check_variant(variant)


def _check_variant(variant: Variant) -> None:
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


def check_quotas(new: Variant, others: Iterable[Variant], quotas: Quotas) -> None:
    """Raises ResourceLimitExceeded if an endpoint with `new` does not fit beside `others`."""
    if new.serverless is None:
        return
    held = [other.serverless for other in others if other.serverless]
    _check_quota(
        "Memory size in MB per serverless endpoint",
        quotas.serverless_memory_mb, 0, new.serverless.memory_mb, "MBs",
    )  # fmt: skip
    _check_quota(
        "Number of serverless endpoints", quotas.serverless_endpoints, len(held), 1, "endpoints"
    )
    _check_quota(
        "Maximum total concurrency that can be allocated across all serverless endpoints",
        quotas.serverless_concurrency, sum(one.max_concurrency for one in held),
        new.serverless.max_concurrency, "requests",
    )  # fmt: skip


def _check_quota(quota: str, limit: int, used: int, wanted: int, unit: str) -> None:
    if used + wanted > limit:
        raise ResourceLimitExceeded(
            f"The account-level service limit '{quota}' is {limit} {unit}, with current "
            f"utilization of {used} {unit} and a request delta of {wanted} {unit}. Please use AWS "
            "Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
            "available, contact AWS support to request an increase for this quota."
        )


def document(record: Model | EndpointConfig | Endpoint) -> dict[str, Any]:
    """The record as JSON types."""
    return asdict(record)


def model_from(document: Mapping[str, Any]) -> Model:
    return Model(**document)


def config_from(document: Mapping[str, Any]) -> EndpointConfig:
    variants = tuple(_variant_from(variant) for variant in document["variants"])
    return EndpointConfig(document["name"], document["created"], variants)


def endpoint_from(document: Mapping[str, Any]) -> Endpoint:
    return Endpoint(**{**document, "status": Status(document["status"])})


def _variant_from(document: Mapping[str, Any]) -> Variant:
    serverless, instances = document["serverless"], document["instances"]
    if instances:
        instances = InstanceConfig(**{**instances, "routing": Routing(instances["routing"])})
    if serverless:
        serverless = ServerlessConfig(**serverless)
    return Variant(**{**document, "serverless": serverless, "instances": instances})
