"""ASGI by its names, a body taken in within bounds, a short answer. Knows no route."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from emulator.errors import PayloadTooLarge

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

DRAINED = 64 << 20  # how much of a refused body is read, so that its sender sees the answer


@dataclass(slots=True)
class Body:
    """A body that has been read: what was kept of it, its size in bytes, its SHA-256."""

    kept: bytes
    size: int
    digest: str

    def again(self, receive: Receive) -> Receive:
        """A `receive` that gives the body once more, without keeping it, and then what comes."""
        waiting: list[Message] = [{"type": "http.request", "body": self.kept, "more_body": False}]
        self.kept = b""

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay


async def take_in(receive: Receive, limit: int) -> Body | None:
    """A whole body, hashed as it comes in; None if the client left.

    Past `limit` bytes the rest is counted and not kept: what is kept is over the limit then, so
    that who reads it again comes to the same verdict. Raises PayloadTooLarge far past it.
    """
    kept = bytearray()  # and no list: there may be a message for every two bytes
    size, digest = 0, hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        if size <= limit:
            kept += chunk
        size += len(chunk)
        digest.update(chunk)
        if not message.get("more_body"):
            break
        if size > limit + DRAINED:
            raise PayloadTooLarge(f"HTTP content length exceeded {limit} bytes.")
    return Body(bytes(kept), size, digest.hexdigest())


async def drain(receive: Receive) -> None:
    """Read a refused body, so that its sender comes to see the answer; but not for ever."""
    size = 0
    while size <= DRAINED:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_detail(send: Send, status: int, text: str, headers: Headers | None = None) -> None:
    """Send `{"detail": ...}`, which is how our own REST puts what is wrong."""
    headers = [(b"content-type", b"application/json"), *(headers or [])]
    await answer(send, status, headers, orjson.dumps({"detail": text}))
