"""Latencies as tests ask for them: what a failed assertion shows, word for word."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.timings import Call, call, complaint, percentile, rank


def row(model_us: int, overhead_us: int, **more: Any) -> dict[str, Any]:
    setup = {"provision_us": 0, "runtime_us": 0, "load_us": 0, "queue_us": 0}
    facts = {"endpoint": "own", "at": "", "status": 200, "error_code": "", "cold_start": False}
    times = {"model_latency_us": model_us, "overhead_latency_us": overhead_us, "billed_ms": 1}
    return {**setup, **facts, **times, **more}


def calls(*latencies_ms: int) -> list[Call]:
    return [call(row(each * 1000, 0)) for each in latencies_ms]


def test_a_percentile_over_its_limit_is_shown_with_the_slowest() -> None:
    parts = {"provision_us": 2_000_000, "runtime_us": 10_100, "load_us": 72_400}
    cold = call(row(23_000, 2_084_000, cold_start=True, **parts))
    failed = call(row(1, 1, status=400, error_code="ThrottlingException"))
    some = [*calls(*range(1, 19)), call(row(20_000, 500)), cold, failed]
    assert complaint("own", some, {"p95_ms": 20, "p50_ms": 10, "p99_9_ms": 1000.0}) == (
        "own: p95 is 20.5 ms, over 20 ms. It is what 95 % of 20 calls do not exceed: number 19 of "
        "20 in order.\n"
        "own: p99.9 is 2107.0 ms, over 1000 ms. It is what 99.9 % of 20 calls do not exceed: "
        "number 20 of 20 in order.\n"
        "Latency is ModelLatency + OverheadLatency, in ms; 1 call that failed is left out. The "
        "slowest:\n"
        "  2107.0 = cold: 2000.0 provisioning + 10.1 runtime + 72.4 load + 23.0 model + 1.5 other "
        "overhead\n"
        "  20.5 = warm: 20.0 model + 0.5 overhead\n"
        "  18.0 = warm: 18.0 model + 0.0 overhead\n"
        "  17.0 = warm: 17.0 model + 0.0 overhead\n"
        "  16.0 = warm: 16.0 model + 0.0 overhead"
    )


def test_within_its_limits_nothing_is_said() -> None:
    assert complaint("own", calls(1, 2, 3), {"p50_ms": 2, "p100_ms": 3}) == ""


def test_without_an_answer_there_is_no_percentile() -> None:
    assert complaint("own", [], {"p50_ms": 2}) == (
        "own has answered no call, so there is no percentile."
    )
    failed = [call(row(1, 1, status=424, error_code="ModelError"))] * 2
    assert complaint("own", failed, {"p50_ms": 2}) == (
        "own has answered no call, so there is no percentile; 2 calls that failed are left out."
    )


@pytest.mark.parametrize("name", ["p95", "max_ms", "p101_ms", "p100_1_ms", "at_most"])
def test_what_is_no_percentile(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is no percentile: it has the form p95_ms"):
        complaint("own", calls(1), {name: 1})


def test_no_limit_at_all() -> None:
    with pytest.raises(ValueError, match="Say how long it may take"):
        complaint("own", calls(1), {})


def test_ranks() -> None:
    assert [rank(percent, 20) for percent in (0, 50, 95, 95.1, 100)] == [1, 10, 19, 20, 20]
    assert rank(99.9, 1000) == 999
    assert rank(99, 1) == 1


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 100))
def test_a_percentile_is_the_smallest_that_so_many_do_not_exceed(
    latencies: list[int], percent: int
) -> None:
    found = percentile(calls(*latencies), percent)
    due = math.ceil(percent * len(latencies) / 100)
    assert found in latencies
    assert sum(one <= found for one in latencies) >= due
    assert all(sum(one <= less for one in latencies) < due for less in latencies if less < found)
