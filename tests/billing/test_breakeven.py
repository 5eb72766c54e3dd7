"""Serverless against an instance: the figures of the published comparison, exact."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.billing import HOUR, Usage, UsageKind, bill
from emulator.breakeven import DECIMAL_GB, Breakeven, Question, breakeven
from emulator.catalogue import price_table
from emulator.core import GIB
from emulator.errors import SetupError

PARIS = price_table("eu-west-3")
ARTICLE = Question(4096, Decimal(45), 500, 0, "ml.t2.medium")


def test_the_published_comparison() -> None:
    found = breakeven(ARTICLE, PARIS)
    assert found.duration == Fraction("3.6")
    assert found.moved_in() == 500_000_000 * Fraction("0.016") / GIB
    assert found.moved_in(DECIMAL_GB) == Fraction("0.008")
    assert found.day == Fraction("1.512")
    assert found.calls == 420_000
    assert int(found.calls_with_data) == 419_132
    document = found.document()
    assert document["million_calls"] == {
        "duration": "3.6",
        "data_in": "0.007450580596924",
        "data_out": "0",
        "total": "3.607450580596924",
        "data_with_decimal_gigabytes": "0.008",
        "total_with_decimal_gigabytes": "3.608",
    }
    assert (document["instance_day"], document["calls_a_day"]) == ("1.512", "420000")
    assert document["gigabyte"] == 2**30
    assert document["formulas"]["calls_a_day"] == "1.512 / (0.045 s x 0.0000800) = 420000"
    assert document["formulas"]["day"] == "24 h x 0.063 = 1.512"


questions = st.builds(
    Question,
    st.sampled_from([1024 * gb for gb in range(1, 7)]),
    st.integers(1, 60_000).map(Decimal),
    st.integers(0, 4 << 20),
    st.integers(0, 4 << 20),
    st.sampled_from(["ml.t2.medium", "ml.m5.xlarge"]),
)


def costs(found: Breakeven, calls: Fraction) -> tuple[Fraction, Fraction]:
    return calls * found.duration / 10**6, found.day


@given(questions)
def test_both_cost_the_same_at_the_break_even_and_the_bill_agrees(question: Question) -> None:
    found = breakeven(question, PARIS)
    serverless, instance = costs(found, found.calls)
    assert serverless == instance
    million = [
        Usage(
            UsageKind.SERVERLESS_DURATION,
            str(question.memory_mb),
            int(question.duration_ms) * 10**6,
        ),
        Usage(UsageKind.DATA_IN, "serverless", question.request_bytes * 10**6),
        Usage(UsageKind.DATA_OUT, "serverless", question.response_bytes * 10**6),
    ]
    assert bill(million, PARIS).exact == found.million
    day = [Usage(UsageKind.INSTANCE, question.instance, 24 * HOUR)]
    assert bill(day, PARIS).exact == found.day


def test_what_has_no_price_has_no_break_even() -> None:
    wrong = Question(4096, Decimal(45), 500, 0, "ml.t3.medium")
    with pytest.raises(SetupError, match=r"eu-west-3 has no price of instance for 'ml.t3.medium'"):
        breakeven(wrong, PARIS)
    with pytest.raises(SetupError, match=r"for '4000': it has 1024, 2048"):
        breakeven(Question(4000, Decimal(45), 500, 0, "ml.t2.medium"), PARIS)
