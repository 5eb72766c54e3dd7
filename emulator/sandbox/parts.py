"""A streamed answer from the inside of an environment: its parts are sent as the model's code
yields them, until it ends or the host has no more use for it. Imports nothing of the server."""

from __future__ import annotations

import contextlib
import select
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from emulator.sandbox.frames import Frame, Kind, receive, send

PIECE_BYTES = 1 << 18  # of a part that travel in one frame: the host holds a few of them
PAUSE_MS = 50.0  # without a request, after which nobody is kept waiting by a closer look


class Incoming:
    """What the host sends. While an answer is streamed it is looked through for the end of that."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead: deque[Frame] = deque()
        self._poller = select.poll()  # also for descriptors that `select` refuses
        self._poller.register(connection, select.POLLIN)

    def waiting(self, pause_ms: float = PAUSE_MS) -> bool:
        """Whether something has come, or does within the pause."""
        return bool(self._ahead or self._poller.poll(pause_ms))

    def next(self) -> Frame | None:
        """The next request; None when the host has hung up."""
        while True:
            frame = self._ahead.popleft() if self._ahead else receive(self._connection)
            if frame is None or frame.kind is not Kind.CANCEL:  # which may come too late
                return frame

    def cancelled(self, number: int) -> bool:
        """Whether the host has no more use for that stream."""
        while self._poller.poll(0):
            frame = receive(self._connection)
            if frame is None:
                return True
            if frame.kind is not Kind.CANCEL:
                self._ahead.append(frame)
            elif frame.meta["stream"] == number:
                return True
        return False


def streamed(
    connection: socket.socket,
    incoming: Incoming,
    number: int,
    response: Any,
    failed: Callable[[BaseException], Any],
) -> Any:
    """Send the parts of a response that has some; what is left to be said of it at the end, which
    is what `failed` makes of an exception, or the response without a body. Raises OSError if the
    host is gone."""
    head = {"content_type": response.content_type, "custom_attributes": response.custom_attributes}
    left = _Parts(response.parts)
    while (part := left.next()) is not None:
        for piece in _pieces(part):
            send(connection, Kind.PART, head, piece)
            head = {}
        if incoming.cancelled(number):
            left.close()
            break
    return failed(left.fault) if left.fault else response


class _Parts:
    """An iterator of user code, taken so that its exceptions are not those of the socket."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self.fault: BaseException | None = None

    def next(self) -> bytes | None:
        try:
            return next(self._parts, None)
        except BaseException as fault:  # noqa: BLE001 - sys.exit() in user code is told, too
            self.fault = fault
            return None

    def close(self) -> None:
        """Have the user's generator end, as it ends for a client that leaves."""
        with contextlib.suppress(AttributeError):
            try:
                self._parts.close()  # type: ignore[attr-defined]
            except BaseException:  # noqa: BLE001 - nobody is left to be told
                traceback.print_exc()


def _pieces(part: bytes) -> Iterator[bytes]:
    if len(part) <= PIECE_BYTES:
        return iter((part,) if part else ())
    return (part[at : at + PIECE_BYTES] for at in range(0, len(part), PIECE_BYTES))
