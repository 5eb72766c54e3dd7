"""Histograms of latencies that add up exactly and lie by at most two percent: counts in bins whose
bounds grow by a constant factor (the idea of DDSketch, Masson et al., 2019).

Bin 0 holds what is below a microsecond; bin b > 0 holds values above GROWTH^(b-1) and up to
GROWTH^b microseconds. Packed, a histogram is a run of 6 bytes for each bin that is not empty, in
order: its number (2 bytes, little-endian) and its count (4 bytes). Knows no I/O.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping

GROWTH = 1.04
_LOG = math.log(GROWTH)
_MICROSECOND = 1000
_BIN = struct.Struct("<HI")
_FEW = 8 * _BIN.size
_MOST = 2**32 - 1  # one more is lost, not a server


def bin_of(ns: int) -> int:
    """The number of the bin that a latency in nanoseconds belongs to."""
    if ns < _MICROSECOND:
        return 0
    return math.ceil(math.log(ns / _MICROSECOND) / _LOG) if ns > _MICROSECOND else 1


def value_of(number: int) -> float:
    """The latency in nanoseconds that stands for a bin: none in it differs by more than 2 %."""
    if number == 0:
        return 0.0
    return _MICROSECOND * 2 * GROWTH**number / (1 + GROWTH)


def pack(counts: Mapping[int, int]) -> bytes:
    """A histogram from the counts of its bins."""
    return b"".join(_BIN.pack(bin, min(counts[bin], _MOST)) for bin in sorted(counts))


def unpack(packed: bytes) -> Counter[int]:
    """The counts of its bins."""
    return Counter(dict(_BIN.iter_unpack(packed)))


def merge(*histograms: bytes) -> bytes:
    """All of them in one; in whichever order, the bytes are the same."""
    filled = [one for one in histograms if one]
    if len(filled) < 2:
        return filled[0] if filled else b""
    if len(filled) == 2 and len(filled[1]) <= _FEW:
        return _with_few(*filled)
    counts: Counter[int] = Counter()
    for one in filled:
        counts.update(dict(_BIN.iter_unpack(one)))
    return pack(counts)


def _with_few(packed: bytes, few: bytes) -> bytes:
    """`merge` for where a few bins are added to many, as each write does it."""
    for number, count in _BIN.iter_unpack(few):
        low, high = 0, len(packed) // _BIN.size
        while low < high:
            middle = (low + high) // 2
            at = middle * _BIN.size
            if packed[at] | packed[at + 1] << 8 < number:
                low = middle + 1
            else:
                high = middle
        at = end = low * _BIN.size
        if at < len(packed) and packed[at] | packed[at + 1] << 8 == number:
            end = at + _BIN.size
            count = min(count + _BIN.unpack_from(packed, at)[1], _MOST)
        packed = packed[:at] + _BIN.pack(number, count) + packed[end:]
    return packed


def quantiles(packed: bytes, shares: Iterable[float]) -> list[float]:
    """For each share of 1 the latency in nanoseconds that so many of all are not above (the
    nearest rank); 0 for an empty histogram."""
    counts = sorted(unpack(packed).items())
    total = sum(count for _, count in counts)
    return [_ranked(counts, max(1, math.ceil(share * total))) for share in shares]


def _ranked(counts: list[tuple[int, int]], rank: int) -> float:
    for number, count in counts:
        rank -= count
        if rank <= 0:
            return value_of(number)
    return 0.0


class Histogram:
    """As an aggregate of SQLite: of latencies in nanoseconds, None being left out."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def step(self, ns: int | None) -> None:
        if ns is not None:
            number = bin_of(ns)
            self._counts[number] = self._counts.get(number, 0) + 1

    def finalize(self) -> bytes:
        return pack(self._counts)


class Merged:
    """As an aggregate of SQLite: of packed histograms."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def step(self, packed: bytes) -> None:
        self._parts.append(packed)
        if len(self._parts) > 100:
            self._parts = [merge(*self._parts)]

    def finalize(self) -> bytes:
        return merge(*self._parts)
