"""The TOML of a price table: dates, tiers, what is refused, and that writing loses nothing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.billing import MEASURES, Price, PriceTable, Tier, UsageKind, usage_type
from emulator.catalogue import Tables, regions
from emulator.core import NEVER
from emulator.errors import SetupError
from emulator.pricelist import DAY, EVER, PriceList, parse, render

GOOD = """
region = "x"
prefix = "X"
currency = "USD"
[[prices]]
kind = "instance"
unit = "Hrs"
source = "s"
date = "2026"
confidence = "sure"
[prices.amounts]
"ml.a.b" = 1
"""
BLOCK = GOOD[GOOD.index("[[prices]]") :]
DATED = GOOD + BLOCK.replace('date = "2026"', 'date = "2026"\nfrom = 2026-09-01').replace(
    '"ml.a.b" = 1', '"ml.a.b" = 2\n"ml.c.d" = 3'
)
FIRST = 20_697 * DAY  # 2026-09-01
INSTANCE = UsageKind.INSTANCE


def amount(table: PriceTable, sku: str) -> Decimal | None:
    price = table.find(INSTANCE, sku)
    return price.amount if price else None


def test_without_dates_a_table_holds_for_ever() -> None:
    listed = parse(GOOD, "x.toml")
    assert listed.changes == ()
    assert listed.at(EVER) is listed.at(NEVER) is listed.latest
    assert listed.until(0) == NEVER


def test_a_block_with_a_date_holds_from_that_day_on() -> None:
    listed = parse(DATED, "x.toml")
    assert listed.changes == (FIRST,)
    before, after = listed.at(FIRST - 1), listed.at(FIRST)
    assert amount(before, "ml.a.b") == 1
    assert amount(before, "ml.c.d") is None
    assert amount(after, "ml.a.b") == 2
    assert amount(after, "ml.c.d") == 3
    assert (listed.until(FIRST - 1), listed.begun(FIRST), listed.until(FIRST)) == (
        FIRST, FIRST, NEVER,
    )  # fmt: skip
    assert [price.since for _, _, price in listed.prices] == ["", "2026-09-01", "2026-09-01"]


def test_tiers_have_one_amount_or_one_each() -> None:
    tiered = GOOD.replace('"sure"', '"sure"\ntiers = [0, 100, 1_000]')
    (same,) = parse(tiered, "x.toml").latest.prices.values()
    assert same.tiers == (Tier(Decimal(100), Decimal(1)), Tier(Decimal(1000), Decimal(1)))
    assert not same.varies
    (other,) = parse(tiered.replace("= 1\n", "= [3, 2, 1]\n"), "x.toml").latest.prices.values()
    assert other.amount == 3
    assert [tier.amount for tier in other.tiers] == [Decimal(2), Decimal(1)]
    assert other.varies


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('unit = "Hrs"', 'unit = "Days"', "instance is sold in Hrs, not 'Days'"),
        ('source = "s"', "", "lacks the field 'source'"),
        ('"sure"', '"rumour"', "confidence 'rumour' is none of"),
        ('"instance"', '"instanse"', "'instanse' is not a valid UsageKind"),
        ("= 1", "= -1", "X-Host:ml.a.b is -1"),
        ("= 1", "= nan", "X-Host:ml.a.b is"),
        ("= 1", "= true", "X-Host:ml.a.b is True"),
        ("= 1", "= [1, 2]", "X-Host:ml.a.b has 2 amounts for 1"),
        ("= 1", '= "free"', "cannot be used"),
        ("region", "region region", "cannot be used"),
        ('prefix = "X"', "prefix = 7", "the prefix is 7, not a text"),
        ('"sure"', '"sure"\nfrom = "2026-09-01"', "from is '2026-09-01', not a date"),
        ('"sure"', '"sure"\nfrom = 2026-09-01T00:00:00Z', "not a date such as 2026-09-01"),
        ('"sure"', '"sure"\nfrom = 2026-09-31', "cannot be used"),
        ('"sure"', '"sure"\ntiers = [1, 2]', "they must rise from 0"),
        ('"sure"', '"sure"\ntiers = [0, 2, 2]', "they must rise from 0"),
        ('"sure"', '"sure"\ntiers = []', "they must rise from 0"),
    ],
)
def test_a_faulty_table_is_refused_with_its_name(old: str, new: str, sentence: str) -> None:
    assert parse(GOOD, "x.toml").latest.prices
    with pytest.raises(SetupError, match=r"x\.toml") as refused:
        parse(GOOD.replace(old, new, 1), "x.toml")
    assert sentence in str(refused.value)


def test_a_price_given_twice_is_refused() -> None:
    with pytest.raises(SetupError, match=r"instance 'ml\.a\.b' is given twice"):
        parse(GOOD + BLOCK, "x.toml")
    parse(DATED, "x.toml")
    with pytest.raises(SetupError, match="is given twice"):
        parse(DATED + DATED[DATED.rindex("[[prices]]") :], "x.toml")


@pytest.mark.parametrize("region", regions())
def test_what_is_written_is_read_again(region: str) -> None:
    listed = Tables().find(region)
    assert parse(render(listed, "a\nb"), "x.toml") == listed


words = st.text(min_size=1, max_size=9).filter(str.strip)
amounts = st.decimals(0, 10**6, places=10)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(list(UsageKind)), st.sampled_from(["1024", "2048", "ml.a.b"])),
        st.tuples(amounts, st.lists(amounts, max_size=2), words, words),
        min_size=1,
    )
)
def test_any_table_is_read_as_it_was_written(
    drawn: dict[tuple[UsageKind, str], tuple[Decimal, list[Decimal], str, str]],
) -> None:
    prices = {
        (kind, sku): Price(
            usage_type(kind, sku, "X"), MEASURES[kind].unit, first, source, date, "sure",
            tiers=tuple(Tier(Decimal(10 * n + 10), one) for n, one in enumerate(others)),
        )
        for (kind, sku), (first, others, source, date) in drawn.items()
    }  # fmt: skip
    listed = PriceList("x", (EVER,), (PriceTable("x", "X", "USD", prices),))
    assert parse(render(listed, ""), "x.toml") == listed
