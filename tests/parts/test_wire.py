"""What a caller gets when the server itself is at fault."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from emulator.address import Addressing, Home
from emulator.wire import Wire

ADDRESSING = Addressing(Home("123456789012", "eu-west-3"))


class Faulty:
    """In the place of all endpoints."""

    def variant(self, *named: object) -> None:
        raise RuntimeError("a fault of ours")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("suffix", ["invocations", "invocations-response-stream"])
def test_a_fault_of_ours_is_an_internal_failure(
    suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": f"/endpoints/e/{suffix}",
        "headers": [],
    }
    wire = Wire(Faulty(), ADDRESSING)  # type: ignore[arg-type]
    assert wire.takes(scope)
    asyncio.run(wire(scope, receive, send))
    assert sent[0]["status"] == 500
    assert (b"x-amzn-errortype", b"InternalFailure") in sent[0]["headers"]
    assert orjson.loads(sent[1]["body"]) == {"Message": ""}
    assert "a fault of ours" in caplog.text
