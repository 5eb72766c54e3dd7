"""The arithmetic of a bill: exact, additive, and never free by omission."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.billing import (
    HOUR,
    MEASURES,
    MONTH,
    QUANTUM,
    Price,
    PriceTable,
    Usage,
    UsageKind,
    bill,
    cost,
    serverless_billed_ms,
    shown,
    usage_type,
)
from emulator.catalogue import price_table
from emulator.core import GIB
from emulator.tariff import Tariff, plain


def table(*prices: tuple[UsageKind, str, str]) -> PriceTable:
    rows = {
        (kind, sku): Price(
            usage_type(kind, sku, "T"), MEASURES[kind].unit, Decimal(amount), "test", "2026", "sure"
        )
        for kind, sku, amount in prices
    }
    return PriceTable("test-1", "T", "USD", rows)


TABLE = table(
    (UsageKind.SERVERLESS_DURATION, "1024", "0.0000200"),
    (UsageKind.PROVISIONED_DURATION, "2048", "0.0000233"),
    (UsageKind.PROVISIONED_USAGE, "2048", "0.00001"),
    (UsageKind.INSTANCE, "ml.m5.large", "0.115"),
    (UsageKind.VOLUME, "gp2", "0.14"),
    (UsageKind.DATA_IN, "", "0.016"),
    (UsageKind.DATA_OUT, "", "0.016"),
)
SOLD = [*sorted(TABLE.prices), (UsageKind.DATA_IN, "serverless"), (UsageKind.INSTANCE, "ml.new.1")]
usages = st.builds(
    lambda key, quantity: Usage(key[0], key[1], quantity),
    st.sampled_from(SOLD),
    st.integers(min_value=0, max_value=10**24),
)


@given(st.lists(usages), st.lists(usages))
def test_merging_two_ledgers_adds_up_exactly(one: list[Usage], other: list[Usage]) -> None:
    assert bill(one + other, TABLE).exact == bill(one, TABLE).exact + bill(other, TABLE).exact


@given(usages, st.fractions(min_value=0, max_value=1))
def test_splitting_a_period_adds_up_exactly(whole: Usage, share: Fraction) -> None:
    first = int(whole.quantity * share)
    parts = [
        Usage(whole.kind, whole.sku, first),
        Usage(whole.kind, whole.sku, whole.quantity - first),
    ]
    assert sum((bill([part], TABLE).exact for part in parts), Fraction(0)) == (
        bill([whole], TABLE).exact
    )
    assert bill(parts, TABLE) == bill([whole], TABLE)


@given(st.lists(usages))
def test_the_shown_total_is_the_sum_of_the_shown_amounts(used: list[Usage]) -> None:
    made = bill(used, TABLE)
    amounts = [Fraction(charge.amount) for charge in made.charges if charge.amount is not None]
    assert Fraction(made.total) == sum(amounts, Fraction(0))
    assert abs(Fraction(made.total) - made.exact) <= Fraction(QUANTUM) * len(amounts) / 2


@given(usages)
def test_an_amount_is_its_fraction_rounded_once(used: Usage) -> None:
    (charge,) = bill([used], TABLE).charges
    if charge.exact is None or charge.amount is None:
        assert charge.price is None
        return
    assert charge.price is not None
    assert charge.exact == Fraction(used.quantity, MEASURES[used.kind].base_units) * Fraction(
        charge.price
    )
    assert abs(charge.exact - Fraction(charge.amount)) <= Fraction(QUANTUM) / 2
    assert cost(used.kind, used.sku, used.quantity, TABLE) == charge.amount


def test_the_callers_decimal_context_changes_nothing() -> None:
    used = [Usage(UsageKind.INSTANCE, "ml.m5.large", 10**18 + 7), Usage(UsageKind.DATA_IN, "", 1)]
    usual = bill(used, TABLE)
    with localcontext() as context:
        context.prec = 3
        short = bill(used, TABLE)
        assert short == usual
        assert short.total == usual.total


def test_a_tie_is_rounded_to_the_even_neighbour() -> None:
    assert shown(Fraction(1, 2 * 10**15)) == 0
    assert shown(Fraction(3, 2 * 10**15)) == Decimal("0.000000000000002")


def test_round_figures_are_shown_without_exponent_or_idle_zeros() -> None:
    assert str(shown(Fraction(20))) == "20"
    assert str(shown(Fraction(41, 2))) == "20.5"
    assert str(shown(Fraction(0))) == "0"


def test_usage_without_a_price_is_listed_and_left_out_of_the_total() -> None:
    made = bill(
        [
            Usage(UsageKind.INSTANCE, "ml.new.1", 2 * HOUR),
            Usage(UsageKind.INSTANCE, "ml.m5.large", HOUR),
        ],
        TABLE,
    )
    assert made.total == Decimal("0.115")
    assert not made.complete
    (unpriced,) = made.unpriced
    assert (unpriced.usage_type, unpriced.quantity) == ("T-Host:ml.new.1", Decimal(2))
    assert (unpriced.price, unpriced.amount, unpriced.exact) == (None, None, None)
    assert cost(UsageKind.INSTANCE, "ml.new.1", HOUR, TABLE) is None


def test_no_usage_of_a_priced_thing_costs_nothing_but_is_a_charge() -> None:
    made = bill([Usage(UsageKind.DATA_IN, "serverless", 0)], TABLE)
    assert [charge.amount for charge in made.charges] == [0]
    assert made.complete


def test_an_empty_bill_is_zero() -> None:
    assert bill([], TABLE).total == 0
    assert bill([], TABLE).complete


def test_charges_come_in_the_order_of_kinds_then_size() -> None:
    used = [
        Usage(UsageKind.DATA_OUT, "serverless", 1),
        Usage(UsageKind.SERVERLESS_DURATION, "10240", 1),
        Usage(UsageKind.SERVERLESS_DURATION, "2048", 1),
    ]
    assert [charge.sku for charge in bill(used, TABLE).charges] == ["2048", "10240", "serverless"]


def test_a_month_has_thirty_days_and_a_gigabyte_is_binary() -> None:
    assert MONTH == 720 * HOUR
    assert cost(UsageKind.DATA_IN, "realtime", GIB, TABLE) == Decimal("0.016")


def test_negative_usage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gp2.*-1.*negative"):
        Usage(UsageKind.VOLUME, "gp2", -1)
    with pytest.raises(ValueError, match="negative"):
        cost(UsageKind.VOLUME, "gp2", -1, TABLE)


@pytest.mark.parametrize(
    ("duration", "startup", "include", "billed"),
    [
        (0, 0, True, 0),
        (1, 0, False, 1),
        (45_000_000, 9_000_000_000, False, 45),
        (45_000_001, 9_000_000_000, False, 46),
        (45_000_000, 9_000_000_000, True, 9045),
        (500_000, 500_000, True, 1),  # the sum is rounded up once, not each part
    ],
)
def test_an_invocation_is_billed_by_started_milliseconds(
    duration: int, startup: int, include: bool, billed: int
) -> None:
    assert serverless_billed_ms(duration, startup, include) == billed


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="-5 ns"):
        serverless_billed_ms(-5, 0, False)


@pytest.mark.parametrize(
    ("kind", "sku", "name"),
    [
        (UsageKind.INSTANCE, "ml.t2.medium", "EUW3-Host:ml.t2.medium"),
        (UsageKind.SERVERLESS_DURATION, "4096", "EUW3-ServerlessInf:Mem-4GB"),
        (UsageKind.PROVISIONED_USAGE, "4096", "EUW3-ProvisionedConcurrency:Usage-4GB"),
        (UsageKind.PROVISIONED_DURATION, "4096", "EUW3-ProvisionedConcurrency:Mem-4GB"),
        (UsageKind.VOLUME, "gp2", "EUW3-Host:VolumeUsage.gp2"),
        (UsageKind.DATA_IN, "realtime", "EUW3-Hst:Data-Bytes-In"),
        (UsageKind.DATA_OUT, "", "EUW3-Hst:Data-Bytes-Out"),
    ],
)
def test_usage_types_are_those_of_the_invoice(kind: UsageKind, sku: str, name: str) -> None:
    assert usage_type(kind, sku, "EUW3") == name


@given(
    st.sampled_from(list(UsageKind)),
    st.sampled_from(["", "1024", "4096", "ml.t2.medium", "gp2"]),
    st.integers(0, 10**18),
)
def test_a_tariff_gives_what_cost_gives(kind: UsageKind, sku: str, quantity: int) -> None:
    table = price_table("eu-west-3")
    quanta, exact = Tariff(table).quanta(kind, sku, quantity), cost(kind, sku, quantity, table)
    assert (None if quanta is None else Decimal(plain(quanta))) == exact
