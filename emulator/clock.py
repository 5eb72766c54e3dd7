"""The server's time: one clock object, `wall` or `virtual`. Nothing else in the server reads one.

Instants are integer nanoseconds since the Unix epoch. How long real work takes (a load, an
inference) is measured apart, by whoever does it, and is real under both clocks.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from emulator.core import MILLISECOND, SECOND

MOST_LATE_NS = 2 * MILLISECOND


class Timer(Protocol):
    """A call that is due at an instant."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Where `now` comes from, and what waits for it."""

    name: str

    def now(self) -> int: ...

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the event loop as soon as the clock reaches `when`."""

    async def pause(self, duration_ns: int) -> None:
        """Wait for a modelled duration; the virtual clock does not wait."""


class WallClock:
    """Real time: the date at start plus the time since, so that a set-back date moves nothing.

    Where the system has it, the time counted includes the time the machine was suspended.
    """

    name = "wall"

    def __init__(self) -> None:
        self._source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._offset = time.time_ns() - time.clock_gettime_ns(self._source)
        self._late_ns = 0  # what the loop's timers have come late by of late

    def now(self) -> int:
        return self._offset + time.clock_gettime_ns(self._source)

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        delay = max(0, when - self.now()) / SECOND
        # A loop timer may fire a little early by this clock; policies check deadlines by `now`.
        return asyncio.get_running_loop().call_later(delay + 0.001, callback)

    async def pause(self, duration_ns: int) -> None:
        if duration_ns <= self._late_ns:
            return
        due = self.now() + duration_ns
        await asyncio.sleep((duration_ns - self._late_ns) / SECOND)
        # A loop rounds to milliseconds and wakes a little late: the next pauses are shorter by what
        # that comes to, so that they are right on average. How busy the loop is does not count.
        late_ns = self._late_ns + (self.now() - due) // 16
        self._late_ns = min(max(late_ns, 0), MOST_LATE_NS)


class _VirtualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Time that stands still until `advance` moves it; nothing sleeps."""

    name = "virtual"

    def __init__(self, start: int) -> None:
        self._now = start
        self._timers: list[tuple[int, int, _VirtualTimer]] = []
        self._serial = itertools.count()

    def now(self) -> int:
        return self._now

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        timer = _VirtualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._serial), timer))
        return timer

    async def pause(self, duration_ns: int) -> None:
        await asyncio.sleep(0)

    def step(self, target: int) -> bool:
        """Move to the next timer at or before `target` and fire it, else to `target` itself.

        True if a timer fired: the caller may let what it began run before time goes on.
        """
        while self._timers and self._timers[0][0] <= target:
            when, _, timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._now = max(self._now, when)
                callback()
                return True
        self._now = max(self._now, target)
        return False

    def advance(self, duration_ns: int) -> None:
        """Move forward, stopping at every timer on the way, in order, at its own instant."""
        target = self._now + duration_ns
        while self.step(target):
            pass


def iso(instant: int) -> str:
    """ISO 8601 in UTC with milliseconds, as the REST answers and the log show instants."""
    seconds, rest = divmod(instant, SECOND)
    date = datetime.fromtimestamp(seconds, UTC)
    return f"{date:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
