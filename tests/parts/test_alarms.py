"""States of alarms: M of N periods, and what is missing."""

from __future__ import annotations

import pytest

from emulator.alarms import ALARM, INSUFFICIENT, OK, Rule

HIGH, LOW = 9.0, 1.0


@pytest.mark.parametrize(
    ("values", "to_alarm", "states"),
    [
        # the last four: missing, ignore, breaching, notBreaching
        ([LOW, LOW, LOW], 3, (OK, OK, OK, OK)),
        ([HIGH, HIGH, HIGH], 3, (ALARM, ALARM, ALARM, ALARM)),
        ([HIGH, LOW, HIGH], 3, (OK, OK, OK, OK)),
        ([HIGH, LOW, HIGH], 2, (ALARM, ALARM, ALARM, ALARM)),
        ([5.0, 5.0, 5.0], 3, (OK, OK, OK, OK)),
        ([None, None, None], 3, (INSUFFICIENT, "before", ALARM, OK)),
        ([None, HIGH, HIGH], 3, (ALARM, ALARM, ALARM, OK)),
        ([None, LOW, HIGH], 2, (OK, OK, ALARM, OK)),
        ([None, None, LOW], 2, (OK, OK, ALARM, OK)),
    ],
)
def test_states(values: list[float | None], to_alarm: int, states: tuple[str, ...]) -> None:
    treatments = ("missing", "ignore", "breaching", "notBreaching")
    for missing, expected in zip(treatments, states, strict=True):
        rule = Rule("GreaterThanThreshold", 5.0, to_alarm, missing)
        assert rule.state(values, "before") == expected, missing


def test_comparisons() -> None:
    for name, below, at, above in (
        ("GreaterThanThreshold", OK, OK, ALARM),
        ("GreaterThanOrEqualToThreshold", OK, ALARM, ALARM),
        ("LessThanThreshold", ALARM, OK, OK),
        ("LessThanOrEqualToThreshold", ALARM, ALARM, OK),
    ):
        rule = Rule(name, 5.0, 1)
        assert [rule.state([value], OK) for value in (4.0, 5.0, 6.0)] == [below, at, above]
