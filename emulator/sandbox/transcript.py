"""What a training script prints: kept in a file within bounds, and searched for metrics.

The file has a line of JSON for each line that was printed, `[milliseconds since the Unix epoch,
text]`, as the server's logbook reads them. What comes faster than it can sensibly be kept is left
out, and said to be; what is oldest goes first. Metrics are found in all of it.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

LINE = 64 << 10  # bytes; longer ones are cut into several
BURST_BYTES = 8 << 20  # that are kept however fast they come
RATE_BYTES = 2 << 20  # a second, after that
TAIL = 100  # lines of stderr that a failure is looked for in
SHOWN = 10  # lines of it that are shown
TRACEBACK = "Traceback (most recent call last):"
Metrics = dict[str, tuple[float, int]]


class Transcript:
    """The output of one job. `now` gives milliseconds since the Unix epoch."""

    def __init__(
        self,
        path: Path,
        file_bytes: int,
        definitions: Iterable[tuple[str, str]],
        now: Callable[[], int],
    ) -> None:
        self._path, self._file_bytes, self._now = path, file_bytes, now
        self._definitions = [(name, re.compile(text)) for name, text in definitions]
        self.metrics: Metrics = {}
        self._rest: dict[str, bytes] = {}
        self._errors: deque[str] = deque(maxlen=TAIL)
        self._budget, self._seen_ms = float(BURST_BYTES), now()
        self._left_out = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def take(self, source: str, data: bytes) -> None:
        """Some bytes of "stdout" or "stderr", as they came."""
        *lines, rest = (self._rest.pop(source, b"") + data).split(b"\n")
        while len(rest) > LINE:
            lines.append(rest[:LINE])
            rest = rest[LINE:]
        if rest:
            self._rest[source] = rest
        self._keep(source, lines)

    def say(self, text: str) -> None:
        """A line, or several, of our own."""
        self._keep("stdout", text.encode().split(b"\n"))

    def close(self) -> None:
        """Keep what came without an end of the line, and let go of the file."""
        for source, rest in self._rest.items():
            self._keep(source, [rest])
        self._rest.clear()
        self._budget = math.inf
        self._keep("stdout", [])
        self._file.close()

    @property
    def error(self) -> str:
        """What stderr said at last: the error of the last traceback, else the last line."""
        lines = [line for line in self._errors if line.strip()]
        if TRACEBACK in lines:
            last = len(lines) - 1 - lines[::-1].index(TRACEBACK)
            after = lines[last + 1 :]
            said = next((i for i, line in enumerate(after) if not line.startswith(" ")), None)
            if said is not None:
                return "\n".join(after[said : said + SHOWN])
        return "\n".join(lines[-1:])

    def _keep(self, source: str, lines: list[bytes]) -> None:
        at_ms = self._now()
        earned = (at_ms - self._seen_ms) * RATE_BYTES / 1000
        self._budget = min(self._budget + earned, max(self._budget, BURST_BYTES))
        self._seen_ms = at_ms
        if self._left_out and self._budget > 0:
            text = f"... {self._left_out} lines are left out: they came faster than they are kept"
            self._write([json.dumps([at_ms, text + " ..."])])
            self._left_out = 0
        for start in range(0, len(lines), 1000):
            self._keep_some(source, lines[start : start + 1000], at_ms)

    def _keep_some(self, source: str, lines: list[bytes], at_ms: int) -> None:
        if self._budget <= 0 and not self._definitions and source != "stderr":
            self._left_out += len(lines)
            return
        made = []
        for line in lines:
            text = line.decode("utf-8", "backslashreplace").rstrip("\r")
            if source == "stderr":
                self._errors.append(text)
            for name, pattern in self._definitions:
                if found := pattern.search(text):
                    self._note(name, found, at_ms)
            if self._budget > 0:
                self._budget -= len(line) + 1
                made.append(json.dumps([at_ms, text]))
            else:
                self._left_out += 1
        self._write(made)

    def _note(self, name: str, found: re.Match[str], at_ms: int) -> None:
        try:
            value = float(found[1] if found.re.groups else found[0])
        except (TypeError, ValueError):
            return
        if math.isfinite(value):
            self.metrics[name] = (value, at_ms)

    def _write(self, made: list[str]) -> None:
        if not made:
            return
        if self._file.tell() > self._file_bytes:
            self._file.close()
            self._path.replace(self._path.with_suffix(".old"))
            self._file = self._path.open("ab")
        self._file.write(("\n".join(made) + "\n").encode())
        self._file.flush()
