"""`/_emulator/endpoints/{name}/faults`: errors on request, so that a test can meet each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from emulator.address import Key
from emulator.errors import ValidationException
from emulator.hosting import Hosting
from emulator.injection import Error, ErrorCode, Injection

Responses = dict[int | str, dict[str, Any]]


class FaultBody(BaseModel):
    """An error that the next invocations get."""

    model_config = ConfigDict(extra="forbid", strict=True)

    error: Error = Field(description="The error's code.")
    times: int = Field(1, ge=1, le=1_000_000, description="How many invocations get it.")
    status: int = Field(
        0, ge=0, le=599, description="The container's own status, for a ModelError; 0 for none."
    )
    message: str = Field("", max_length=2048, description="Its text, or the container's.")
    error_code: ErrorCode = Field("StreamBroken", description="That of a ModelStreamError.")


class FaultsView(BaseModel):
    """What the next invocations get; None if they are served."""

    fault: FaultBody | None


def router(hosting: Hosting, may: Callable[..., Responses]) -> APIRouter:
    """The routes of one server; `may` makes what is said of the errors that a route answers."""
    routes = APIRouter()
    path = "/endpoints/{name}/faults"

    @routes.get(path, responses=may(404))
    async def get(name: str) -> FaultsView:
        """The error that is set, and for how many more invocations."""
        live = hosting.find(Key(hosting.home, name)).live.values()
        return _view(next(iter(live)).injection if live else None)

    @routes.put(path, responses=may(400, 404, 413, 422))
    async def put(name: str, body: FaultBody) -> FaultsView:
        """Have the next invocations of the endpoint, whatever their variant, get an error. They are
        in the ledger as errors, and not billed."""
        live = hosting.find(Key(hosting.home, name)).live.values()
        if not live:
            raise ValidationException(f"The endpoint {name} is not in service: it gets no calls.")
        if body.status and body.error != "ModelError":
            raise ValidationException("A status is the container's: it belongs to a ModelError.")
        injection = Injection(body.error, body.times, body.status, body.message, body.error_code)
        for variant in live:
            variant.injection = injection
        return _view(injection)

    @routes.delete(path, responses=may(404))
    async def delete(name: str) -> FaultsView:
        """Have them served again."""
        for variant in hosting.find(Key(hosting.home, name)).live.values():
            variant.injection = None
        return _view(None)

    return routes


def _view(injection: Injection | None) -> FaultsView:
    if injection is None or not injection.left:
        return FaultsView(fault=None)
    body = FaultBody(
        error=injection.error,
        times=injection.left,
        status=injection.status,
        message=injection.message,
        error_code=injection.error_code,
    )
    return FaultsView(fault=body)
