"""A streamed answer as it goes to a client: parts as events, what goes wrong on the way in band."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import orjson

from emulator import eventstream, faults
from emulator.asgi import Headers, Receive, Send
from emulator.errors import InternalStreamFailure, InvocationError, ModelStreamError
from emulator.inflight import Served
from emulator.sandbox.stream import Stream

STOPPED = "The server is being stopped."


def part(body: bytes) -> bytes:
    """A piece of the answer as an event."""
    return eventstream.event("PayloadPart", "application/octet-stream", body)


def failure(error: InvocationError) -> bytes:
    """The exception that ends a stream which `error` broke."""
    told = faults.in_stream(error)
    members = {"Message": str(told)}
    if isinstance(told, ModelStreamError):
        members["ErrorCode"] = told.error_code
    return eventstream.exception(told.code, orjson.dumps(members))


async def whole(send: Send, headers: Headers, body: bytes) -> None:
    """An answer that was not yielded, as the one part of a stream."""
    await _begin(send, headers)
    await send({"type": "http.response.body", "body": part(body)})


async def deliver(
    stream: Stream,
    served: asyncio.Task[Served],
    receive: Receive,
    send: Send,
    headers: Headers,
) -> None:
    """Pass on an answer that has begun, until `served` says that it has ended, and how.

    A client that leaves ends it. Returns when its environment is done with it.
    """
    served.add_done_callback(lambda _: stream.end())
    gone = asyncio.get_running_loop().create_task(_gone(receive))
    gone.add_done_callback(lambda _: stream.abandon())
    try:
        await _begin(send, headers)
        while (body := await stream.take()) is not None:
            await _send(send, part(body))
        last = b""
        try:
            error = (await served).error
        except InvocationError as fault:
            error = fault
        if error is not None:
            last = failure(error)
    except asyncio.CancelledError:  # uvicorn's, when the grace of a stop is over
        stream.abandon()
        last = failure(InternalStreamFailure(STOPPED))
    finally:
        gone.cancel()
    await send({"type": "http.response.body", "body": last})


async def _begin(send: Send, headers: Headers) -> None:
    headers = [*headers, (b"content-type", eventstream.CONTENT_TYPE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
