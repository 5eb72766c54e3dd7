"""What happened over time, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.ledger import ENVIRONMENTS, Ledger
from emulator.series import DAY, HOUR, MINUTE, MOST_STEPS, Steps, busiest, courses, most_of
from tests.billing.rows import DIGITS, row, throttled

NOW = 20_000 * DAY
SECOND = 10**9


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


@given(st.integers(0, 30_000 * DAY), st.integers(1, 20_000 * DAY))
def test_steps_cover_the_period_and_are_not_too_many(start: int, length: int) -> None:
    steps = Steps.of(start, start + length)
    assert steps.from_ns <= start < steps.from_ns + steps.width
    assert steps.to_ns - steps.width < start + length <= steps.to_ns
    assert 1 <= steps.count <= MOST_STEPS
    assert steps.number(start) == 0
    assert steps.number(start + length - 1) == steps.count - 1
    assert len(steps.starts) == steps.count


@pytest.mark.parametrize(
    ("length", "width"),
    [(1, MINUTE), (HOUR, MINUTE), (DAY, 15 * MINUTE), (7 * DAY, 3 * HOUR), (90 * DAY, DAY)],
)
def test_steps_are_as_fine_as_can_be(length: int, width: int) -> None:
    assert Steps.of(NOW, NOW + length).width == width


def test_an_empty_period_has_none() -> None:
    with pytest.raises(ValueError, match="has no steps"):
        Steps.of(5, 5)


def test_the_course_of_an_endpoint(ledger: Ledger) -> None:
    ledger.append([
        row(at_ns=NOW, model_ns=10_000_000, overhead_ns=0, peak_bytes=7),
        row(at_ns=NOW + MINUTE, cold_start=True, load_ns=9, model_ns=90_000_000, overhead_ns=0),
        row(at_ns=NOW + MINUTE, variant="b", provisioned=True, status=500, error_code="x"),
        throttled(at_ns=NOW + 2 * MINUTE),
        row(at_ns=NOW, endpoint="other"),
    ])  # fmt: skip
    for seconds, alive in ((0, 1), (90, 3), (150, 0)):
        ledger.hold(DIGITS, "AllTraffic", ENVIRONMENTS, "", alive, NOW + seconds * SECOND)
    ledger.hold(DIGITS, "b", ENVIRONMENTS, "", 2, NOW + 70 * SECOND)
    ledger.beat(NOW + 100 * SECOND)
    steps = Steps.of(NOW, NOW + 4 * MINUTE)
    digits, other = courses(ledger, steps)
    assert (digits.endpoint, digits.persona, other.endpoint) == ("digits", "serverless", "other")
    assert [one.invocations for one in digits.steps] == [1, 2, 1, 0]
    assert [one.cold_starts for one in digits.steps] == [0, 1, 0, 0]
    assert [one.throttles for one in digits.steps] == [0, 0, 1, 0]
    assert [one.errors for one in digits.steps] == [0, 1, 0, 0]
    assert [one.memory_bytes for one in digits.steps] == [4096 << 20] * 3 + [0]
    assert digits.steps[0].latencies == pytest.approx([10_000_000] * 3, rel=0.02)
    assert digits.steps[2].latencies is None
    assert digits.environments == [1, 5, 3, 0]
    assert courses(ledger, steps, "nobody") == []
    assert [one.endpoint for one in courses(ledger, steps, "other")] == ["other"]


def test_those_with_few_requests_are_one_in_a_figure(ledger: Ledger) -> None:
    for number in range(10):
        ledger.append([row(at_ns=NOW, endpoint=f"e{number}")] * (number + 1))
    found = courses(ledger, Steps.of(NOW, NOW + MINUTE))
    assert busiest(found, 10) == found
    few = busiest(found, 4)
    assert [one.endpoint for one in few] == ["e7", "e8", "e9", "7 others"]
    assert [one.whole.invocations for one in few] == [8, 9, 10, 28]


def test_a_meter_of_environments_is_on_no_bill(ledger: Ledger) -> None:
    ledger.hold(DIGITS, "v", ENVIRONMENTS, "", 3, NOW)
    ledger.beat(NOW + HOUR)
    assert ledger.usage() == []


CHANGES = st.lists(st.tuples(st.integers(-50, 550), st.integers(-3, 3)), max_size=12)


@given(CHANGES)
def test_the_most_of_a_step_is_that_of_its_instants(changes: list[tuple[int, int]]) -> None:
    steps = Steps(0, 5, 100)
    found = most_of(changes, steps)
    for number in range(5):
        instants = range(number * 100, (number + 1) * 100)
        held = [sum(d for at, d in changes if at <= instant) for instant in instants]
        assert found[number] == max(0, *held)
