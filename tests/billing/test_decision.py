"""Which mode costs less, and where they cross: sums that can be done by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import catalogue
from emulator.billing import PriceTable
from emulator.core import MIB, Persona
from emulator.decision import DAY, Sizes, Traffic, choose, elsewhere, sizes

PARIS = catalogue.price_table("eu-west-3")
ARTICLE = Sizes(4096, "ml.t2.medium")
NOTHING = PriceTable("nowhere", "NO", "USD", {})


def traffic(calls: int, persona: Persona = Persona.SERVERLESS, days: int = 1) -> Traffic:
    """Calls of 45 ms with nothing in or out."""
    return Traffic("e", persona, "eu-west-3", days * DAY, calls, 45 * calls, 0, 0, 0, 300 * MIB)


def test_the_crossing_of_the_article() -> None:
    choice = choose(traffic(1_000_000), PARIS, ARTICLE)
    assert choice is not None
    assert choice.crossing == 420_000
    assert choice.serverless.each * 1_000_000 == Fraction("3.6")
    assert choice.realtime.day(Fraction(0)) == Fraction("1.512")
    assert choice.cheaper is choice.realtime
    assert choice.traffic.calls_a_day == 1_000_000


@pytest.mark.parametrize(("calls", "cheaper"), [(419_999, "serverless"), (420_001, "1 x ml")])
def test_the_cheaper_one_changes_at_the_crossing(calls: int, cheaper: str) -> None:
    for persona in Persona:
        choice = choose(traffic(calls, persona), PARIS, ARTICLE)
        assert choice is not None
        assert choice.cheaper.name.startswith(cheaper)


def test_at_the_crossing_one_stays() -> None:
    for persona in Persona:
        choice = choose(traffic(420_000, persona), PARIS, ARTICLE)
        assert choice is not None
        assert choice.cheaper.persona is persona


@given(
    st.integers(1, 10**7), st.integers(1, 90), st.integers(0, 10**9), st.integers(0, 10**6),
    st.sampled_from(Persona), st.integers(1, 5),
)  # fmt: skip
def test_modes_cost_the_same_at_the_crossing(
    calls: int, days: int, size: int, startup_ms: int, persona: Persona, count: int
) -> None:
    asked = Traffic("e", persona, "eu-west-3", days * DAY, calls, calls, startup_ms, size, size, 0)
    choice = choose(asked, PARIS, Sizes(1024, "ml.m5.large", count))
    assert choice is not None
    assert choice.crossing is not None
    assert choice.serverless.day(choice.crossing) == choice.realtime.day(choice.crossing)
    assert [mode.current for mode in choice.modes].count(True) == 1


def test_what_has_no_price_or_no_calls_is_no_choice() -> None:
    assert choose(traffic(0), PARIS, ARTICLE) is None
    assert choose(traffic(1), NOTHING, ARTICLE) is None
    assert choose(traffic(1), PARIS, Sizes(4096, "ml.p4d.24xlarge")) is None


def test_the_other_modes_size_holds_the_peak() -> None:
    assert sizes(traffic(1), PARIS) == Sizes(1024, "ml.t2.medium")
    large = Traffic("e", "serverless", "eu-west-3", DAY, 1, 1, 0, 0, 0, 4500 * MIB)
    assert sizes(large, PARIS).memory_mb == 5120
    assert catalogue.instance_type(sizes(large, PARIS).instance_type).memory_bytes >= 4500 * MIB
    assert sizes(traffic(1), NOTHING).instance_type == ""


def test_the_same_traffic_in_another_region() -> None:
    choice = choose(traffic(1_000, Persona.REALTIME), PARIS, ARTICLE)
    assert choice is not None
    tables = [PARIS, catalogue.price_table("us-east-1"), NOTHING]
    found = elsewhere([choice], tables)
    assert found["eu-west-3"] == Fraction("1.512")
    assert found["us-east-1"] == 24 * Fraction("0.056")
    assert found["nowhere"] is None
