"""Lines out of the pipe that an environment writes its stdout and stderr to. It neither blocks the
loop nor grows with what is written."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

CHUNK = 1 << 13  # what one turn of the loop spends on one environment that floods its log
LINE = 1 << 13  # a line without an end is cut here
LINES = 100  # emitted in one turn of the loop: a chunk of line ends would be thousands
TAIL = 20


class LogPipe:
    """Reads `descriptor` (which it owns) until it is closed, and calls `log` for each line.

    A writer that is faster than the server has to wait for it: the pipe is the only buffer.
    `tail` keeps the last lines for error messages.
    """

    def __init__(self, descriptor: int, log: Callable[[str], None] | None) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._descriptor = descriptor
        self._log = log
        self._rest = b""
        self._lines: deque[bytes] = deque()
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    def close(self) -> None:
        """Take what is still in the pipe, then close it. Safe to call twice."""
        if self._descriptor < 0:
            return
        self.drain()
        if self._rest:
            self._lines.append(self._rest)
        if (dropped := len(self._lines) - LINES) > 0:
            self._emit(b"... %d lines are left out ..." % dropped)
            self._lines = deque(self._lines, maxlen=LINES)
        while self._lines:
            self._emit(self._lines.popleft())
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def drain(self) -> None:
        """Read what the process has left behind: at most one pipe full, should a subprocess of
        it still be writing."""
        for _ in range(8):
            if not self._read():
                return

    def _readable(self) -> None:
        ended = self._read() is None
        if ended or len(self._lines) > LINES:
            self._loop.remove_reader(self._descriptor)
        self._work_off(ended)

    def _work_off(self, ended: bool) -> None:
        """Emit some lines; while more are left, nothing new is read and other work has its turn."""
        if self._descriptor < 0:
            return
        for _ in range(min(LINES, len(self._lines))):
            self._emit(self._lines.popleft())
        if self._lines:
            self._loop.call_soon(self._work_off, ended)
        elif not ended:
            self._loop.add_reader(self._descriptor, self._readable)

    def _read(self) -> bool | None:
        """True after some bytes, False if there are none now, None at the end."""
        if self._descriptor < 0:
            return None
        try:
            data = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            return None
        self._split(data)
        return True

    def _split(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._lines.extend(lines)
        while len(rest) > LINE:
            self._lines.append(rest[:LINE])
            rest = rest[LINE:]
        self._rest = rest

    def _emit(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        self.tail.append(text)
        if self._log is not None:
            self._log(text)
