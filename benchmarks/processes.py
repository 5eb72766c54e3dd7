"""What a running server holds: memory, descriptors, threads, children."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Held:
    """Of the server's own process; `children` is the number of all its descendants."""

    resident_mb: float
    descriptors: int
    threads: int
    children: int


def held(pid: int) -> Held:
    """What the process holds at this moment."""
    one = psutil.Process(pid)
    resident_mb = one.memory_info().rss / 1e6
    return Held(resident_mb, one.num_fds(), one.num_threads(), len(one.children(recursive=True)))


def descendants(pid: int) -> list[int]:
    return [one.pid for one in psutil.Process(pid).children(recursive=True)]


def alive(pids: list[int]) -> list[int]:
    """Those that still run; one that only waits to be reaped does not."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


@contextmanager
def paused(pids: Iterable[int]) -> Iterator[None]:
    """The processes and their descendants stand still for the block: what a server does while it
    is idle, be it timers or polling, is no load for the one that is measured."""
    stopped = []
    try:
        for pid in pids:
            for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    one.suspend()
                    stopped.append(one)
        yield
    finally:
        for one in stopped:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def proportional_mb(pid: int) -> float:
    """What the process and its descendants take from the machine: a page that several share is
    counted once in all."""
    total = 0
    for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            memory = one.memory_full_info()
            total += getattr(memory, "pss", memory.uss)  # Linux alone tells the first
    return total / 1e6
