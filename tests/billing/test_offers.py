"""AWS's offer file, made into a price list: what is taken, what is left, what is no such file."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from emulator.billing import Tier, UsageKind
from emulator.errors import SetupError
from emulator.offers import MOST_BYTES, extract, load
from emulator.pricelist import parse, render

OFFER = Path(__file__).with_name("offer.json")
PARIS = "eu-west-3"


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OFFER.read_text())
    return found


def product(document: dict[str, Any], usage_type: str) -> str:
    products: dict[str, Any] = document["products"]
    return next(
        sku for sku, one in products.items() if one["attributes"]["usagetype"] == usage_type
    )


def dimension(document: dict[str, Any], usage_type: str) -> dict[str, Any]:
    (term,) = document["terms"]["OnDemand"][product(document, usage_type)].values()
    (found,) = term["priceDimensions"].values()
    assert isinstance(found, dict)
    return found


def test_the_prices_of_a_region_are_taken() -> None:
    found = extract(load(OFFER), PARIS, OFFER.name)
    table = found.prices.latest
    assert (table.region, table.prefix, table.currency) == (PARIS, "EUW3", "USD")
    amounts = {price.usage_type: f"{price.amount:f}" for price in table.prices.values()}
    assert amounts == {
        "EUW3-ServerlessInf:Mem-1GB": "0.00002",
        "EUW3-ServerlessInf:Mem-4GB": "0.00008",
        "EUW3-ProvisionedConcurrency:Mem-2GB": "0.0000233",
        "EUW3-ProvisionedConcurrency:Usage-2GB": "0.00001",
        "EUW3-Host:ml.m5.large": "0.134",  # of two terms the later one
        "EUW3-Host:ml.t2.medium": "0.063",  # and not what is reserved
        "EUW3-Train:ml.m5.large": "0.134",
        "EUW3-Host:VolumeUsage.gp2": "0.162",
        "EUW3-Hst:Data-Bytes-In": "0.016",
        "EUW3-Hst:Data-Bytes-Out": "0.016",
    }
    assert table.find(UsageKind.DATA_IN, "serverless")
    assert table.find(UsageKind.INSTANCE, "ml.c5.large") is None  # it has no term
    for price in table.prices.values():
        assert (price.date, price.confidence) == ("2026-09-01", "sure")
        assert price.source == "AWS's offer file AmazonSageMaker, published 2026-09-02"
    assert (found.published, found.elsewhere, found.skipped) == ("2026-09-02", 3, 4)


def test_tiers_are_taken_in_their_order() -> None:
    table = extract(load(OFFER), PARIS, OFFER.name).prices.latest
    large, small = (table.prices[UsageKind.SERVERLESS_DURATION, mb] for mb in ("4096", "1024"))
    assert large.tiers == (Tier(Decimal(150_000), Decimal("0.00008")),)
    assert not large.varies
    assert small.tiers == (Tier(Decimal(150_000), Decimal("0.000018")),)
    assert small.varies


def test_what_is_taken_can_be_written() -> None:
    listed = extract(load(OFFER), PARIS, OFFER.name).prices
    assert parse(render(listed, "made"), "x.toml") == listed


def test_another_region_of_the_same_file() -> None:
    found = extract(load(OFFER), "us-east-1", OFFER.name)
    assert found.prices.latest.prefix == "USE1"
    assert len(found.prices.prices) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[]", "is not the offer file of AmazonSageMaker (its offerCode is None)"),
        ('{"offerCode": "AmazonEC2"}', "(its offerCode is 'AmazonEC2')"),
    ],
)
def test_what_is_no_offer_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "offer.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SetupError) as refused:
        load(path)
    assert str(refused.value).startswith(str(path))
    assert sentence in str(refused.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    with path.open("wb") as file:
        file.truncate(2 * 10**9)
    assert MOST_BYTES < 2 * 10**9
    with pytest.raises(SetupError, match=r"has 2\.0 GB.*take the region's own offer file"):
        load(path)
    with pytest.raises(SetupError, match=r"cannot be read: No such file"):
        load(tmp_path / "none.json")


def no_products(document: dict[str, Any]) -> None:
    del document["products"]


def no_attributes(document: dict[str, Any]) -> None:
    document["products"]["X"] = {"productFamily": "ML Instance"}


def a_list(document: dict[str, Any]) -> None:
    document["products"] = []


def another_unit(document: dict[str, Any]) -> None:
    dimension(document, "EUW3-Host:ml.t2.medium")["unit"] = "Days"


def another_currency(document: dict[str, Any]) -> None:
    dimension(document, "EUW3-Host:ml.t2.medium")["pricePerUnit"] = {"CNY": "1"}


def no_number(document: dict[str, Any]) -> None:
    dimension(document, "EUW3-Host:ml.t2.medium")["pricePerUnit"] = {"USD": "cheap"}


def a_late_begin(document: dict[str, Any]) -> None:
    dimension(document, "EUW3-Host:ml.t2.medium")["beginRange"] = "10"


def no_dimension(document: dict[str, Any]) -> None:
    sku = product(document, "EUW3-Host:ml.t2.medium")
    (term,) = document["terms"]["OnDemand"][sku].values()
    term["priceDimensions"] = {}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_products, "it lacks 'products'"),
        (no_attributes, "it lacks 'attributes'"),
        (a_list, "has no attribute 'items'"),
        (another_unit, "is sold in 'Days', not in Hrs"),
        (another_currency, "it lacks 'USD'"),
        (no_number, "has 'cheap' where a number has to be"),
        (a_late_begin, "begin at 10"),
        (no_dimension, "has no price"),
    ],
)
def test_a_file_in_another_form(
    document: dict[str, Any], spoil: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    spoil(document)
    with pytest.raises(SetupError, match=r"^x\.json is not in the form of AWS's") as refused:
        extract(document, PARIS, "x.json")
    assert sentence in str(refused.value)


def test_a_region_that_it_does_not_have(document: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=r"'mars-1': it has products of eu-west-3, us-east-1\."):
        extract(document, "mars-1", "x.json")


def test_two_prices_of_one_thing(document: dict[str, Any]) -> None:
    sku = product(document, "EUW3-Host:ml.t2.medium")
    document["products"]["TWIN"] = document["products"][sku]
    document["terms"]["OnDemand"]["TWIN"] = json.loads(
        json.dumps(document["terms"]["OnDemand"][sku]).replace("0.063", "0.064")
    )
    with pytest.raises(SetupError, match=rf"two prices of EUW3-Host:ml.t2.medium.*{sku} and TWIN"):
        extract(document, PARIS, "x.json")
