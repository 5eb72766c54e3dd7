"""The price tables against figures seen on AWS's price list, and their own form."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from emulator.billing import HOUR, MONTH, Price, Usage, UsageKind, bill, cost
from emulator.catalogue import (
    Tables,
    free_tier,
    instance_type,
    instance_types,
    price_table,
    regions,
)
from emulator.core import GIB, SECOND
from emulator.errors import SetupError
from emulator.provenance import CONFIDENCES

US = price_table("us-east-1")
PARIS = price_table("eu-west-3")
MEMORY_SIZES = [str(1024 * gb) for gb in range(1, 7)]
PER_MS = (UsageKind.SERVERLESS_DURATION, UsageKind.PROVISIONED_DURATION)


def cents(amount: Decimal | None) -> Decimal:
    assert amount is not None
    return amount.quantize(Decimal("0.01"))


def test_serverless_with_data_as_on_the_price_list() -> None:
    made = bill(
        [
            Usage(UsageKind.SERVERLESS_DURATION, "2048", 500_000 * 1000),
            Usage(UsageKind.DATA_OUT, "serverless", 20 * GIB),
            Usage(UsageKind.DATA_IN, "serverless", 10 * GIB),
        ],
        US,
    )
    assert [charge.amount for charge in made.charges] == [20, Decimal("0.16"), Decimal("0.32")]
    assert made.total == Decimal("20.48")
    assert made.complete


@pytest.mark.parametrize(
    ("kind", "sku", "quantity", "amount"),
    [
        (UsageKind.SERVERLESS_DURATION, "1024", 250_000 * 1000, "5.00"),
        (UsageKind.SERVERLESS_DURATION, "2048", 250_000 * 1000, "10.00"),
        (UsageKind.PROVISIONED_USAGE, "2048", 400_000 * SECOND, "4.00"),
        (UsageKind.PROVISIONED_DURATION, "2048", 400_000 * 1000, "9.32"),
        (UsageKind.PROVISIONED_DURATION, "2048", 200_000 * 1000, "4.66"),
        (UsageKind.INSTANCE, "ml.m5.xlarge", 100 * HOUR, "23.00"),
        (UsageKind.INSTANCE, "ml.m5.large", 100 * HOUR, "11.50"),
        (UsageKind.INSTANCE, "ml.m5.xlarge", 730 * HOUR, "167.90"),
        (UsageKind.INSTANCE, "ml.m5.large", 730 * HOUR, "83.95"),
        (UsageKind.INSTANCE, "ml.m5.xlarge", 24 * 30 * HOUR, "165.6"),
        (UsageKind.SERVERLESS_DURATION, "3072", 1_000 * 1000, "0.06"),
    ],
)
def test_golden_figures_of_us_east_1(kind: UsageKind, sku: str, quantity: int, amount: str) -> None:
    assert cost(kind, sku, quantity, US) == Decimal(amount)


def test_golden_figures_of_us_east_2() -> None:
    """A month of an instance in a post of AWS's, and the screenshot of a pricing page."""
    ohio = price_table("us-east-2")
    assert cost(UsageKind.INSTANCE, "ml.m5.xlarge", 24 * 30 * HOUR, ohio) == Decimal("165.6")
    seconds = [cost(UsageKind.SERVERLESS_DURATION, mb, 1000, ohio) for mb in MEMORY_SIZES]
    assert seconds == [Decimal(gb) / 50_000 for gb in range(1, 7)]


def test_a_volume_for_ten_of_thirty_days() -> None:
    used = Usage(UsageKind.VOLUME, "gp2", 20 * MONTH // 3)
    (charge,) = bill([used], US).charges
    assert charge.quantity == Decimal("6.666666666666667")
    assert cents(charge.amount) == Decimal("0.93")
    assert charge.exact == Fraction("0.14") * 20 / 3


def test_data_both_ways_of_a_real_time_endpoint() -> None:
    used = [
        Usage(UsageKind.DATA_OUT, "realtime", 30 * GIB),
        Usage(UsageKind.DATA_IN, "realtime", 15 * GIB),
    ]
    assert bill(used, US).total == Decimal("0.72")


def test_the_smallest_instance_for_a_day_in_paris() -> None:
    assert cost(UsageKind.INSTANCE, "ml.t2.medium", 24 * HOUR, PARIS) == Decimal("1.512")


def test_a_million_calls_of_45_ms_at_4_gb_in_paris() -> None:
    made = bill(
        [
            Usage(UsageKind.SERVERLESS_DURATION, "4096", 1_000_000 * 45),
            Usage(UsageKind.DATA_IN, "serverless", 1_000_000 * 512),
        ],
        PARIS,
    )
    duration, data = made.charges
    assert duration.quantity == 45_000
    assert duration.price == Decimal("0.00008")
    assert duration.amount == Decimal("3.6")
    assert data.exact == Fraction("0.016") * 512_000_000 / GIB
    assert cents(made.total) == Decimal("3.61")


@pytest.mark.parametrize(
    ("region", "prefix"),
    [
        ("eu-central-1", "EUC1"),
        ("eu-west-1", "EU"),
        ("eu-west-3", "EUW3"),
        ("us-east-1", "USE1"),
        ("us-east-2", "USE2"),
        ("us-west-2", "USW2"),
    ],
)
def test_every_table_is_whole(region: str, prefix: str) -> None:
    table = price_table(region)
    assert (table.region, table.prefix, table.currency) == (region, prefix, "USD")
    for kind in (*PER_MS, UsageKind.PROVISIONED_USAGE):
        assert [sku for sku in MEMORY_SIZES if table.find(kind, sku)] == MEMORY_SIZES
    for kind in (UsageKind.DATA_IN, UsageKind.DATA_OUT):
        assert table.find(kind, "serverless")
    assert table.find(UsageKind.VOLUME, "gp2")
    for (kind, sku), price in table.prices.items():
        assert price.usage_type.startswith(f"{prefix}-"), (kind, sku)
        assert price.source, (kind, sku)
        assert price.date[:2] == "20", (kind, sku)
        assert price.confidence in CONFIDENCES, (kind, sku)


@pytest.mark.parametrize("region", regions())
def test_prices_grow_with_size(region: str) -> None:
    """A slip of the pen in a table would stand out: double the size never costs less."""
    table = price_table(region)
    for kind in (*PER_MS, UsageKind.PROVISIONED_USAGE):
        amounts = [required(table.find(kind, sku)).amount for sku in MEMORY_SIZES]
        assert amounts == sorted(set(amounts))
    families: dict[str, list[tuple[int, Decimal]]] = {}
    for (kind, sku), price in table.prices.items():
        if kind is UsageKind.INSTANCE:
            family = sku.rpartition(".")[0]
            families.setdefault(family, []).append((instance_type(sku).vcpus, price.amount))
    for family in ("ml.t2", "ml.m5", "ml.c5", "ml.r5"):
        per_vcpu = [amount / vcpus for vcpus, amount in families[family] if vcpus > 2]
        assert max(per_vcpu) - min(per_vcpu) <= Decimal("0.001"), family


def required(price: Price | None) -> Price:
    assert price is not None
    return price


def test_instances_of_the_catalogue_have_their_size() -> None:
    small = instance_type("ml.t2.medium")
    assert (small.vcpus, small.memory_bytes, small.gpus) == (2, 4 * GIB, 0)
    assert instance_type("ml.c4.large").memory_bytes == 15 * GIB // 4
    assert instance_type("ml.g4dn.12xlarge").gpus == 4
    assert "ml.t3.medium" not in instance_types()  # not a hosting type


def test_an_unknown_instance_type_names_close_ones() -> None:
    with pytest.raises(SetupError, match=r"'ml\.t3\.medium'.*did you mean.*ml\.t2\.medium"):
        instance_type("ml.t3.medium")
    with pytest.raises(SetupError, match=r"did you mean ml\.m5\.large"):
        instance_type("m5.large")


def test_an_unknown_region_names_those_there_are() -> None:
    with pytest.raises(SetupError, match=r"'mars-1'.*eu-west-1, eu-west-3, us-east-1"):
        price_table("mars-1")


def test_tables_are_read_once() -> None:
    assert price_table("us-east-1") is US


def test_the_free_tier_is_of_a_kind_and_of_types() -> None:
    serverless, hosting, training = free_tier()
    assert serverless.quantity == 150_000 * 1000
    assert serverless.covers(UsageKind.SERVERLESS_DURATION, "6144")
    assert not serverless.covers(UsageKind.PROVISIONED_DURATION, "6144")
    assert hosting.quantity == 125 * HOUR
    assert hosting.covers(UsageKind.INSTANCE, "ml.m5.xlarge")
    assert not hosting.covers(UsageKind.INSTANCE, "ml.m5.large")
    assert (training.kind, training.quantity) == (UsageKind.TRAINING, 50 * HOUR)


def test_serverless_durations_have_the_boundary_of_awss_list() -> None:
    for region in regions():
        price = required(price_table(region).find(UsageKind.SERVERLESS_DURATION, "4096"))
        assert [tier.above for tier in price.tiers] == [150_000]
        assert not price.varies


def test_a_folder_goes_before_what_comes_along(tmp_path: Path) -> None:
    text = "\n".join(
        (
            'region = "eu-west-3"\nprefix = "EUW3"\ncurrency = "USD"\n[[prices]]',
            'kind = "instance"\nunit = "Hrs"\nsource = "s"\ndate = "2026"\nconfidence = "sure"',
            '[prices.amounts]\n"ml.t2.medium" = 1',
        )
    )
    (tmp_path / "eu-west-3.toml").write_text(text)
    tables = Tables.of(tmp_path)
    paris = tables.find("eu-west-3").latest
    assert required(paris.find(UsageKind.INSTANCE, "ml.t2.medium")).amount == 1
    assert paris.find(UsageKind.DATA_IN, "") is None  # a table is not mixed with another
    assert tables.find("us-east-1").latest is US
    assert Tables.of(tmp_path / "none").regions == regions()
    (tmp_path / "eu-west-1.toml").write_text(text)
    with pytest.raises(SetupError, match=r"eu-west-1\.toml is of the region 'eu-west-3': name it"):
        Tables.of(tmp_path)


def test_a_region_without_a_table_has_no_price() -> None:
    nowhere = Tables().known("mars-1").latest
    (charge,) = bill([Usage(UsageKind.INSTANCE, "ml.t2.medium", HOUR)], nowhere).charges
    assert (charge.usage_type, charge.amount) == ("MARS-1-Host:ml.t2.medium", None)
