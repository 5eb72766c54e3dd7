"""Length-prefixed frames between a host and an environment. No pickle, and no asyncio: a worker
imports this file, so it may import nothing of the server.

A frame is a fixed header (kind, length of meta, length of body), meta as a JSON object, and the
body as opaque bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from emulator.sandbox import notation

HEADER = struct.Struct("!BIQ")
MAX_META_BYTES = 1 << 20
MAX_BODY_BYTES = 1 << 28
SMALL_BYTES = 1 << 16  # up to here one copy is cheaper than one more system call


class Kind(IntEnum):
    """LOAD, INVOKE and CANCEL go to the environment; READY, FAILED, PART, REPLY and USAGE come from
    it. PARTs are what an answer yields before its REPLY, where the INVOKE asked for a stream."""

    LOAD = 1
    READY = 2
    FAILED = 3
    INVOKE = 4
    REPLY = 5
    USAGE = 6
    PART = 7
    CANCEL = 8


class FrameError(ValueError):
    """The other side sent, or this side tried to send, something that is not a frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `meta` holds what JSON can hold, `body` is opaque."""

    kind: Kind
    meta: dict[str, Any]
    body: bytes = b""


def head(kind: Kind, meta: Mapping[str, Any], body_bytes: int) -> bytes:
    """The header and meta of a frame; the body follows. Raises FrameError over the limits."""
    try:
        encoded = notation.encode(meta)
    except TypeError as error:
        raise FrameError(f"The meta of a {kind.name} frame is not JSON: {error}.") from error
    _check(len(encoded), body_bytes)
    return HEADER.pack(kind, len(encoded), body_bytes) + encoded


def send(connection: socket.socket, kind: Kind, meta: Mapping[str, Any], body: bytes = b"") -> None:
    """Send one frame on a blocking socket."""
    first = head(kind, meta, len(body))
    if len(body) <= SMALL_BYTES:
        connection.sendall(first + body)
        return
    sent = connection.sendmsg([first, body])
    if sent < len(first):
        connection.sendall(first[sent:])
        sent = len(first)
    connection.sendall(memoryview(body)[sent - len(first) :])


def receive(connection: socket.socket) -> Frame | None:
    """Wait for one frame on a blocking socket; None when the other side has closed it."""
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    kind, meta_bytes, body_bytes = _opened(header, 0)
    meta = _exactly(connection, meta_bytes)
    body = _exactly(connection, body_bytes)
    if meta is None or body is None:
        return None
    return Frame(kind, notation.decode(meta), body)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    """MSG_WAITALL lets the kernel fill one bytes object: a 25 MB body is not copied again."""
    parts: list[bytes] = []
    missing = size
    while missing:
        part = connection.recv(missing, socket.MSG_WAITALL)
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _opened(buffer: bytes | bytearray, at: int) -> tuple[Kind, int, int]:
    number, meta_bytes, body_bytes = HEADER.unpack_from(buffer, at)
    try:
        kind = Kind(number)
    except ValueError as error:
        raise FrameError(f"{number} is not a kind of frame.") from error
    _check(meta_bytes, body_bytes)
    return kind, meta_bytes, body_bytes


def _check(meta_bytes: int, body_bytes: int) -> None:
    if meta_bytes > MAX_META_BYTES:
        raise FrameError(f"A frame's meta of {meta_bytes} bytes is over {MAX_META_BYTES}.")
    if body_bytes > MAX_BODY_BYTES:
        raise FrameError(f"A frame's body of {body_bytes} bytes is over {MAX_BODY_BYTES}.")


class Reader:
    """Frames out of a stream that arrives in pieces, without I/O.

    Ask `buffer()` where to put the next bytes, then tell `received(count)` how many came. Small
    frames share one buffer; a large one gets its own, which the bytes are received into directly.
    """

    def __init__(self) -> None:
        self._small = bytearray(SMALL_BYTES)
        self._held = 0
        self._large: bytearray | None = None
        self._kind = Kind.REPLY
        self._meta_bytes = 0

    def buffer(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._large is not None:
            return memoryview(self._large)[self._held :]
        return memoryview(self._small)[self._held :]

    def received(self, count: int) -> list[Frame]:
        """The frames that `count` more bytes complete. Raises FrameError on a bad header."""
        self._held += count
        if self._large is None:
            return self._sorted_out()
        if self._held < len(self._large):
            return []
        frame = _frame(self._kind, self._large, 0, self._meta_bytes, len(self._large))
        self._large, self._held = None, 0
        return [frame]

    def _sorted_out(self) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        while self._held - at >= HEADER.size:
            kind, meta_bytes, body_bytes = _opened(self._small, at)
            begin = at + HEADER.size
            end = begin + meta_bytes + body_bytes
            if end <= self._held:
                frames.append(_frame(kind, self._small, begin, meta_bytes, end))
                at = end
            elif end - at > len(self._small):
                self._grow(kind, begin, meta_bytes, end - begin)
                return frames
            else:
                break
        left = self._held - at
        self._small[:left] = self._small[at : self._held]
        self._held = left
        return frames

    def _grow(self, kind: Kind, begin: int, meta_bytes: int, size: int) -> None:
        self._large = bytearray(size)
        have = self._held - begin
        self._large[:have] = self._small[begin : self._held]
        self._kind, self._meta_bytes, self._held = kind, meta_bytes, have


def _frame(kind: Kind, buffer: bytearray, begin: int, meta_bytes: int, end: int) -> Frame:
    view = memoryview(buffer)
    middle = begin + meta_bytes
    return Frame(kind, notation.decode(view[begin:middle]), bytes(view[middle:end]))
