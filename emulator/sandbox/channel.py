"""The host's side of an environment's socket, on an event loop. It knows frames, not what they
mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from emulator.sandbox.frames import SMALL_BYTES, Frame, FrameError, Kind, Reader, head


class Channel(asyncio.BufferedProtocol):
    """Calls `on_frame` for each frame that arrives and `on_lost` once, when the other side has
    closed or has sent something that is not a frame. There is no task per message."""

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[str], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._reader.received(nbytes)
        except (FrameError, ValueError) as error:
            self._lost(f"It sent something that is not a frame: {error}")
            return
        for frame in frames:
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost("")

    def write(self, kind: Kind, meta: Mapping[str, Any], body: bytes | bytearray = b"") -> None:
        """Send one frame. Raises FrameError over the limits; does nothing once closed."""
        first = head(kind, meta, len(body))
        if self._transport is None:
            return
        if len(body) <= SMALL_BYTES:
            self._transport.write(first + body)
        else:
            self._transport.writelines([first, body])

    def pause(self) -> None:
        """Take nothing in, so that the other side has to wait once the socket is full."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Drop the connection and whatever has not been sent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _lost(self, reason: str) -> None:
        self.close()
        on_lost, self._on_lost = self._on_lost, _ignore
        on_lost(reason)


def _ignore(_: str) -> None:
    """Losing a connection twice is not news."""
