"""Our own REST, documented at `/docs`: health, metrics, the bill, and `/_emulator`.

Everything that comes in is validated by pydantic; everything that goes out has a model.
"""

from __future__ import annotations

import asyncio
import reprlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from emulator import billpages, documentation, injecting
from emulator.address import Key
from emulator.clock import VirtualClock, iso
from emulator.companion import Companion
from emulator.core import SECOND
from emulator.errors import NotFound, ValidationException
from emulator.hosting import Hosting
from emulator.training import Trainings
from emulator.views import (
    AdvanceBody,
    ClockView,
    EndpointBody,
    EndpointsView,
    EndpointView,
    ErrorView,
    EvictView,
    Instant,
    InvocationsView,
    PingView,
    ServerView,
    clock_view,
    endpoint_view,
    invocation_view,
    path_from,
    server_view,
    variant_from,
)

LATEST_NS = 7_258_118_400 * SECOND  # the year 2200; the ledger's instants are 64-bit
SETTLE_S = 30.0  # of real time, for everything that one advance has to wait for


def _may(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route answers, for its `responses`."""
    return {
        status: {"model": ErrorView, "description": documentation.REST_ERRORS[status]}
        for status in statuses
    }


Name = Annotated[str, Query(max_length=63)]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")]
Since = Annotated[Instant, Query(description="ISO 8601, or seconds since 1970.")]


def router(
    hosting: Hosting,
    trainings: Trainings,
    companion: Companion,
    authentication: bool,
    leaving: asyncio.Event,
) -> APIRouter:
    """The routes of one server. `authentication` says whether it asks for signatures, `leaving` is
    set when it begins to end."""
    routes = APIRouter(responses=_may(401, 403))

    @routes.get("/", include_in_schema=False)
    async def index() -> dict[str, str]:
        return {"name": "Lukewarm", "documentation": "/docs", "bill": "/billing"}

    @routes.get("/ping", tags=["health"], responses={503: {"model": PingView}})
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

    routes.include_router(billpages.router(hosting, leaving, _may))
    routes.include_router(
        _emulator(hosting, trainings, companion, authentication),
        prefix="/_emulator",
        tags=["emulator"],
    )
    return routes


def _emulator(
    hosting: Hosting, trainings: Trainings, companion: Companion, authentication: bool
) -> APIRouter:
    routes = APIRouter(responses=_may(503))
    routes.include_router(injecting.router(hosting, _may))
    advancing = asyncio.Lock()

    @routes.get("/endpoints")
    async def endpoints() -> EndpointsView:
        """Every endpoint and every environment that runs for it."""
        used = await hosting.used(hosting.hosted)
        views = [endpoint_view(hosting, hosted, used) for hosted in hosting.hosted]
        return EndpointsView(
            sandbox=hosting.sandbox.name,
            memory_enforced=hosting.memory_enforced,
            cpu_stretched=hosting.config.cpu_share,
            endpoints=views,
        )

    @routes.get("/endpoints/{name}", responses=_may(404, 422))
    async def endpoint(name: str) -> EndpointView:
        """One endpoint."""
        hosted = hosting.find(Key(hosting.home, name))
        return endpoint_view(hosting, hosted, await hosting.used([hosted]))

    @routes.put("/endpoints/{name}", status_code=201, responses=_may(400, 413, 422))
    async def create(name: str, body: EndpointBody) -> EndpointView:
        """Create an endpoint from a model on this machine; it is Creating until it has loaded."""
        variants = [variant_from(name, one) for one in body.variants]
        models = {
            variant.model: (path_from(one.model), one.variables)
            for variant, one in zip(variants, body.variants, strict=True)
        }
        record = await hosting.create(name, variants, models)
        return endpoint_view(hosting, hosting.find(record.key), {})

    @routes.delete("/endpoints/{name}", status_code=202, responses=_may(400, 404, 413, 422))
    async def delete(name: str) -> EndpointView:
        """Delete an endpoint; its billing history stays."""
        hosting.delete(name)
        return endpoint_view(hosting, hosting.find(Key(hosting.home, name)), {})

    @routes.post("/endpoints/{name}/evict", responses=_may(400, 404, 413, 422))
    async def evict(name: str) -> EvictView:
        """Unload the idle environments of a serverless endpoint: the next request starts cold."""
        return EvictView(evicted=hosting.evict(name))

    @routes.get("/invocations", responses=_may(422))
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
            invocations=[invocation_view(row) for row in rows],
            next_cursor=None if following is None else str(following),
        )

    @routes.get("/server")
    async def server() -> ServerView:
        """Where the server is at home: what clients are told by `lukewarm env`."""
        return server_view(hosting, authentication)

    @routes.get("/clock")
    async def clock() -> ClockView:
        """The server's time."""
        return clock_view(hosting)

    @routes.post("/clock/advance", responses=_may(400, 413, 422))
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
        return clock_view(hosting)

    @routes.post("/reset", status_code=200, responses=_may(413))
    async def reset() -> ClockView:
        """Back to a first start: an empty ledger, the two default endpoints, no logs, and nothing
        in S3 and the other services of this process. Time stays."""
        await trainings.reset()
        await companion.reset()
        await hosting.reset()
        return clock_view(hosting)

    return routes


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


def _detail(status: int, text: str) -> Response:
    """`{"detail": ...}`; what UTF-8 cannot carry (half of a surrogate pair) is escaped."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"detail": safe}, status_code=status)


async def answer_error(request: Request, error: Exception) -> Response:
    """Errors of the control plane and of set-up, as our own REST words them: `{"detail": ...}`."""
    status = 404 if isinstance(error, NotFound) else 400
    return _detail(status, str(error))


async def answer_http(request: Request, error: Exception) -> Response:
    """What FastAPI itself answers: no such page, no such method, a body that cannot be parsed."""
    assert isinstance(error, HTTPException)
    path = reprlib.repr(request.scope["path"])
    said = {
        400: "The body cannot be read as JSON: it is nested too deep, or a number is too long.",
        404: f"There is nothing at {path}: /docs lists what there is.",
        405: f"{request.method} is not answered at {path}: /docs lists what is.",
    }
    answer = _detail(error.status_code, said.get(error.status_code, str(error.detail)))
    answer.headers.update(error.headers or {})
    return answer


async def answer_unwritable(request: Request, error: Exception) -> Response:
    """The ledger could not be read or written: nothing was changed."""
    text = f"The ledger cannot be used ({error}); nothing was changed: mend that and try again."
    return _detail(503, text)


async def answer_invalid(request: Request, error: Exception) -> Response:
    """What pydantic refused, as one sentence that names the member and its value."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"] == ("body",) and first["type"] in ("model_attributes_type", "missing"):
        text = "The body has to be a JSON object, sent with Content-Type: application/json."
        return _detail(422, text)
    if first["type"] == "json_invalid":
        where = f"{first['ctx']['error']} at character {first['loc'][-1]}"
        return _detail(422, f"The body is not JSON: {where}.")
    place = ".".join(str(part) for part in first["loc"])
    given = reprlib.repr(first.get("input"))
    return _detail(422, f"{place} is {given}: {first['msg'].removeprefix('Value error, ')}.")
