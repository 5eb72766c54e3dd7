"""Our own REST, documented at `/docs`: health, metrics, the bill, and `/_emulator`.

Everything that comes in is validated by pydantic; everything that goes out has a model.
"""

from __future__ import annotations

import asyncio
import hashlib
import reprlib
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from emulator import catalogue, dashboard
from emulator.clock import VirtualClock, iso
from emulator.core import SECOND
from emulator.endpoints import (
    MAX_CONCURRENCY,
    InstanceConfig,
    ServerlessConfig,
    Variant,
)
from emulator.errors import NotFound, SetupError, ValidationException
from emulator.hosting import Hosted, Hosting
from emulator.ledger import InvocationRow
from emulator.live import Live, LiveVariant
from emulator.realtime import Routing
from emulator.sandbox.protocol import Environment, Stats
from emulator.statement import Statement, draw_up

MAX_ADVANCE_S = 366 * 86_400
LATEST_NS = 7_258_118_400 * SECOND  # the year 2200; the ledger's instants are 64-bit
SETTLE_S = 30.0  # of real time, for everything that one advance has to wait for


class Strict(BaseModel):
    """A body with a member that is not known is refused, so that a slip is not silent."""

    model_config = ConfigDict(extra="forbid")


class EnvironmentView(BaseModel):
    """One execution environment: a process of this machine."""

    id: str
    variant: str
    state: Literal["starting", "idle", "busy"]
    pid: int | None = Field(description="None while it starts.")
    provisioned: bool
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
    memory_mb: int | None = None
    max_concurrency: int | None = None
    provisioned_concurrency: int | None = None
    instance_type: str | None = None
    instance_count: int | None = None
    routing: str | None = None


class EndpointView(BaseModel):
    """An endpoint with everything that runs for it."""

    name: str
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
    routing: Routing = Routing.RANDOM
    volume_gb: int = Field(0, ge=0, le=512)


class VariantBody(Strict):
    """A production variant: exactly one of `serverless` and `realtime`."""

    name: str = "AllTraffic"
    model: str = Field(
        description="Path of a .keras file, a SavedModel directory or a .tar.gz archive on the "
        "server's machine."
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


class AdvanceBody(Strict):
    seconds: float = Field(ge=0, le=MAX_ADVANCE_S, allow_inf_nan=False)


class EvictView(BaseModel):
    evicted: int


class PingView(BaseModel):
    status: Literal["ok", "starting"]
    waiting_for: list[str]


def _path(text: str) -> Path:
    """A path with `~` for a home directory. Raises SetupError if there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SetupError(f"There is no model at {text}: nobody has that name here.") from None


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


Since = Annotated[
    int,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "example": "2026-11-22T21:10:55Z"}),
    Query(description="ISO 8601, or seconds since 1970."),
]
Name = Annotated[str, Query(max_length=63)]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")]


def router(hosting: Hosting) -> APIRouter:
    """The routes of one server."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def index() -> dict[str, str]:
        return {"name": "Lukewarm", "documentation": "/docs", "bill": "/billing"}

    @routes.get("/ping", response_model=PingView, tags=["health"])
    async def ping(response: Response) -> PingView:
        """200 once every endpoint can answer, 503 until then."""
        waiting = hosting.waiting_for
        response.status_code = 503 if waiting else 200
        return PingView(status="starting" if waiting else "ok", waiting_for=waiting)

    @routes.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics, named after CloudWatch's."""
        await hosting.observe_environments()
        return Response(hosting.metrics.render(), media_type=hosting.metrics.content_type)

    @routes.get("/billing", tags=["bill"])
    async def billing(request: Request) -> Response:
        """The bill: JSON, or a page where `Accept` prefers HTML, as a browser's does."""
        statement = await _statement(hosting)
        if "text/html" in request.headers.get("accept", ""):
            policy = "default-src 'none'; style-src 'self'; frame-ancestors 'none'"
            return HTMLResponse(
                dashboard.page(statement), headers={"content-security-policy": policy}
            )
        return JSONResponse(statement.document())

    @routes.get("/billing/style.css", include_in_schema=False)
    async def style() -> Response:
        return Response(dashboard.STYLE, media_type="text/css")

    routes.include_router(_emulator(hosting), prefix="/_emulator", tags=["emulator"])
    return routes


def _emulator(hosting: Hosting) -> APIRouter:
    routes = APIRouter()
    advancing = asyncio.Lock()

    @routes.get("/endpoints")
    async def endpoints() -> EndpointsView:
        """Every endpoint and every environment that runs for it."""
        used = await hosting.used(hosting.hosted)
        views = [_endpoint(hosting, hosted, used) for hosted in hosting.hosted]
        return EndpointsView(
            sandbox=hosting.sandbox.name,
            memory_enforced=hosting.memory_enforced,
            cpu_stretched=hosting.config.cpu_share,
            endpoints=views,
        )

    @routes.get("/endpoints/{name}")
    async def endpoint(name: str) -> EndpointView:
        """One endpoint."""
        hosted = hosting.find(name)
        return _endpoint(hosting, hosted, await hosting.used([hosted]))

    @routes.put("/endpoints/{name}", status_code=201)
    async def create(name: str, body: EndpointBody) -> EndpointView:
        """Create an endpoint from a model on this machine; it is Creating until it has loaded."""
        variants = [_variant(name, one) for one in body.variants]
        models = {
            variant.model: (_path(one.model), one.variables)
            for variant, one in zip(variants, body.variants, strict=True)
        }
        record = await hosting.create(name, variants, models)
        return _endpoint(hosting, hosting.find(record.name), {})

    @routes.delete("/endpoints/{name}", status_code=202)
    async def delete(name: str) -> EndpointView:
        """Delete an endpoint; its billing history stays."""
        hosting.delete(name)
        return _endpoint(hosting, hosting.find(name), {})

    @routes.post("/endpoints/{name}/evict")
    async def evict(name: str) -> EvictView:
        """Unload the idle environments of a serverless endpoint: the next request starts cold."""
        return EvictView(evicted=hosting.evict(name))

    @routes.get("/invocations")
    async def invocations(
        endpoint: Name | None = None,
        since: Since | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Cursor = None,
    ) -> InvocationsView:
        """The ledger's rows, oldest first; `next_cursor` asks for the next page."""
        rows, following = await asyncio.to_thread(
            hosting.ledger.invocations, endpoint, since, limit, int(cursor) if cursor else None
        )
        return InvocationsView(
            invocations=[_invocation(row) for row in rows],
            next_cursor=None if following is None else str(following),
        )

    @routes.get("/clock")
    async def clock() -> ClockView:
        """The server's time."""
        return _clock(hosting)

    @routes.post("/clock/advance")
    async def advance(body: AdvanceBody) -> ClockView:
        """Move the virtual clock. What expires on the way expires; nothing sleeps.

        Environments that are starting, or are started on the way, finish first (within 30 s of
        real time); requests in flight see the time pass.
        """
        if not isinstance(hosting.clock, VirtualClock):
            raise ValidationException(
                "The clock is the wall clock, which cannot be advanced; start the server with "
                "EMULATOR_CLOCK=virtual."
            )
        async with advancing:
            await _advance(hosting, hosting.clock, round(body.seconds * SECOND))
        hosting.beat()
        return _clock(hosting)

    @routes.post("/reset", status_code=200)
    async def reset() -> ClockView:
        """Back to a first start: an empty ledger and the two default endpoints. Time stays."""
        await hosting.reset()
        return _clock(hosting)

    return routes


async def _statement(hosting: Hosting) -> Statement:
    with suppress(sqlite3.Error):  # a ledger that cannot be written can still be read
        hosting.beat()
    config = hosting.config
    usages, counts = await asyncio.to_thread(hosting.ledger.statement, config.bill_startup)
    personas = {one.record.name: one.config.variants[0].persona.value for one in hosting.hosted}
    table = catalogue.price_table(config.region)
    return draw_up(usages, counts, personas, table, config.bill_startup)


async def _advance(hosting: Hosting, clock: VirtualClock, duration_ns: int) -> None:
    """From timer to timer; under a virtual clock a real start takes no time, so it is waited for.

    After 30 s of real time nothing is waited for any more: time goes on.
    """
    target = clock.now() + duration_ns
    if target > LATEST_NS:
        raise ValidationException(
            f"Time stands at {iso(clock.now())}; {duration_ns / SECOND:g} s later is past "
            f"{iso(LATEST_NS)}, which is as far as it goes."
        )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_S
    moving = True
    while moving:
        await asyncio.sleep(0)
        while hosting.settling and loop.time() < deadline:
            await asyncio.sleep(0.005)
        moving = clock.step(target)


def _clock(hosting: Hosting) -> ClockView:
    now = hosting.clock.now()
    name: Literal["wall", "virtual"] = "virtual" if hosting.clock.name == "virtual" else "wall"
    return ClockView(clock=name, now=iso(now), now_ns=now)


def _endpoint(hosting: Hosting, hosted: Hosted, used: Mapping[Environment, Stats]) -> EndpointView:
    record, live = hosted.record, list(hosted.live.values())
    return EndpointView(
        name=record.name,
        arn=hosting.arn("endpoint", record.name),
        persona=hosted.config.variants[0].persona.value,
        status=record.status.value,
        failure_reason=record.failure_reason,
        created=iso(record.created),
        modified=iso(record.modified),
        in_flight=sum(variant.in_flight for variant in live),
        variants=[_variant_view(hosting, variant) for variant in hosted.config.variants],
        environments=[
            _environment(hosting, variant, one, used) for variant in live for one in variant.lives
        ],
    )


def _environment(
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
        memory_bytes=stats.footprint_bytes if stats else 0,
        private_bytes=stats.private_bytes if stats else 0,
        invocations=live.served,
        age_s=(now - live.started_at) / SECOND,
        idle_s=(now - live.since) / SECOND if live.state == "idle" else 0.0,
        provision_us=live.provision_ns // 1000,
        runtime_us=live.setup.runtime_ns // 1000,
        load_us=live.setup.load_ns // 1000,
    )


def _variant_view(hosting: Hosting, variant: Variant) -> VariantView:
    view = VariantView(
        name=variant.name,
        model=variant.model,
        source=hosting.model_source(variant.model),
        weight=variant.weight,
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


def _variant(endpoint: str, body: VariantBody) -> Variant:
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


def _invocation(row: InvocationRow) -> InvocationView:
    return InvocationView(
        **{name: getattr(row, name) for name in _SAME},
        at=iso(row.at_ns),
        model_latency_us=row.model_ns // 1000,
        overhead_latency_us=row.overhead_ns // 1000,
        **{f"{name}_us": getattr(row, f"{name}_ns") // 1000 for name in _IN_MICROSECONDS},
    )


_SAME = tuple(name for name in InvocationView.model_fields if name in InvocationRow._fields)
_IN_MICROSECONDS = ("queue", "provision", "runtime", "load", "cpu")


async def answer_error(request: Request, error: Exception) -> Response:
    """Errors of the control plane and of set-up, as our own REST words them: `{"detail": ...}`."""
    status = 404 if isinstance(error, NotFound) else 400
    return JSONResponse({"detail": str(error)}, status_code=status)


async def answer_unwritable(request: Request, error: Exception) -> Response:
    """The ledger could not be read or written: nothing was changed."""
    text = f"The ledger cannot be used ({error}); nothing was changed. Is the disk full?"
    return JSONResponse({"detail": text}, status_code=503)


async def answer_invalid(request: Request, error: Exception) -> Response:
    """What pydantic refused, as one sentence that names the member and its value."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"] == ("body",) and first["type"] in ("model_attributes_type", "missing"):
        text = "The body has to be a JSON object, sent with Content-Type: application/json."
        return JSONResponse({"detail": text}, status_code=422)
    place = ".".join(str(part) for part in first["loc"])
    given = reprlib.repr(first.get("input"))
    return JSONResponse(
        {"detail": f"{place} is {given}: {first['msg'].removeprefix('Value error, ')}."},
        status_code=422,
    )
