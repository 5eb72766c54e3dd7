"""The personas, one row each: which policy decides for a variant, and what its host holds it to.

A new persona is a policy of its own, a member of `core.Persona`, and a row of the table here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from emulator import catalogue
from emulator.config import Config
from emulator.core import SECOND, Persona, Policy, Runtime
from emulator.endpoints import Variant
from emulator.errors import ValidationException
from emulator.realtime import RealTimePolicy, RealTimeRules
from emulator.serverless import ServerlessPolicy, ServerlessRules

WORKERS_VARIABLE = "SAGEMAKER_MODEL_SERVER_WORKERS"  # the inference toolkit's own
MAX_WORKERS = 64
RUNTIME_VARIABLE = "LUKEWARM_RUNTIME"
RUNTIMES = (Runtime.TENSORFLOW, Runtime.LITERT)  # a script is no choice: the archive has one

Variables = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Hosted:
    """How a variant is hosted. `memory_bytes` is each environment's limit, `payload_bytes` that of
    a body in either direction, `cpu_share` the vCPUs as numerator and denominator (None: all),
    `batch` the most requests that an environment may answer in one call."""

    policy: Policy
    memory_bytes: int
    payload_bytes: int
    warm_up: bool
    cpu_share: tuple[int, int] | None = None
    batch: int = 1
    compiled: bool = False


def host(config: Config, variant: Variant, variables: Variables) -> Hosted:
    """The hosting of one variant, with a policy of its own. `variables` are its container's."""
    return _PERSONAS[variant.persona](config, variant, variables)


def runtime(config: Config, variables: Variables) -> Runtime:
    """What is to run a model with these variables. Raises ValidationException."""
    asked = variables.get(RUNTIME_VARIABLE, config.runtime)
    if asked not in RUNTIMES:
        raise ValidationException(
            f"The variable {RUNTIME_VARIABLE} is {asked!r}; it is one of {', '.join(RUNTIMES)}."
        )
    return Runtime(asked)


def _realtime(config: Config, variant: Variant, variables: Variables) -> Hosted:
    assert variant.instances is not None
    start_s = variant.instances.start_s or config.realtime_start_s
    rules = RealTimeRules(
        instances=variant.instances.count,
        workers=_workers(variables),
        routing=variant.instances.routing,
        seed=config.seed,
        start_limit_ns=round(start_s * SECOND),
        answer_limit_ns=round(config.answer_limit_s * SECOND),
        stream_limit_ns=round(config.stream_limit_s * SECOND),
        batch=config.batch,
    )
    memory_bytes = catalogue.instance_type(variant.instances.instance_type).memory_bytes
    return Hosted(
        RealTimePolicy(rules),
        memory_bytes,
        config.realtime_payload_bytes,
        warm_up=True,
        batch=config.batch,
        compiled=config.compile,
    )


def _serverless(config: Config, variant: Variant, variables: Variables) -> Hosted:
    assert variant.serverless is not None
    shortest, longest = config.keep_warm_s
    rules = ServerlessRules(
        max_concurrency=variant.serverless.max_concurrency,
        provisioned_concurrency=variant.serverless.provisioned_concurrency,
        keep_warm_ns=round(shortest * SECOND),
        keep_warm_longest_ns=round(longest * SECOND),
        seed=config.seed,
        start_limit_ns=round(config.serverless_start_s * SECOND),
        answer_limit_ns=round(config.answer_limit_s * SECOND),
    )
    return Hosted(
        ServerlessPolicy(rules),
        variant.serverless.memory_bytes,
        config.serverless_payload_bytes,
        warm_up=False,
        cpu_share=variant.serverless.cpu_share if config.cpu_share else None,
    )


def _workers(variables: Variables) -> int:
    asked = variables.get(WORKERS_VARIABLE, "")
    return min(MAX_WORKERS, int(asked)) if asked.isdecimal() and int(asked) else 1


_PERSONAS: dict[Persona, Callable[[Config, Variant, Variables], Hosted]] = {
    Persona.REALTIME: _realtime,
    Persona.SERVERLESS: _serverless,
}
