"""Bills over time: split where prices change, with free tier, tiers and savings plans, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.address import Home, Key
from emulator.billing import MEASURES, UsageKind
from emulator.catalogue import Tables
from emulator.core import GIB, SECOND
from emulator.errors import ValidationException
from emulator.ledger import Ledger
from emulator.periods import MOST_DAYS
from emulator.pricelist import DAY, parse
from emulator.sheet import COLUMNS, sheet
from emulator.statement import Statement, draw_up
from emulator.terms import GroupBy, Terms
from tests.billing.rows import DIGITS, HOME, row

AUGUST, SEPTEMBER, OCTOBER = (20_666 * DAY, 20_697 * DAY, 20_727 * DAY)  # of 2026
NOW = OCTOBER + 10 * DAY
HOUR_NS = 3600 * SECOND
ELSEWHERE = Key(Home("222222222222", "us-east-1"), "far")

FORM = """
region = "{region}"
prefix = "{prefix}"
currency = "USD"
"""
BLOCK = """
[[prices]]
kind = "{kind}"
unit = "{unit}"
source = "s"
date = "2026"
confidence = "sure"
{more}
[prices.amounts]
{amounts}
"""


def block(kind: str, unit: str, amounts: str, more: str = "") -> str:
    return BLOCK.format(kind=kind, unit=unit, amounts=amounts, more=more)


FLAT = (
    FORM.format(region="eu-west-3", prefix="EUW3")
    + block("serverless-duration", "Seconds", '"1024" = 0.00002\n"4096" = 0.00008')
    + block("instance", "Hrs", '"ml.m5.xlarge" = 0.269\n"ml.t2.medium" = 0.063')
    + block("data-in", "GB", "any = 0.016")
    + block("data-out", "GB", "any = 0.016")
)
DATED = (
    FLAT
    + block("serverless-duration", "Seconds", '"4096" = 0.00007', "from = 2026-09-15")
    + block("instance", "Hrs", '"ml.t2.medium" = 0.07', "from = 2026-09-15")
)
TIERED = (
    FORM.format(region="eu-west-3", prefix="EUW3")
    + block(
        "serverless-duration",
        "Seconds",
        '"1024" = [0.00002, 0.00001]\n"4096" = [0.00008, 0.00006]',
        "tiers = [0, 200_000]",
    )
    + block("instance", "Hrs", '"ml.m5.xlarge" = 0.269\n"ml.t2.medium" = 0.063')
    + block("data-in", "GB", "any = [0.016, 0.008, 0.001]", "tiers = [0, 1, 2]")
    + block("data-out", "GB", "any = 0.016")
)
CHANGE = SEPTEMBER + 14 * DAY


def tables(text: str) -> Tables:
    listed = parse(text, "x.toml")
    return Tables({listed.region: listed})


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path_factory.mktemp("bills") / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(opened: Ledger) -> Ledger:
    opened.reset()
    return opened


def used(ledger: Ledger, at_ns: int, seconds: int, **more: Any) -> None:
    """One call that took so long; its data is a GB where nothing else is said."""
    given: dict[str, Any] = {"request_bytes": 0, "response_bytes": 0}
    ms = seconds * 1000
    ledger.append([row(at_ns=at_ns, billed_ms=ms, billed_startup_ms=ms + 500, **{**given, **more})])


def held(ledger: Ledger, key: Key, sku: str, start: int, end: int) -> None:
    ledger.hold(key, "AllTraffic", UsageKind.INSTANCE, sku, 1, start)
    ledger.hold(key, "AllTraffic", UsageKind.INSTANCE, sku, 0, end)


def billed(ledger: Ledger, text: str = FLAT, **terms: Any) -> Statement:
    return draw_up(ledger, {}, tables(text), "eu-west-3", Terms(**terms), NOW)


def exact(statement: Statement) -> Fraction:
    entries: list[Any] = [*statement.endpoints, *statement.jobs, *statement.groups]
    return sum((one.bill.exact for one in entries), Fraction(0))


def lines(statement: Statement) -> list[tuple[str, str, str | None, str | None]]:
    """Usage type and note, quantity, price, amount of every line."""
    found = []
    document = statement.document()
    for entry in [*document.get("groups", []), *document.get("endpoints", [])]:
        for one in entry["lines"]:
            title = " ".join(filter(None, (one["usage_type"], one["from"], one["note"])))
            found.append((title, one["quantity"], one["price"], one["amount"]))
    return [one for one in found if "Data" not in one[0]]


# -- prices that change ----------------------------------------------------------------------------


def test_a_bill_is_split_where_the_price_changes(ledger: Ledger) -> None:
    held(ledger, DIGITS, "ml.t2.medium", CHANGE - 10 * HOUR_NS, CHANGE + 20 * HOUR_NS)
    used(ledger, CHANGE - 1, 100)
    used(ledger, CHANGE, 10)
    assert lines(billed(ledger, DATED)) == [
        ("EUW3-ServerlessInf:Mem-4GB", "100", "0.00008", "0.008"),
        ("EUW3-ServerlessInf:Mem-4GB 2026-09-15", "10", "0.00007", "0.0007"),
        ("EUW3-Host:ml.t2.medium", "10", "0.063", "0.63"),
        ("EUW3-Host:ml.t2.medium 2026-09-15", "20", "0.07", "1.4"),
    ]
    before = billed(ledger, DATED, to_ns=CHANGE)
    after = billed(ledger, DATED, from_ns=CHANGE)
    assert (before.total, after.total) == (Decimal("0.638"), Decimal("1.4007"))


def test_a_price_that_stays_is_one_line(ledger: Ledger) -> None:
    used(ledger, CHANGE - 1, 100, memory_mb=1024)
    used(ledger, CHANGE, 10, memory_mb=1024)
    assert lines(billed(ledger, DATED)) == [
        ("EUW3-ServerlessInf:Mem-1GB", "110", "0.00002", "0.0022")
    ]


# -- the options -----------------------------------------------------------------------------------


def test_the_free_tier_is_of_an_account_and_a_month(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 100_000)
    used(ledger, SEPTEMBER + DAY, 200_000)
    used(ledger, SEPTEMBER + 2 * DAY, 1_000)
    used(ledger, OCTOBER, 150_000)
    assert lines(billed(ledger, free_tier=True)) == [
        ("EUW3-ServerlessInf:Mem-4GB", "151000", "0.00008", "12.08"),
        ("EUW3-ServerlessInf:Mem-4GB free tier", "300000", "0", "0"),
    ]
    assert billed(ledger).total == Decimal("36.08")
    day = billed(ledger, free_tier=True, from_ns=SEPTEMBER + DAY, to_ns=SEPTEMBER + 2 * DAY)
    assert lines(day) == [
        ("EUW3-ServerlessInf:Mem-4GB", "150000", "0.00008", "12"),
        ("EUW3-ServerlessInf:Mem-4GB free tier", "50000", "0", "0"),
    ]


def test_accounts_have_a_free_tier_each_and_endpoints_of_one_share_it(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 100_000)
    used(ledger, SEPTEMBER, 200_000, endpoint="other")
    used(ledger, SEPTEMBER, 150_000, endpoint="far", account="222222222222")
    used(ledger, SEPTEMBER, 90_000, endpoint="pc", provisioned=True)
    made = billed(ledger, free_tier=True)
    free = {
        (one.key.home.account, one.key.name): [
            charge.quantity for charge in one.bill.charges if charge.note == "free tier"
        ]
        for one in made.endpoints
    }
    assert free == {
        (HOME.account, "digits"): [50_000],  # half of the day's 300,000
        (HOME.account, "other"): [100_000],
        (HOME.account, "pc"): [],  # provisioned concurrency is not in it
        ("222222222222", "far"): [150_000],
    }
    one = billed(ledger, free_tier=True, endpoint="digits")
    assert [entry.bill for entry in one.endpoints] == [
        entry.bill for entry in made.endpoints if entry.key.name == "digits"
    ]


def test_instance_hours_are_free_for_two_types(ledger: Ledger) -> None:
    held(ledger, DIGITS, "ml.m5.xlarge", SEPTEMBER, SEPTEMBER + 200 * HOUR_NS)
    held(ledger, DIGITS, "ml.t2.medium", SEPTEMBER, SEPTEMBER + 10 * HOUR_NS)
    assert lines(billed(ledger, free_tier=True)) == [
        ("EUW3-Host:ml.m5.xlarge", "75", "0.269", "20.175"),
        ("EUW3-Host:ml.m5.xlarge free tier", "125", "0", "0"),
        ("EUW3-Host:ml.t2.medium", "10", "0.063", "0.63"),
    ]


def test_a_savings_plan_is_a_line_of_its_own(ledger: Ledger) -> None:
    held(ledger, DIGITS, "ml.t2.medium", SEPTEMBER, SEPTEMBER + 10 * HOUR_NS)
    used(ledger, SEPTEMBER, 1_000)
    assert lines(billed(ledger, savings_plan=Decimal("0.64"))) == [
        ("EUW3-ServerlessInf:Mem-4GB", "1000", "0.00008", "0.08"),
        ("EUW3-Host:ml.t2.medium", "10", "0.063", "0.63"),
        ("EUW3-Host:ml.t2.medium savings plan, 0.64 of 0.063", "10", "-0.04032", "-0.4032"),
    ]


def test_tiers_are_filled_by_a_month_and_account(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 150_000, request_bytes=3 * GIB)
    used(ledger, SEPTEMBER + DAY, 150_000, endpoint="other")
    used(ledger, OCTOBER, 200_000)
    made = billed(ledger, TIERED, group_by=GroupBy.ACCOUNT)
    assert lines(made) == [
        ("EUW3-ServerlessInf:Mem-4GB", "400000", "0.00008", "32"),
        ("EUW3-ServerlessInf:Mem-4GB above 200000 Seconds a month", "100000", "0.00006", "6"),
    ]
    data = [
        charge for charge in made.groups[0].bill.charges if charge.quantity and charge.unit == "GB"
    ]
    assert [(charge.note, charge.amount) for charge in data] == [
        ("", Decimal("0.016")),
        ("above 1 GB a month", Decimal("0.008")),
        ("above 2 GB a month", Decimal("0.001")),
    ]


def test_what_is_free_takes_up_no_tier(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 150_000)
    used(ledger, SEPTEMBER + DAY, 300_000)
    assert lines(billed(ledger, TIERED, free_tier=True)) == [
        ("EUW3-ServerlessInf:Mem-4GB", "200000", "0.00008", "16"),
        ("EUW3-ServerlessInf:Mem-4GB above 200000 Seconds a month", "100000", "0.00006", "6"),
        ("EUW3-ServerlessInf:Mem-4GB free tier", "150000", "0", "0"),
    ]


def test_tiers_that_come_within_a_month_count_all_of_it(ledger: Ledger) -> None:
    later = block(
        "serverless-duration",
        "Seconds",
        '"4096" = [0.00007, 0.00001]',
        "from = 2026-09-15\ntiers = [0, 100_000]",
    )
    used(ledger, SEPTEMBER, 90_000)
    used(ledger, CHANGE, 30_000)
    since = "EUW3-ServerlessInf:Mem-4GB 2026-09-15"
    assert lines(billed(ledger, FLAT + later)) == [
        ("EUW3-ServerlessInf:Mem-4GB", "90000", "0.00008", "7.2"),
        (since, "10000", "0.00007", "0.7"),
        (f"{since} above 100000 Seconds a month", "20000", "0.00001", "0.2"),
    ]


def test_startup_is_billed_if_it_is_asked_for(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 1)
    assert lines(billed(ledger, include_startup=True))[0][1] == "1.5"


def test_the_same_usage_at_the_prices_of_another_region(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 1_000, memory_mb=1024)
    held(ledger, ELSEWHERE, "ml.t2.medium", SEPTEMBER, SEPTEMBER + HOUR_NS)
    held(ledger, ELSEWHERE, "ml.g5.xlarge", SEPTEMBER, SEPTEMBER + HOUR_NS)
    made = billed(ledger, region="eu-west-3")
    assert lines(made) == [
        ("EUW3-ServerlessInf:Mem-1GB", "1000", "0.00002", "0.02"),
        ("EUW3-Host:ml.g5.xlarge", "1", None, None),
        ("EUW3-Host:ml.t2.medium", "1", "0.063", "0.063"),
    ]
    assert not made.complete


# -- groups, and other forms -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group_by", "names"),
    [
        (GroupBy.ENDPOINT, ["digits", "far"]),
        (GroupBy.PERSONA, ["realtime", "serverless"]),
        (GroupBy.REGION, ["eu-west-3", "us-east-1"]),
        (GroupBy.ACCOUNT, ["123456789012", "222222222222"]),
        (GroupBy.DAY, ["2026-09-01", "2026-09-03"]),
        (
            GroupBy.USAGE_TYPE,
            [
                "EUW3-ServerlessInf:Mem-4GB",
                "USE1-Host:ml.m5.large",
            ],
        ),
    ],
)
def test_groups_hold_everything_once(ledger: Ledger, group_by: GroupBy, names: list[str]) -> None:
    used(ledger, SEPTEMBER, 100)
    held(ledger, ELSEWHERE, "ml.m5.large", SEPTEMBER + 2 * DAY, SEPTEMBER + 2 * DAY + HOUR_NS)
    made = billed(ledger, group_by=group_by)
    assert [one.name for one in made.groups] == names
    assert made.total == Decimal("0.008") + Decimal("0.115")
    document = made.document()
    assert [one["name"] for one in document["groups"]] == names
    assert "endpoints" not in document


def test_days_are_bounded(ledger: Ledger) -> None:
    used(ledger, 0, 100)
    with pytest.raises(ValidationException, match=rf"at most {MOST_DAYS} with from and to"):
        billed(ledger, group_by=GroupBy.DAY)
    assert billed(ledger, group_by=GroupBy.DAY, to_ns=DAY).groups
    used(ledger, SEPTEMBER, 100)
    made = billed(ledger, group_by=GroupBy.DAY, from_ns=1)  # days count from the first with usage
    assert [one.name for one in made.groups] == ["2026-09-01"]


def test_an_endpoint_that_never_was_is_named(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 1)
    with pytest.raises(ValidationException, match=r"'digit', which has never .* has digits\."):
        billed(ledger, endpoint="digit")


def test_the_sheet_has_a_row_for_each_line(ledger: Ledger) -> None:
    used(ledger, SEPTEMBER, 100_000)
    held(ledger, ELSEWHERE, "ml.new.1", SEPTEMBER, SEPTEMBER + HOUR_NS)
    titles, *rows = sheet(billed(ledger)).splitlines()
    assert titles == ",".join(COLUMNS)
    first = dict(zip(COLUMNS, rows[0].split(","), strict=True))
    assert (first["group"], first["region"], first["persona"]) == (
        "digits",
        "eu-west-3",
        "serverless",
    )
    assert (first["usage_type"], first["amount"]) == ("EUW3-ServerlessInf:Mem-4GB", "8")
    unpriced = next(one for one in rows if "ml.new.1" in one)
    assert unpriced.startswith("far,us-east-1,222222222222,realtime,USE1-Host:ml.new.1,ML Instance")
    assert ",1,Hrs,,,USD," in unpriced


# -- laws ------------------------------------------------------------------------------------------

instants = st.integers(AUGUST, NOW - 1)
calls = st.builds(
    lambda at_ns, seconds, size, account, memory: {
        "at_ns": at_ns,
        "seconds": seconds,
        "request_bytes": size,
        "account": account,
        "memory_mb": memory,
    },
    instants,
    st.integers(0, 200_000),
    st.integers(0, 3 * GIB),
    st.sampled_from(["111111111111", "222222222222"]),
    st.sampled_from([1024, 4096]),
)
texts = st.sampled_from([FLAT, DATED, TIERED])
options = st.fixed_dictionaries(
    {
        "free_tier": st.booleans(),
        "savings_plan": st.sampled_from([Decimal(0), Decimal("0.27")]),
        "include_startup": st.booleans(),
    }
)
lawful = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def filled(ledger: Ledger, drawn: list[dict[str, Any]], start: int, end: int) -> None:
    ledger.reset()
    for one in drawn:
        used(ledger, **one)
    held(ledger, DIGITS, "ml.m5.xlarge", min(start, end), max(start, end))


@lawful
@given(st.lists(calls, max_size=8), instants, instants, instants, texts, options)
def test_splitting_a_period_splits_the_bill_exactly(
    ledger: Ledger,
    drawn: list[dict[str, Any]],
    start: int,
    end: int,
    cut: int,
    text: str,
    given: dict[str, Any],
) -> None:
    filled(ledger, drawn, start, end)
    whole = billed(ledger, text, **given)
    parts = billed(ledger, text, to_ns=cut, **given), billed(ledger, text, from_ns=cut, **given)
    assert sum(map(exact, parts), Fraction(0)) == exact(whole)
    days = billed(ledger, text, group_by=GroupBy.DAY, **given)
    assert exact(days) == exact(whole)


@lawful
@given(st.lists(calls, max_size=8), instants, instants, texts, options, st.sampled_from(GroupBy))
def test_the_lines_are_the_total_and_each_is_its_price_times_its_quantity(
    ledger: Ledger,
    drawn: list[dict[str, Any]],
    start: int,
    end: int,
    text: str,
    given: dict[str, Any],
    group_by: GroupBy,
) -> None:
    filled(ledger, drawn, start, end)
    for grouped in (None, group_by):
        made = billed(ledger, text, group_by=grouped, **given)
        entries: list[Any] = [*made.endpoints, *made.groups]
        charges = [charge for one in entries for charge in one.bill.charges]
        assert made.total == sum((one.amount for one in charges), Decimal(0))
        for one in charges:
            assert one.exact == one.usage / MEASURES[one.kind].base_units * Fraction(one.price)
        quantities = {one.kind: Fraction(0) for one in charges}
        for one in charges:
            quantities[one.kind] += 0 if "savings" in one.note else one.usage
        records = ledger.usage(include_startup=given["include_startup"])
        for kind, quantity in quantities.items():
            assert quantity == sum(r.usage.quantity for r in records if r.usage.kind is kind)


@lawful
@given(st.lists(calls, max_size=8), calls, st.sampled_from([FLAT, TIERED]), options)
def test_more_usage_never_costs_less(
    ledger: Ledger,
    drawn: list[dict[str, Any]],
    more: dict[str, Any],
    text: str,
    given: dict[str, Any],
) -> None:
    filled(ledger, drawn, SEPTEMBER, OCTOBER)
    before = exact(billed(ledger, text, **given))
    used(ledger, **more)
    held(ledger, DIGITS, "ml.m5.xlarge", OCTOBER, OCTOBER + HOUR_NS)
    assert exact(billed(ledger, text, **given)) >= before


@lawful
@given(st.lists(calls, max_size=8), texts, options)
def test_the_same_prices_again_change_nothing(
    ledger: Ledger, drawn: list[dict[str, Any]], text: str, given: dict[str, Any]
) -> None:
    filled(ledger, drawn, AUGUST, NOW)
    made = billed(ledger, text, **given)
    assert billed(ledger, text, **given) == made
    again = billed(ledger, text, region="eu-west-3", **given)
    assert (again.endpoints, again.total) == (made.endpoints, made.total)
