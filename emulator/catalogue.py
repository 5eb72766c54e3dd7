"""What AWS sells: the price tables and instance types of `emulator/prices/`. Reads nothing else.

Each file is read once per process. To add a region, add its TOML; nothing lists the files.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from emulator.billing import MEASURES, Price, PriceTable, UsageKind, usage_type
from emulator.core import GIB
from emulator.errors import SetupError
from emulator.provenance import Provenance

_INSTANCES = "instances.toml"
_FOLDER = files("emulator") / "prices"


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A hosting instance type, such as `ml.m5.large`: 2 vCPUs, 8 GiB, no GPU."""

    name: str
    vcpus: int
    memory_bytes: int
    gpus: int


@cache
def regions() -> tuple[str, ...]:
    """The regions that have a price table, in alphabetical order."""
    names = (entry.name for entry in _FOLDER.iterdir())
    tables = (name for name in names if name.endswith(".toml") and name != _INSTANCES)
    return tuple(sorted(name.removesuffix(".toml") for name in tables))


@cache
def price_table(region: str) -> PriceTable:
    """The prices of a region, such as "eu-west-3". Raises SetupError for one without a table."""
    if region not in regions():
        raise SetupError(
            f"There is no price table for the region {region!r}; set EMULATOR_REGION to one of "
            f"{', '.join(regions())}."
        )
    name = f"{region}.toml"
    return parse_prices((_FOLDER / name).read_text(encoding="utf-8"), name)


@cache
def prices(region: str) -> PriceTable:
    """The same, and for a region without a table one without a price, never a free one."""
    if region in regions():
        return price_table(region)
    return PriceTable(region, region.upper(), "USD", {})


def parse_prices(text: str, name: str) -> PriceTable:
    """The price table that a TOML text holds; `name` is the file to blame.

    Raises SetupError for a figure without unit, source, date or a known confidence, and for one
    that is given twice.
    """
    prices: dict[tuple[UsageKind, str], Price] = {}
    try:
        document = tomllib.loads(text, parse_float=Decimal)
        prefix = document["prefix"]
        for key, price in _prices(document["prices"], prefix):
            if key in prices:
                raise ValueError(f"the price of {key[0]} {key[1]!r} is given twice")
            prices[key] = price
        return PriceTable(document["region"], prefix, document["currency"], prices)
    except KeyError as missing:
        raise SetupError(f"The price table {name} lacks the field {missing}: add it.") from None
    except (ValueError, TypeError, AttributeError) as fault:
        raise SetupError(f"The price table {name} cannot be used: {fault}.") from None


def instance_type(name: str) -> InstanceType:
    """The hosting instance type of that name. Raises SetupError for one that is not known."""
    known = instance_types()
    if name in known:
        return known[name]
    meant = f"ml.{name.removeprefix('ml.')}"
    close = difflib.get_close_matches(meant, known, n=3, cutoff=0.5) or list(known)[:3]
    raise SetupError(
        f"The instance type {name!r} is not one that hosts endpoints: "
        f"did you mean {', '.join(close)}?"
    )


@cache
def instance_types() -> Mapping[str, InstanceType]:
    """All hosting instance types by name, small to large within a family."""
    text = (_FOLDER / _INSTANCES).read_text(encoding="utf-8")
    families = tomllib.loads(text, parse_float=Decimal)
    return {
        entry.name: entry
        for family, sizes in families.items()
        for entry in (_instance(f"ml.{family}.{size}", given) for size, given in sizes.items())
    }


def _instance(name: str, given: Mapping[str, Any]) -> InstanceType:
    return InstanceType(name, given["vcpus"], int(given["gib"] * GIB), given.get("gpus", 0))


def _prices(
    blocks: list[dict[str, Any]], prefix: str
) -> Iterator[tuple[tuple[UsageKind, str], Price]]:
    for block in blocks:
        kind = UsageKind(block["kind"])
        if block["unit"] != MEASURES[kind].unit:
            raise ValueError(f"{kind} is sold in {MEASURES[kind].unit}, not {block['unit']!r}")
        Provenance.of(block)
        for label, amount in block["amounts"].items():
            sku = "" if label == "any" else label
            yield (kind, sku), _price(usage_type(kind, sku, prefix), block, Decimal(amount))


def _price(name: str, block: Mapping[str, Any], amount: Decimal) -> Price:
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"the price of {name} is {amount}: it must be a number from 0 up")
    return Price(name, block["unit"], amount, block["source"], block["date"], block["confidence"])
