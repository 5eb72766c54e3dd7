"""What happened over time, in equal steps: requests, latencies, memory, environments.

Adds up roll-ups and meters; knows no prices and formats nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from emulator.address import Home
from emulator.core import MIB
from emulator.ledger import ENVIRONMENTS, Ledger, Roll, Window
from emulator.ledger.histogram import merge, quantiles

MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
MOST_STEPS = 120
# From the finest on; each is made of whole minutes, hours or days.
WIDTHS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR, DAY, 7 * DAY, 30 * DAY,
          365 * DAY)  # fmt: skip
SHARES = (0.5, 0.95, 0.99)
_COUNTED = ("invocations", "cold_starts", "throttles", "errors", "model_ms", "startup_ms",
            "bytes_in", "bytes_out")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steps:
    """A period, cut into steps of `width` nanoseconds; the first and the last may reach out of
    it."""

    first: int  # the number of the first step since the Unix epoch
    count: int
    width: int

    @classmethod
    def of(cls, from_ns: int, to_ns: int) -> Steps:
        """The finest that are no more than MOST_STEPS. Raises ValueError for an empty period."""
        if to_ns <= from_ns:
            raise ValueError(f"a period from {from_ns} to {to_ns} has no steps")
        for width in WIDTHS:
            first, last = from_ns // width, -(-to_ns // width)
            if last - first <= MOST_STEPS:
                break
        return cls(first, last - first, width)

    @property
    def starts(self) -> list[int]:
        """When each begins, in nanoseconds."""
        return [(self.first + number) * self.width for number in range(self.count)]

    @property
    def from_ns(self) -> int:
        return self.first * self.width

    @property
    def to_ns(self) -> int:
        return (self.first + self.count) * self.width

    def number(self, at_ns: int) -> int:
        """Which of them an instant is in, from 0."""
        return at_ns // self.width - self.first


@dataclass(slots=True)
class Step:
    """One step of one endpoint and persona. Latencies are quantiles in nanoseconds of ModelLatency
    plus OverheadLatency (see SHARES), None without a request."""

    invocations: int = 0
    cold_starts: int = 0
    throttles: int = 0
    errors: int = 0
    model_ms: int = 0  # what calls took, each rounded up
    startup_ms: int = 0  # of starting, as far as it would be billed
    bytes_in: int = 0
    bytes_out: int = 0
    peak_bytes: int = 0
    memory_bytes: int = 0  # paid for, of one environment
    histogram: bytes = b""

    @property
    def latencies(self) -> tuple[float, ...] | None:
        return tuple(quantiles(self.histogram, SHARES)) if self.histogram else None

    def join(self, other: Step) -> None:
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.memory_bytes = max(self.memory_bytes, other.memory_bytes)
        self.histogram = merge(self.histogram, other.histogram)

    def add(self, roll: Roll) -> None:
        self.invocations += roll.invocations
        self.cold_starts += roll.cold_starts
        self.throttles += roll.throttles
        self.errors += roll.errors
        self.model_ms += roll.model_ms
        self.startup_ms += roll.billed_startup_ms - roll.billed_ms
        self.bytes_in += roll.bytes_in
        self.bytes_out += roll.bytes_out
        self.peak_bytes = max(self.peak_bytes, roll.peak_bytes)
        self.memory_bytes = max(self.memory_bytes, roll.place.memory_mb * MIB)
        self.histogram = merge(self.histogram, roll.latencies)


@dataclass(slots=True)
class Course:
    """How one endpoint fared, step by step. `environments` is the most that were alive in each
    step, `concurrency` the most that may be (0 if nobody knows any more)."""

    account: str
    region: str
    endpoint: str
    persona: str
    steps: list[Step]
    environments: list[int] = field(default_factory=list)
    concurrency: int = 0

    @property
    def whole(self) -> Step:
        """All steps as one."""
        made = Step()
        for step in self.steps:
            made.join(step)
        return made

    @property
    def home(self) -> Home:
        return Home(self.account, self.region)


def courses(ledger: Ledger, steps: Steps, endpoint: str = "") -> list[Course]:
    """Of every endpoint that had requests, by name; or of those of one name."""
    found: dict[tuple[str, str, str, str], Course] = {}
    variants: dict[tuple[str, str, str], set[str]] = {}
    table, width = _table(steps.width)
    first, last = steps.from_ns // width, steps.to_ns // width
    for roll in ledger.rolls(table, first, last, endpoint=endpoint):
        place = roll.place
        key = (place.account, place.region, place.endpoint, place.persona)
        if key not in found:
            found[key] = Course(*key, [Step() for _ in range(steps.count)])
        variants.setdefault(key[:3], set()).add(place.variant)
        found[key].steps[steps.number(roll.start * width)].add(roll)
    for course in found.values():
        names = variants[course.account, course.region, course.endpoint]
        course.environments = _alive(ledger, course, sorted(names), steps)
    return sorted(found.values(), key=lambda one: (one.endpoint, one.region, one.persona))


def busiest(found: Sequence[Course], most: int) -> list[Course]:
    """The courses with the most requests, by name, and all others as one."""
    if len(found) <= most:
        return list(found)
    ranked = sorted(found, key=lambda one: -one.whole.invocations)
    kept, rest = ranked[: most - 1], ranked[most - 1 :]
    others = Course("", "", f"{len(rest)} others", "", [Step() for _ in found[0].steps])
    for course in rest:
        for step, more in zip(others.steps, course.steps, strict=True):
            step.join(more)
    return [*sorted(kept, key=lambda one: one.endpoint), others]


def _table(width: int) -> tuple[str, int]:
    if width % DAY == 0:
        return "days", DAY
    return ("hours", HOUR) if width % HOUR == 0 else ("minutes", MINUTE)


def _alive(ledger: Ledger, course: Course, variants: Iterable[str], steps: Steps) -> list[int]:
    """The most environments of all variants in each step: what was alive at its beginning, and
    each change within."""
    changes: list[tuple[int, int]] = []
    for variant in variants:
        window = Window(*course.home, course.endpoint, variant, steps.from_ns, steps.to_ns)
        for start, until, units, _ in ledger.units(ENVIRONMENTS, window):
            changes += [(start, units), (until, -units)]
    return most_of(changes, steps)


def most_of(changes: Sequence[tuple[int, int]], steps: Steps) -> list[int]:
    """The largest sum of all changes (instant, difference) so far that holds within each step."""
    found = [0] * steps.count
    held = 0
    for (at_ns, difference), (until_ns, _) in pairwise([*sorted(changes), (steps.to_ns, 0)]):
        held += difference
        if until_ns > at_ns:
            last = min(steps.number(until_ns - 1), steps.count - 1)
            for number in range(max(0, steps.number(at_ns)), last + 1):
                found[number] = max(found[number], held)
    return found
