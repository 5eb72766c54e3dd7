"""What goes in and out of our own REST, as pydantic models, and how it is made from what runs.

Knows no HTTP; the routes are `rest.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from emulator import __version__
from emulator.clock import iso
from emulator.conversions import Outcome
from emulator.core import SECOND
from emulator.endpoints import (
    MAX_CONCURRENCY,
    Deployed,
    Endpoint,
    InstanceConfig,
    ServerlessConfig,
    Variant,
)
from emulator.errors import SetupError
from emulator.hosting import Hosting
from emulator.inflight import Live
from emulator.ledger import InvocationRow
from emulator.lifecycle import Hosted
from emulator.live import LiveVariant
from emulator.realtime import Routing
from emulator.registry import arn_of
from emulator.sandbox.protocol import Environment, Stats

MAX_ADVANCE_S = 366 * 86_400


class Strict(BaseModel):
    """A body with a member that is not known, or of another type, is refused, so that a slip is
    not silent: `false` is no number, and `"2"` neither."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorView(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class IsolationView(BaseModel):
    """What the kernel keeps an environment from; see docs/fidelity.md."""

    model_config = ConfigDict(from_attributes=True)

    network: str = Field(description='"none" or "open".')
    files: str = Field(description='"read-only" for all but its scratch folder, or "open".')
    signals: str = Field(description='"own" if it reaches no process but its own, or "open".')


class EnvironmentView(BaseModel):
    """One execution environment: a process of this machine."""

    id: str
    variant: str
    state: Literal["starting", "idle", "busy"]
    pid: int | None = Field(description="None while it starts.")
    provisioned: bool
    isolation: IsolationView | None = Field(description="None while it starts.")
    memory_bytes: int = Field(description="What it would need alone: runtime and private pages.")
    private_bytes: int = Field(description="What it adds to this machine.")
    invocations: int
    age_s: float
    idle_s: float = Field(description="Seconds since its last answer; 0 unless idle.")
    provision_us: int
    runtime_us: int
    load_us: int


class VariantView(BaseModel):
    name: str
    model: str
    source: str
    weight: float
    runtime: str | None = Field(
        None, description="What runs the model; None while that is being settled."
    )
    runtime_note: str = Field("", description="How LiteRT's model was made, or why it was not.")
    memory_mb: int | None = None
    max_concurrency: int | None = None
    provisioned_concurrency: int | None = None
    instance_type: str | None = None
    instance_count: int | None = None
    routing: str | None = None


class EndpointView(BaseModel):
    """An endpoint with everything that runs for it."""

    name: str
    region: str
    account: str
    arn: str
    persona: str
    status: str
    failure_reason: str
    created: str
    modified: str
    in_flight: int
    variants: list[VariantView]
    environments: list[EnvironmentView]


class EndpointsView(BaseModel):
    sandbox: str = Field(description="The backend that starts environments.")
    memory_enforced: bool
    cpu_stretched: bool
    endpoints: list[EndpointView]


class ServerlessBody(Strict):
    memory_mb: int = Field(4096, description="1024 to 6144 in steps of 1024")
    max_concurrency: int = Field(10, ge=1, le=MAX_CONCURRENCY)
    provisioned_concurrency: int = Field(0, ge=0, le=MAX_CONCURRENCY)


class RealTimeBody(Strict):
    instance_type: str = "ml.t2.medium"
    instance_count: int = Field(1, ge=1, le=100)
    routing: Routing = Field(Routing.RANDOM, strict=False)  # JSON has no type for it but text
    volume_gb: int = Field(0, ge=0, le=512)


class VariantBody(Strict):
    """A production variant: exactly one of `serverless` and `realtime`."""

    name: str = "AllTraffic"
    model: str = Field(
        max_length=4096,
        description="Path of a .keras file, a SavedModel directory or a .tar.gz archive on the "
        "server's machine.",
    )
    variables: dict[str, str] = Field(default_factory=dict, max_length=100)
    weight: float = Field(1.0, ge=0, le=1_000_000)
    serverless: ServerlessBody | None = None
    realtime: RealTimeBody | None = None

    @model_validator(mode="after")
    def _one_persona(self) -> VariantBody:
        if (self.serverless is None) == (self.realtime is None):
            raise ValueError("a variant has exactly one of serverless and realtime")
        return self


class EndpointBody(Strict):
    variants: list[VariantBody] = Field(min_length=1, max_length=10)


class InvocationView(BaseModel):
    """One row of the ledger. Times in microseconds unless named otherwise."""

    request_id: str
    at: str
    at_ns: int
    endpoint: str
    variant: str
    persona: str
    environment: str
    status: int
    error_code: str
    cold_start: bool
    provisioned: bool
    memory_mb: int
    instance_type: str
    request_bytes: int
    response_bytes: int
    billed_ms: int
    billed_startup_ms: int
    queue_us: int
    provision_us: int
    runtime_us: int
    load_us: int
    model_latency_us: int
    overhead_latency_us: int
    cpu_us: int
    peak_bytes: int
    inference_id: str


class InvocationsView(BaseModel):
    invocations: list[InvocationView]
    next_cursor: str | None


class ClockView(BaseModel):
    clock: Literal["wall", "virtual"]
    now: str
    now_ns: int


class ServerView(BaseModel):
    """Where a server is at home, for clients that are to be told."""

    version: str
    region: str = Field(description="Of what is not signed, and of our own REST.")
    account: str
    authentication: bool = Field(description="Whether requests have to be signed.")
    clock: Literal["wall", "virtual"]
    now: str
    profile: str = Field(description="The latency profile in force; `none` for none.")


class AdvanceBody(Strict):
    seconds: float = Field(ge=0, le=MAX_ADVANCE_S, allow_inf_nan=False)


class EvictView(BaseModel):
    evicted: int


class PingView(BaseModel):
    status: Literal["ok", "starting"]
    waiting_for: list[str]


def _instant(text: object) -> int:
    """Nanoseconds of an ISO 8601 date or of seconds since the epoch."""
    try:
        seconds = float(str(text))
    except ValueError:
        try:
            date = datetime.fromisoformat(str(text))
        except ValueError:
            raise ValueError("expected an ISO 8601 date or seconds since 1970") from None
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    if not 0 <= seconds <= 9e9:
        raise ValueError("expected an ISO 8601 date or seconds since 1970")
    return round(seconds * SECOND)


Instant = Annotated[
    int,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "example": "2026-11-22T21:10:55Z"}),
]


def path_from(text: str) -> Path:
    """A path with `~` for a home directory. Raises SetupError if there is no such home, or for a
    text that no path can be."""
    try:
        text.encode()  # half of a surrogate pair stands for a byte; what shows it is in UTF-8
        if "\0" in text:
            raise ValueError
        return Path(text).expanduser()
    except RuntimeError:
        raise SetupError(f"There is no model at {text}: nobody has that name here.") from None
    except ValueError:
        raise SetupError(f"There is no model at {text!r}: it is not a path in UTF-8.") from None


def server_view(hosting: Hosting, authentication: bool) -> ServerView:
    clock = clock_view(hosting)
    return ServerView(
        version=__version__,
        region=hosting.home.region,
        account=hosting.home.account,
        authentication=authentication,
        clock=clock.clock,
        now=clock.now,
        profile=hosting.profile.name if hosting.profile else "none",
    )


def clock_view(hosting: Hosting) -> ClockView:
    now = hosting.clock.now()
    name: Literal["wall", "virtual"] = "virtual" if hosting.clock.name == "virtual" else "wall"
    return ClockView(clock=name, now=iso(now), now_ns=now)


def endpoint_view(
    hosting: Hosting, hosted: Hosted, used: Mapping[Environment, Stats]
) -> EndpointView:
    record, live = hosted.record, list(hosted.live.values())
    return EndpointView(
        name=record.key.name,
        region=record.key.home.region,
        account=record.key.home.account,
        arn=arn_of(Endpoint, record.key),
        persona=record.current.variants[0].variant.persona.value,
        status=record.status.value,
        failure_reason=record.failure_reason,
        created=iso(record.created),
        modified=iso(record.modified),
        in_flight=sum(variant.in_flight for variant in live),
        variants=[
            _variant_view(one, hosted.fleet.outcomes.get(one.variant.name))
            for one in record.current.variants
        ],
        environments=[
            _environment_view(hosting, variant, one, used)
            for fleet in hosted.fleets
            for variant in fleet.variants.values()
            for one in variant.lives
        ],
    )


def _environment_view(
    hosting: Hosting, variant: LiveVariant, live: Live, used: Mapping[Environment, Stats]
) -> EnvironmentView:
    now, running = hosting.clock.now(), live.environment
    stats = used.get(running) if running else None
    return EnvironmentView(
        id=variant.environment_name(live.number),
        variant=variant.variant.name,
        state=live.state,
        pid=running.pid if running else None,
        provisioned=live.provisioned,
        isolation=IsolationView.model_validate(running.isolation) if running else None,
        memory_bytes=stats.footprint_bytes if stats else 0,
        private_bytes=stats.private_bytes if stats else 0,
        invocations=live.served,
        age_s=(now - live.started_at) / SECOND,
        idle_s=(now - live.since) / SECOND if live.state == "idle" else 0.0,
        provision_us=live.provision_ns // 1000,
        runtime_us=live.setup.runtime_ns // 1000,
        load_us=live.setup.load_ns // 1000,
    )


def _variant_view(deployed: Deployed, outcome: Outcome | None) -> VariantView:
    variant = deployed.variant
    view = VariantView(
        name=variant.name,
        model=variant.model,
        source=deployed.container.url,
        weight=variant.weight,
        runtime=outcome.runtime.value if outcome else None,
        runtime_note=outcome.note if outcome else "",
    )
    if variant.serverless:
        view.memory_mb = variant.serverless.memory_mb
        view.max_concurrency = variant.serverless.max_concurrency
        view.provisioned_concurrency = variant.serverless.provisioned_concurrency
    if variant.instances:
        view.instance_type = variant.instances.instance_type
        view.instance_count = variant.instances.count
        view.routing = variant.instances.routing.value
    return view


def variant_from(endpoint: str, body: VariantBody) -> Variant:
    serverless = instances = None
    if one := body.serverless:
        serverless = ServerlessConfig(
            one.memory_mb, one.max_concurrency, one.provisioned_concurrency
        )
    if two := body.realtime:
        instances = InstanceConfig(
            two.instance_type, two.instance_count, two.routing, two.volume_gb
        )
    digest = hashlib.sha256(f"{endpoint}/{body.name}".encode()).hexdigest()[:8]
    model = f"{endpoint[:54].rstrip('-')}-{digest}"  # unlike any other variant's
    return Variant(body.name, model, serverless, instances, body.weight)


def invocation_view(row: InvocationRow) -> InvocationView:
    return InvocationView(
        **{name: getattr(row, name) for name in _SAME},
        at=iso(row.at_ns),
        model_latency_us=row.model_ns // 1000,
        overhead_latency_us=row.overhead_ns // 1000,
        **{f"{name}_us": getattr(row, f"{name}_ns") // 1000 for name in _IN_MICROSECONDS},
    )


_SAME = tuple(name for name in InvocationView.model_fields if name in InvocationRow._fields)
_IN_MICROSECONDS = ("queue", "provision", "runtime", "load", "cpu")
