"""How much memory a process uses, read from /proc. A worker imports this file as well, so it may
import nothing of the server. Where there is no /proc every figure is 0, which no limit exceeds.

The footprint of an environment is what it would need alone. A forked one shares pages with the
zygote, so its footprint is the zygote's resident set at the fork plus its own private pages; any
other one's is its resident set.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
GRAIN = 4 << 20  # growth below this is not worth a walk through the page tables (about 10 ms)
PRIVATE = (b"Private_Clean:", b"Private_Dirty:", b"Private_Hugetlb:")


def resident(pid: int | str = "self") -> int:
    """The resident set in bytes, shared pages included; 0 if the process is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY)  # a Path takes four times as long
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 256).split(b" ", 2)[1]) * PAGE
    except (OSError, IndexError):
        return 0
    finally:
        os.close(descriptor)


def private(pid: int | str = "self") -> int:
    """The pages in bytes that no other process maps; 0 if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(PRIVATE))


def alone(pid: int | str, shared: int | None) -> int:
    """The footprint in bytes. `shared` is the zygote's resident set, None where nothing is
    shared; 0 if the process is gone."""
    if shared is None:
        return resident(pid)
    own = private(pid)
    return shared + own if own else 0


class Peak:
    """The largest footprint of this process so far, kept by the worker itself.

    The kernel remembers the largest resident set, so a spike between two looks is not missed:
    memory that has been given back since was private, and is added to what is private now.

    A look at a forked process's own pages walks its page tables, 5 to 10 ms. While a caller waits
    it is taken only if the footprint may be over `limit`, which it is not as long as the zygote's
    pages and everything mapped here fit. Until `refresh`, an estimate stands in for it: what has
    been mapped since the fork, or one private page for each fault if that is more, as it is where
    shared pages were written to.
    """

    def __init__(self, shared: int | None, limit: int | None = None) -> None:
        self._shared = shared
        self._limit = limit
        self._inherited = _high_water()
        self._at_fork = resident()
        self._seen = 0
        self.estimated = False
        self.footprint = 0
        self.resident = 0
        self.peak = 0

    def update(self) -> int:
        """The peak in bytes. Cheap (a microsecond) unless it has risen."""
        high = self._high()
        if high > self._seen + GRAIN:
            self._seen = high
            if self._shared is None or self._near(self._shared + high):
                self.refresh()
            else:
                self.estimated = True
                self.resident = high
                grown = max(high - self._at_fork, min(high, _faults() * PAGE))
                self.footprint = self._shared + grown
                self.peak = max(self.peak, self.footprint)
        return self.peak

    def refresh(self) -> None:
        """Take the exact look."""
        if self.estimated:  # an estimate is no peak that ever was
            self.estimated, self.peak = False, 0
        self.resident = resident() or self._seen
        self.footprint = alone("self", self._shared) or self._seen
        self.peak = max(self.peak, self.footprint + max(0, self._seen - self.resident))

    def _near(self, most: int) -> bool:
        return self._limit is not None and most > self._limit

    def _high(self) -> int:
        """Linux hands the mark of the process that called exec on to the new program, so a mark
        that never moved says nothing about this one."""
        high = _high_water()
        return high if high > self._inherited else resident() or high


def _high_water() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
