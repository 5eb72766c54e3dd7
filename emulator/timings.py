"""How long calls took, as tests ask for it: percentiles, and where the time of the slowest went.
Made of the rows that `GET /_emulator/invocations` answers; pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

SHOWN = 5  # of the slowest calls
LIMIT = re.compile(r"p(\d{1,2}|100)(?:_(\d+))?_ms")


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation, as the server recorded it. Times in milliseconds.

    `latency_ms` is ModelLatency and OverheadLatency together: from arrival to answer, delays that
    are modelled included. `setup_ms` of a cold start is its provisioning, runtime and load.
    """

    endpoint: str
    at: str
    status: int
    error: str
    cold_start: bool
    billed_ms: int
    model_ms: float
    overhead_ms: float
    provision_ms: float
    runtime_ms: float
    load_ms: float
    queue_ms: float

    @property
    def latency_ms(self) -> float:
        return self.model_ms + self.overhead_ms

    @property
    def setup_ms(self) -> float:
        return self.provision_ms + self.runtime_ms + self.load_ms

    def parts(self) -> str:
        if not self.cold_start:
            return f"warm: {self.model_ms:.1f} model + {self.overhead_ms:.1f} overhead"
        rest = self.overhead_ms - self.setup_ms
        return (
            f"cold: {self.provision_ms:.1f} provisioning + {self.runtime_ms:.1f} runtime + "
            f"{self.load_ms:.1f} load + {self.model_ms:.1f} model + {rest:.1f} other overhead"
        )


def call(row: Mapping[str, Any]) -> Call:
    """A call from its row."""
    times = {
        f"{name.removesuffix('_latency')}_ms": row[f"{name}_us"] / 1000
        for name in ("model_latency", "overhead_latency", "provision", "runtime", "load", "queue")
    }
    return Call(
        endpoint=row["endpoint"],
        at=row["at"],
        status=row["status"],
        error=row["error_code"],
        cold_start=row["cold_start"],
        billed_ms=row["billed_ms"],
        **times,
    )


def rank(percent: float, count: int) -> int:
    """Which of `count` values in order is the percentile: nearest rank, the smallest value that at
    least so many percent do not exceed."""
    return max(1, ceil(round(percent * count / 100, 9)))


def percentile(calls: Sequence[Call], percent: float) -> float:
    """In milliseconds, by nearest rank. Raises ValueError without calls."""
    if not calls:
        raise ValueError("There is no percentile of no calls.")
    return sorted(one.latency_ms for one in calls)[rank(percent, len(calls)) - 1]


def limits(given: Mapping[str, float]) -> dict[float, float]:
    """Milliseconds by percent, from names such as p95_ms or p99_9_ms. Raises TypeError for another
    name, and ValueError for none."""
    found = {}
    for name, most in given.items():
        parts = LIMIT.fullmatch(name)
        if not parts or (percent := float(f"{parts[1]}.{parts[2] or 0}")) > 100:
            raise TypeError(f"{name} is no percentile: it has the form p95_ms, or p99_9_ms.")
        found[percent] = most
    if not found:
        raise ValueError("Say how long it may take, as in assert_latency(name, p95_ms=100).")
    return found


def complaint(name: str, all_calls: Iterable[Call], given: Mapping[str, float]) -> str:
    """What is wrong with calls that should be within these limits, the slowest included; empty if
    nothing is. Raises as `limits`."""
    bounds, everything = limits(given), tuple(all_calls)
    calls = tuple(one for one in everything if one.status == 200)
    failed = len(everything) - len(calls)
    if not calls:
        return f"{name} has answered no call, so there is no percentile{_left_out(failed)}."
    said = [
        _over(name, percent, percentile(calls, percent), most, len(calls))
        for percent, most in bounds.items()
        if percentile(calls, percent) > most
    ]
    if not said:
        return ""
    slowest = sorted(calls, key=lambda one: -one.latency_ms)[:SHOWN]
    return "\n".join(
        [
            *said,
            f"Latency is ModelLatency + OverheadLatency, in ms{_left_out(failed)}. The slowest:",
            *(f"  {one.latency_ms:.1f} = {one.parts()}" for one in slowest),
        ]
    )


def _over(name: str, percent: float, found: float, most: float, count: int) -> str:
    return (
        f"{name}: p{percent:g} is {found:.1f} ms, over {most:g} ms. It is what {percent:g} % of "
        f"{_calls(count)} do not exceed: number {rank(percent, count)} of {count} in order."
    )


def _left_out(failed: int) -> str:
    are = "is" if failed == 1 else "are"
    return f"; {_calls(failed)} that failed {are} left out" if failed else ""


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"
