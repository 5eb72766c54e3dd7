"""Limits on connections, put under uvicorn's HTTP protocol: how many, how large a head, how slow.

`keep` replaces the protocol class in uvicorn's configuration before it listens, so that the limits
hold however the server is started. Decides nothing about requests; those are `wire.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from emulator.config import Config
from emulator.cork import Cork
from emulator.door import MALFORMED, UPGRADE, Door, Refusal, Refused

log = logging.getLogger("lukewarm.connections")

PIECE = 4096  # bytes fed to the parser at once: some 200 of the smallest requests
LINGER_S = 2.0  # for a refused client to read why; a close at once would reset it in mid-sentence
LEAVING = 256  # refused clients at a time that are told why; above it they are only cut off
NOTHING = memoryview(b"")
BETWEEN, HEAD, BODY = range(3)  # what a client is sending: plain numbers, set for every request


class Flow(FlowControl):
    """Takes in what the request that is being answered needs, and no request behind it.

    `held` is what has been read from the socket and not yet been fed to the parser.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.transport)
        self._connection = connection
        self.held = NOTHING

    def resume_reading(self) -> None:
        if not self.read_paused or self._connection.pipeline:
            return
        if self.held:  # later: uvicorn is in the middle of ending an answer
            self.read_paused = False
            self._connection.loop.call_soon(self._connection.go_on)
        else:
            super().resume_reading()


class Deaf:
    """In the place of a parser: what a refused client still sends is dropped."""

    def feed_data(self, data: bytes) -> None:
        pass


class Connection(HttpToolsProtocol):
    """One client. The work added to a request is a few assignments."""

    flow: Flow

    def __init__(self, door: Door, **given: Any) -> None:
        super().__init__(**given)
        self._door = door
        self._phase = BETWEEN
        self.since = door.now
        self._came = 0  # bytes of the body
        self._unread = 0  # bytes that have not become a head or a part of a body
        self.coming = 0  # bytes of a body that is not complete
        self._due: deque[RequestResponseCycle] = deque()  # before `cycle`, while there are any
        self._stuck_since: float | None = None
        self._refusal: Refusal | None = None
        self.ws_protocol_class = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(self)
        self.transport = Cork(transport, self.loop)  # type: ignore[assignment]
        door = self._door
        door.open.add(self)
        if len(door.open) - len(door.leaving) > door.most:
            self.refuse(door.crowded)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.open.discard(self)
        self._door.leaving.discard(self)
        self._count_off()
        for cycle in self._due:  # uvicorn tells the newest only, and lets others write to no one
            cycle.disconnected = True
            cycle.message_event.set()
        self.flow.held = NOTHING
        super().connection_lost(exc)

    # -- what the client sends ----------------------------------------------------------------

    def shutdown(self) -> None:
        self._door.end()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if len(data) <= PIECE and not self.flow.held:
            self._take(data)
            return
        self.flow.held = memoryview(bytes(self.flow.held) + data if self.flow.held else data)
        self.go_on()

    def go_on(self) -> None:
        """Feed what is held, until a request waits behind another or a body for its reader."""
        flow = self.flow
        while flow.held and not flow.read_paused and not self.transport.is_closing():
            size = max(PIECE, self._left())
            piece, flow.held = flow.held[:size], flow.held[size:]
            self._take(piece)
        if not flow.held and not flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _take(self, data: bytes | memoryview) -> None:
        self._unset_keepalive_if_required()
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # is not made: the answer is the connection's last
            self.cycle.keep_alive = False
            self.parser = Deaf()  # type: ignore[assignment]
        except httptools.HttpParserError as error:
            reason = error.__context__
            self.refuse(reason.refusal if isinstance(reason, Refused) else MALFORMED)
        else:
            if self._unread > self._door.config.head_bytes:
                self.refuse(self._door.large)

    def _left(self) -> int:
        """Bytes of the body that are still to come, where its length is known."""
        if self._phase != BODY:
            return 0
        lengths = [int(value) for name, value in self.headers if name == b"content-length"]
        return lengths[0] - self._came if lengths else 0

    def on_message_begin(self) -> None:
        self._phase, self.since = HEAD, self._door.now
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase != BODY:  # a trailer is no header: it would take one's place
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.headers) > self._door.config.head_fields:
            raise Refused(self._door.many)
        if self.parser.should_upgrade() and _has_body(self.headers):
            raise Refused(UPGRADE)  # the parser would drop the body
        before = self.cycle
        super().on_headers_complete()
        if before is not None and not before.response_complete:
            self._note_due(before)
        self._phase, self.since = BODY, self._door.now
        self._unread = self._came = 0

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._unread = 0
        self._came += size
        if self.cycle.response_complete:  # uvicorn drops it
            self._count_off()
            return
        self.coming += size
        self._door.coming += size
        if self._door.coming > self._door.config.bodies_bytes:
            self._door.relieve()
            if self._refusal:
                raise Refused(self._refusal)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._count_off()
        self._phase, self.since = BETWEEN, self._door.now
        super().on_message_complete()

    def _note_due(self, cycle: RequestResponseCycle) -> None:
        while self._due and self._due[0].response_complete:
            self._due.popleft()
        self._due.append(cycle)

    def _count_off(self) -> None:
        """The body is complete, or will never be."""
        self._door.coming -= self.coming
        self.coming = 0

    def _should_upgrade(self) -> bool:
        return False

    # -- what it does not read ----------------------------------------------------------------

    def pause_writing(self) -> None:
        self._stuck_since = self._door.now
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stuck_since = None
        super().resume_writing()

    # -- how it ends --------------------------------------------------------------------------

    def check(self) -> None:
        """End the connection if its client has been at something for too long."""
        door, config = self._door, self._door.config
        if self._stuck_since is not None and door.past(self._stuck_since, config.delivery_s):
            door.note(door.slow_reader)
            self.transport.abort()
        elif self in door.leaving:
            if door.past(self.since, LINGER_S):
                self.transport.abort()
        elif self._refusal:
            self._leave(self._refusal)
        elif self.flow.read_paused or self._answering():  # it is the server that takes its time
            self.since = door.now
        elif door.past(self.since, config.body_s if self._phase == BODY else config.head_s):
            self._expire()

    def _answering(self) -> bool:
        """Whether answers are due to requests that came whole."""
        if self._phase == BODY:  # and `cycle` belongs to the request that is coming in
            return bool(self.pipeline)
        return self.cycle is not None and not self.cycle.response_complete

    def _expire(self) -> None:
        if self._phase == BETWEEN:  # as with any server that ends an idle connection
            self.transport.close()
        else:
            self.refuse(self._door.slow_body if self._phase == BODY else self._door.slow_head)

    def refuse(self, refusal: Refusal) -> None:
        """Take nothing more from the client, and tell it why."""
        if self._refusal:
            return
        self._refusal = refusal
        self._count_off()
        self._door.note(refusal.text)
        self.parser = Deaf()  # type: ignore[assignment]
        self.flow.held = NOTHING
        if self._phase == BODY:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._leave(refusal)

    def _leave(self, refusal: Refusal) -> None:
        """Say why and go, as soon as earlier requests have their answers."""
        door, transport = self._door, self.transport
        if self._answering() or transport.is_closing():
            return
        if self._phase == BODY and self.cycle.response_started:  # it has its answer already
            transport.close()
        elif len(door.leaving) >= LEAVING:
            transport.abort()
        else:
            door.leaving.add(self)
            self.since = door.now
            transport.write(self._farewell(refusal))
            if not transport.can_write_eof():
                transport.close()
                return
            transport.write_eof()
            transport.resume_reading()

    def _farewell(self, refusal: Refusal) -> bytes:
        text = refusal.text.encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
        ]
        lines = [b"%s: %s\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", text])


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0)
        for name, value in headers
    )


def keep(uvicorn: Any, config: Config, end: Callable[[], None]) -> Door | None:
    """Put a watch over the connections of uvicorn's configuration, before it listens. `end` is
    called when the server begins to end.

    None, and one line in the log, if it is not a configuration that can be watched.
    """
    if getattr(uvicorn, "http_protocol_class", None) is not HttpToolsProtocol:
        log.warning(
            "Limits on connections are not in force: they need uvicorn with httptools "
            "(the option --http auto or httptools)."
        )
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    door = Door(config, min(config.connections, soft - soft // 4), end)
    uvicorn.http_protocol_class = partial(Connection, door)
    return door
