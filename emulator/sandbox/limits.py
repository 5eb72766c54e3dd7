"""Watching what environments use while they load or answer: one timer for all of them, and the
sentence for the one that used too much. It kills nobody; the environment does that itself."""

from __future__ import annotations

import asyncio
from typing import Protocol

from emulator.core import MIB
from emulator.sandbox.footprint import alone, resident

INTERVAL_S = 0.025


class Watched(Protocol):
    """Something with a limit to look after."""

    def check(self) -> None: ...


class Watch:
    """Calls `check` of everything added, about every 25 ms; without anything no timer runs."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        self._watched.add(watched)
        if self._timer is None:
            self._arm()

    def discard(self, watched: Watched) -> None:
        self._watched.discard(watched)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for watched in tuple(self._watched):
            watched.check()
        if self._watched:
            self._arm()


class Gauge:
    """The footprint of a process as seen from outside.

    An exact look costs milliseconds for a forked process. Before the first one, everything that
    is mapped counts as its own; between two of them, the growth of the resident set is added to
    the last one. Both are rather too high than too low: a page of the zygote that is touched for
    the first time counts, too. `shared` is the zygote's resident set at the fork, None where
    nothing is shared. `shown` is the best that is known, for people.
    """

    def __init__(self, pid: int, shared: int | None) -> None:
        self._pid = pid
        self._shared = shared
        self._resident = resident(pid) if shared is None else 0
        self.footprint = self._resident if shared is None else shared
        self.shown = self.footprint

    def note(self, footprint: int, resident_bytes: int) -> None:
        """Take over an exact look: the process's own, or one of ours. Ignored when empty."""
        if footprint:
            self.footprint, self._resident = footprint, resident_bytes
            self.shown = footprint

    def estimate(self) -> int:
        """At least the footprint, in bytes, for the price of one small read; 0 once it is gone."""
        now = resident(self._pid)
        return self.footprint + max(0, now - self._resident) if now else 0

    def exact(self) -> tuple[int, int]:
        """(footprint, resident set) in bytes, for `note`. May run in any thread."""
        now = resident(self._pid)
        return alone(self._pid, self._shared), now


def too_much(used: int, limit: int) -> str:
    """The sentence for a footprint of `used` bytes over a limit of `limit` bytes."""
    return (
        f"The environment needed {-(-used // MIB)} MB of memory, "
        f"which is more than its limit of {limit // MIB} MB."
    )
