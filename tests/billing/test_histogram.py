"""Histograms of latencies: they add up, and lie by two percent at most."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from emulator.ledger import histogram

LATENCIES = st.lists(st.integers(0, 10**13), max_size=40)


def of(values: list[int]) -> bytes:
    made = histogram.Histogram()
    for value in values:
        made.step(value)
    return made.finalize()


@given(LATENCIES, LATENCIES, LATENCIES)
def test_parts_in_any_order_make_the_bytes_of_the_whole(
    one: list[int], two: list[int], three: list[int]
) -> None:
    whole = of(one + two + three)
    assert histogram.merge(of(one), of(two), of(three)) == whole
    assert histogram.merge(histogram.merge(of(three), of(one)), of(two)) == whole
    merged = histogram.Merged()
    for part in (of(two), of(three), of(one)):
        merged.step(part)
    assert merged.finalize() == whole


@given(st.lists(st.integers(10_000, 10**13), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_within_two_percent_of_the_nearest_rank(
    values: list[int], share: float
) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    (found,) = histogram.quantiles(of(values), [share])
    assert abs(found / exact - 1) < 0.02


@given(st.integers(0, 2000))
def test_the_value_of_a_bin_is_in_it(number: int) -> None:
    if histogram.value_of(number) < 2**63:
        value = math.ceil(histogram.value_of(number))
        assert abs(histogram.bin_of(value) - number) <= (value < 100_000)


def test_the_edges() -> None:
    assert histogram.quantiles(b"", [0.5]) == [0.0]
    assert of([]) == b""
    assert histogram.unpack(of([0, 999, 1000, 1001])) == {0: 2, 1: 2}
    full = histogram.pack({5: 2**32 - 1})
    assert histogram.merge(full, histogram.pack({5: 9})) == full
