"""What a load generator's output becomes in the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.measure import Figure, NotMeasured
from benchmarks.wrk import parse

PRINTED = """Running 2s test @ http://127.0.0.1:8000/endpoints/e/invocations
  Requests/sec:   1234.50
{"answers": 3000, "duration_us": 2000000, "p50_us": 1500, "p99_us": 9250, "refused": 7, "broken": 2}
"""


def test_a_run_is_read_in_its_units() -> None:
    load = parse(PRINTED)
    assert (load.answers, load.per_second, load.p50_ms, load.p99_ms) == (3000, 1500.0, 1.5, 9.25)
    assert (load.refused, load.broken, load.errors) == (7, 2, 9)


@pytest.mark.parametrize(
    "printed",
    ["", "unable to connect to 127.0.0.1:1", PRINTED.replace('"answers": 3000', '"answers": 0')],
)
def test_a_run_without_answers_is_no_figure(printed: str) -> None:
    with pytest.raises(NotMeasured):
        parse(printed)


def test_what_was_not_measured_holds_no_bound_and_breaks_none() -> None:
    assert Figure("ours over the better peer", None, "times", 3, "above").held is None
    assert Figure("errors", 0, "", 0).held is True
    assert Figure("errors", 1, "", 0).held is False
    assert Figure("ours over the better peer", 2.9, "times", 3, "above").held is False
