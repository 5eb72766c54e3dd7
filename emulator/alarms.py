"""When an alarm is in ALARM: which of its last periods breach its threshold. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What an alarm compares, and how many of its periods have to breach."""

    comparison: str
    threshold: float
    to_alarm: int
    missing: str = "missing"  # or ignore, breaching, notBreaching

    def state(self, values: Sequence[float | None], before: str) -> str:
        """The state that the last periods give, the oldest first; None is one without samples.

        A period without samples counts as `missing` says. By default it does not count at all: the
        periods that have samples decide, and none of them leaves the alarm without data.
        """
        breaches = COMPARISONS[self.comparison]
        found = [breaches(value, self.threshold) for value in values if value is not None]
        gaps = len(values) - len(found)
        if self.missing in ("breaching", "notBreaching"):
            found += [self.missing == "breaching"] * gaps
        elif not found:
            return before if self.missing == "ignore" else INSUFFICIENT
        needed = min(self.to_alarm, len(found))
        return ALARM if sum(found) >= needed else OK
