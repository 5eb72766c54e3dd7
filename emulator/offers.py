"""AWS's published offer file of SageMaker, made into a price list of ours.

Taken is what has a usage type that a bill here can have; the rest (notebooks, other regions, terms
that are reserved) is counted and left out. Nothing is fetched: the file is the user's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from emulator.billing import MEASURES, Price, PriceTable, Tier, UsageKind, shown, usage_type
from emulator.core import MIB
from emulator.errors import SetupError
from emulator.pricelist import EVER, PriceList

OFFER = "AmazonSageMaker"
MOST_BYTES = 256 * MIB  # read as a whole; a region's own file has a few
_USAGE_TYPE = re.compile(r"([A-Z]{2,4}[0-9]?)-(.+)")
_GB = re.compile(r"[1-9][0-9]?GB")
_BEFORE: Mapping[str, UsageKind] = {  # what stands before what is sold
    "ServerlessInf:Mem-": UsageKind.SERVERLESS_DURATION,
    "ProvisionedConcurrency:Mem-": UsageKind.PROVISIONED_DURATION,
    "ProvisionedConcurrency:Usage-": UsageKind.PROVISIONED_USAGE,
    "Host:VolumeUsage.": UsageKind.VOLUME,
    "Host:ml.": UsageKind.INSTANCE,
    "Train:ml.": UsageKind.TRAINING,
    "Hst:Data-Bytes-In": UsageKind.DATA_IN,
    "Hst:Data-Bytes-Out": UsageKind.DATA_OUT,
}
_UNITS = {  # as they are written, in small letters
    "Seconds": ("s", "second", "seconds"),
    "Hrs": ("hrs", "hr", "hour", "hours"),
    "GB-Mo": ("gb-mo", "gb-month"),
    "GB": ("gb",),
}


class Sold(NamedTuple):
    """What a usage type stands for."""

    prefix: str
    kind: UsageKind
    sku: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The price list of one region, and what of the file is not in it."""

    prices: PriceList
    published: str
    elsewhere: int  # products of other regions
    skipped: int  # products of this region that no bill here has


def load(path: Path) -> dict[str, Any]:
    """The offer file. Raises SetupError for what is none, or is too large to be read."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise SetupError(
                f"{path} has {size / 1e9:.1f} GB, more than the {MOST_BYTES / 1e9:.2f} GB that are "
                "read: take the region's own offer file, which has a few MB."
            )
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror or error}.") from None
    except orjson.JSONDecodeError as error:
        raise SetupError(f"{path} is not JSON: {error}.") from None
    if not isinstance(document, dict) or document.get("offerCode") != OFFER:
        offer = document.get("offerCode") if isinstance(document, dict) else None
        raise SetupError(
            f"{path} is not the offer file of {OFFER} (its offerCode is {offer!r}): take that."
        )
    return document


def extract(document: Mapping[str, Any], region: str, name: str) -> Imported:
    """The prices of a region in an offer file; `name` is the file to blame.

    Raises SetupError if it has none of that region, or is not in the form of an offer file.
    """
    try:
        return _extracted(document, region, name)
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        reason = f"it lacks {fault}" if isinstance(fault, KeyError) else str(fault)
        raise SetupError(
            f"{name} is not in the form of AWS's offer file ({reason}): take an unchanged one."
        ) from None


def _extracted(document: Mapping[str, Any], region: str, name: str) -> Imported:
    published = str(document["publicationDate"])[:10]
    source = f"AWS's offer file {OFFER}, published {published}"
    products, terms = document["products"], document["terms"]["OnDemand"]
    here = {
        sku: one["attributes"]
        for sku, one in products.items()
        if one["attributes"].get("regionCode") == region
    }
    found: dict[tuple[UsageKind, str], tuple[str, Price]] = {}
    prefixes: Counter[str] = Counter()
    for sku, attributes in here.items():
        sold = _sold(attributes["usagetype"])
        if sold is None or not terms.get(sku):
            continue
        prefixes[sold.prefix] += 1
        price = _price(sold, sku, terms[sku], source)
        _keep(found, sold, sku, price, name)
    if not found:
        raise SetupError(f"{name} has no price of the region {region!r}: {_regions(products)}.")
    ((prefix, _),) = prefixes.most_common(1)
    prices = {sold: price for sold, (_, price) in sorted(found.items())}
    table = PriceTable(region, prefix, "USD", prices)
    listed = PriceList(region, (EVER,), (table,))
    return Imported(listed, published, len(products) - len(here), len(here) - len(found))


def _regions(products: Mapping[str, Any]) -> str:
    regions = {one["attributes"].get("regionCode") for one in products.values()} - {None, ""}
    return f"it has products of {', '.join(sorted(regions))}" if regions else "it names no region"


def _keep(
    found: dict[tuple[UsageKind, str], tuple[str, Price]],
    sold: Sold,
    sku: str,
    price: Price,
    name: str,
) -> None:
    other, known = found.setdefault((sold.kind, sold.sku), (sku, price))
    if (known.amount, known.tiers) != (price.amount, price.tiers):
        raise SetupError(
            f"{name} has two prices of {price.usage_type}, in the products {other} and {sku}: "
            "remove the one that does not hold."
        )


def _sold(name: str) -> Sold | None:
    """What a usage type of the file stands for here, if for anything."""
    matched = _USAGE_TYPE.fullmatch(name)
    if not matched:
        return None
    prefix, what = matched.groups()
    for before, kind in _BEFORE.items():
        if not what.startswith(before):
            continue
        rest = what.removeprefix(before)
        if before.endswith("ml."):
            return Sold(prefix, kind, f"ml.{rest}")
        if before.endswith("-"):
            return Sold(prefix, kind, str(1024 * int(rest[:-2]))) if _GB.fullmatch(rest) else None
        volume = kind is UsageKind.VOLUME  # has a type, which data has not
        return Sold(prefix, kind, rest) if volume == bool(rest) else None
    return None


def _price(sold: Sold, sku: str, terms: Mapping[str, Any], source: str) -> Price:
    term = max(terms.values(), key=lambda one: str(one["effectiveDate"]))
    dimensions = sorted(
        term["priceDimensions"].values(), key=lambda one: _number(one["beginRange"], sku)
    )
    if not dimensions:
        raise ValueError(f"the product {sku} has no price")
    unit = MEASURES[sold.kind].unit
    for one in dimensions:
        if one["unit"].lower() not in _UNITS[unit]:
            raise ValueError(f"the product {sku} is sold in {one['unit']!r}, not in {unit}")
    first, *others = (
        (_number(one["beginRange"], sku), _number(one["pricePerUnit"]["USD"], sku))
        for one in dimensions
    )
    if first[0]:
        raise ValueError(f"the prices of the product {sku} begin at {first[0]}")
    return Price(
        usage_type(sold.kind, sold.sku, sold.prefix),
        unit,
        first[1],
        source,
        str(term["effectiveDate"])[:10],
        "sure",
        tiers=tuple(Tier(above, amount) for above, amount in others),
    )


def _number(text: str, sku: str) -> Decimal:
    """A number from 0 up; 0.0630000000 is 0.063."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ValueError(f"the product {sku} has {text!r} where a number has to be")
    return shown(Fraction(number))
