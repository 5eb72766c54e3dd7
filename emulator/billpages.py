"""The routes of the bill: for programs, for spreadsheets, and the dashboard with what it loads."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from emulator import cur, dashboard, focus, terms
from emulator.clock import VirtualClock
from emulator.core import SECOND
from emulator.daily import Day
from emulator.dashboard import RANGES, View
from emulator.errors import ValidationException
from emulator.hosting import Hosting
from emulator.overview import Hosted, Overview
from emulator.sheet import sheet
from emulator.statement import Statement
from emulator.terms import Form, Terms

RANGE = "range"
_LENGTH_S = {"1h": 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400, "90d": 90 * 86_400}
_TEXT = {"schema": {"type": "string"}}
_BILL: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": _TEXT, "text/csv": _TEXT}},
}
PARQUET = "application/vnd.apache.parquet"
_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": _TEXT}}}
_PARQUET: dict[int | str, dict[str, Any]] = {
    200: {"content": {PARQUET: {"schema": {"type": "string", "format": "binary"}}}}
}
_TERMS = {
    "parameters": [
        {"name": name, "in": "query", "description": one.help, "schema": {"type": "string"}}
        for name, one in terms.PARAMETERS.items()
    ]
}
# Plotly makes <style> elements that are empty, and fills them by script; one of a part of it that
# draws maps is not empty. These two, by their hashes, and no other.
_STYLES = (
    "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o=",
)
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "connect-src 'self'", "img-src 'self' data: blob:",
    "style-src 'self' " + " ".join(f"'sha256-{one}'" for one in _STYLES),
    "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
))  # fmt: skip
_HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store"}
LOOK_S = 0.5  # how soon an open page hears of what has changed
GROWTH_S = 5  # what is held by time costs more all the time: how often that is news
SILENCE_S = 15.0  # without news; then a comment shows that the server is there


def router(
    hosting: Hosting, leaving: asyncio.Event, may: Callable[..., dict[int | str, dict[str, Any]]]
) -> APIRouter:
    """The routes of one server; `leaving` is set when it begins to end."""
    routes = APIRouter()

    @routes.get("/billing", tags=["bill"], responses=_BILL | may(400, 503), openapi_extra=_TERMS)
    async def billing(request: Request) -> Response:
        """The bill: JSON, or what `Accept` prefers of a page (as a browser's does) and CSV."""
        accept = request.headers.get("accept", "")
        given, asked = _asked(hosting, request)
        match asked.form or _preferred(accept):
            case Form.HTML:
                view = await asyncio.to_thread(_view, overview(hosting), asked, given)
                return HTMLResponse(dashboard.page(view), headers=_HEADERS)
            case Form.CSV:
                return Response(sheet(await _statement(hosting, asked)), media_type="text/csv")
        return JSONResponse((await _statement(hosting, asked)).document())

    @routes.get(
        "/billing/focus.csv", tags=["bill"], responses=_CSV | may(400), openapi_extra=_TERMS
    )
    async def focus_csv(request: Request) -> Response:
        """The bill by day in FOCUS 1.2, the open specification of cost and usage data."""
        days, currency = await _days(hosting, request)
        return Response(focus.as_csv(days, currency), media_type="text/csv")

    @routes.get(
        "/billing/focus.parquet", tags=["bill"], responses=_PARQUET | may(400), openapi_extra=_TERMS
    )
    async def focus_parquet(request: Request) -> Response:
        """The same as Parquet."""
        days, currency = await _days(hosting, request)
        content = await asyncio.to_thread(focus.as_parquet, days, currency)
        return Response(content, media_type=PARQUET)

    @routes.get("/billing/cur.csv", tags=["bill"], responses=_CSV | may(400), openapi_extra=_TERMS)
    async def cur_csv(request: Request) -> Response:
        """The bill by day in columns of AWS's Cost and Usage Report 2.0."""
        days, currency = await _days(hosting, request)
        return Response(cur.as_csv(days, currency), media_type="text/csv")

    @routes.get("/billing/sections", include_in_schema=False)
    async def sections(request: Request) -> Response:
        given, asked = _asked(hosting, request)
        view = await asyncio.to_thread(_view, overview(hosting), asked, given)
        return HTMLResponse(dashboard.main(view), headers=_HEADERS)

    @routes.get("/billing/figures", include_in_schema=False)
    async def figures(request: Request) -> Response:
        _, asked = _asked(hosting, request)
        drawn = await asyncio.to_thread(overview(hosting).figures, replace(asked, group_by=None))
        return JSONResponse([chart.document() for chart in drawn])

    @routes.get("/billing/live", include_in_schema=False)
    async def live() -> Response:
        return StreamingResponse(
            _news(hosting, leaving), media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )  # fmt: skip

    for name, media_type in (("dashboard.css", "text/css"), ("dashboard.js", "text/javascript")):
        _serve(routes, f"/billing/{name}", (dashboard.WEB / name).read_bytes, media_type)
    _serve(routes, "/billing/plotly.js", _plotly, "text/javascript")
    return routes


def _serve(routes: APIRouter, path: str, read: Callable[[], bytes], media_type: str) -> None:
    """A file that is read when it is asked for first."""
    kept: list[tuple[bytes, str]] = []

    @routes.get(path, include_in_schema=False)
    async def serve(request: Request) -> Response:
        if not kept:
            content = await asyncio.to_thread(read)
            kept.append((content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'))
        content, tag = kept[0]
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)


def _plotly() -> bytes:
    """The script that comes with Plotly's package."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def _asked(hosting: Hosting, request: Request) -> tuple[str, Terms]:
    """The range that was chosen, if one was, and the terms. Raises ValidationException."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValidationException(f"{twice[:80]} is given twice: leave one of them out.")
    found = dict(given)
    chosen = found.pop(RANGE, "")
    if chosen not in RANGES:
        known = ", ".join(filter(None, RANGES))
        raise ValidationException(f"range is {chosen[:80]!r}: it is one of {known}.")
    if chosen and {"from", "to"} & set(found):
        raise ValidationException(f"range is {chosen}, and from or to is given: leave one out.")
    now = hosting.clock.now()
    read = terms.read(found, hosting.config.bill_startup, hosting.tables.regions, now)
    if chosen:
        read = replace(read, from_ns=now - _LENGTH_S[chosen] * SECOND)
    return chosen, read


def _preferred(accept: str) -> Form:
    if "text/html" in accept:
        return Form.HTML
    return Form.CSV if "text/csv" in accept else Form.JSON


def overview(hosting: Hosting) -> Overview:
    """A look at a server's ledger as it is now."""
    with suppress(sqlite3.Error):  # a ledger that cannot be written can still be read
        hosting.beat()
    personas, concurrency = {}, {}
    for one in hosting.hosted:
        variant = one.record.current.variants[0].variant
        personas[one.key] = variant.persona.value
        if variant.serverless:
            concurrency[one.key] = variant.serverless.max_concurrency
    return Overview(
        hosting.ledger,
        Hosted(personas, concurrency),
        hosting.tables,
        hosting.config.region,
        hosting.clock.now(),
    )


async def _statement(hosting: Hosting, asked: Terms) -> Statement:
    return await asyncio.to_thread(overview(hosting).bill, asked)


async def _days(hosting: Hosting, request: Request) -> tuple[list[Day], str]:
    _, asked = _asked(hosting, request)
    looked = overview(hosting)
    currency = hosting.tables.known(asked.region or hosting.config.region).latest.currency
    return await asyncio.to_thread(looked.days, asked), currency


def _view(looked: Overview, asked: Terms, chosen: str) -> View:
    whole = replace(asked, group_by=None)
    statement = looked.bill(whole)
    grouped = looked.bill(asked) if asked.group_by else statement
    choices = looked.choices(whole)
    return View(
        chosen,
        asked.endpoint,
        looked.names(),
        looked.spent(whole),
        statement,
        grouped,
        choices,
        looked.elsewhere(choices),
    )


async def _news(hosting: Hosting, leaving: asyncio.Event) -> AsyncIterator[str]:
    """An event for each change of what the dashboard shows."""
    yield "retry: 1000\n\n"
    known, quiet_s = _state(hosting), 0.0
    while not leaving.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(leaving.wait(), LOOK_S)
        found, quiet_s = _state(hosting), quiet_s + LOOK_S
        if found != known:
            known, quiet_s = found, 0.0
            yield f"event: changed\ndata: {found[0]}\n\n"
        elif quiet_s >= SILENCE_S:
            quiet_s = 0.0
            yield ": still here\n\n"


def _state(hosting: Hosting) -> tuple[int, int]:
    now = hosting.clock.now()
    virtual = isinstance(hosting.clock, VirtualClock)
    return hosting.ledger.revision, now if virtual else now // (GROWTH_S * SECOND)
