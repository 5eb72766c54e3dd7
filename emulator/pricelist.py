"""The prices of a region over time, and their form as TOML: read, checked and written. No I/O.

A block of the TOML may say `from`, the first UTC day that its amounts hold, and `tiers`, where
AWS's list has boundaries in what an account uses in a month. Without either they hold for ever, and
for everything.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any

from emulator.billing import MEASURES, Price, PriceTable, Tier, UsageKind, usage_type
from emulator.core import NEVER, SECOND
from emulator.errors import SetupError
from emulator.provenance import Provenance

DAY = 86_400 * SECOND
EVER = -NEVER
_EPOCH = 719_163  # the day 1970-01-01 as Python counts them
_Sold = tuple[UsageKind, str]


@dataclass(frozen=True, slots=True)
class PriceList:
    """The tables of one region, the first of which holds from EVER on: `tables[i]` from the instant
    `since[i]`."""

    region: str
    since: tuple[int, ...]
    tables: tuple[PriceTable, ...]

    @classmethod
    def empty(cls, region: str) -> PriceList:
        """No price at all, which is never a free one."""
        return cls(region, (EVER,), (PriceTable(region, region.upper(), "USD", {}),))

    def at(self, instant: int) -> PriceTable:
        """The prices that hold at an instant."""
        return self.tables[bisect_right(self.since, instant) - 1]

    def begun(self, instant: int) -> int:
        """Since when these hold."""
        return self.since[bisect_right(self.since, instant) - 1]

    def until(self, instant: int) -> int:
        """The next change after an instant, or NEVER."""
        place = bisect_right(self.since, instant)
        return self.since[place] if place < len(self.since) else NEVER

    @property
    def changes(self) -> tuple[int, ...]:
        return self.since[1:]

    @property
    def latest(self) -> PriceTable:
        return self.tables[-1]

    @property
    def prices(self) -> tuple[tuple[UsageKind, str, Price], ...]:
        """Every price there ever is, by kind, what is sold, and date."""
        found = {
            (kind, sku, price.since): (kind, sku, price)
            for table in self.tables
            for (kind, sku), price in table.prices.items()
        }
        kinds = list(UsageKind)
        return tuple(
            sorted(found.values(), key=lambda one: (kinds.index(one[0]), one[1], one[2].since))
        )


def parse(text: str, name: str) -> PriceList:
    """The prices that a TOML text holds; `name` is the file to blame.

    Raises SetupError for a figure without unit, source, date or a known confidence, for one that is
    given twice, and for dates and tiers that cannot be.
    """
    try:
        document = tomllib.loads(text, parse_float=Decimal)
        return _parsed(document)
    except KeyError as missing:
        raise SetupError(f"The price table {name} lacks the field {missing}: add it.") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError) as fault:
        raise SetupError(f"The price table {name} cannot be used: {fault}.") from None


def render(listed: PriceList, comment: str) -> str:
    """The TOML text that `parse` reads the same prices from."""
    table = listed.latest
    parts = [
        "".join(f"# {line}\n" for line in comment.splitlines()),
        f"region = {_quoted(listed.region)}\nprefix = {_quoted(table.prefix)}\n"
        f"currency = {_quoted(table.currency)}\n",
    ]
    for head, block in groupby(listed.prices, key=lambda one: _head(one[0], one[2])):
        amounts = "".join(
            f"{_quoted(sku) if sku else 'any'} = {_amounts(price)}\n" for _, sku, price in block
        )
        parts.append(f"[[prices]]\n{head}[prices.amounts]\n{amounts}")
    return "\n".join(parts)


def _parsed(document: Mapping[str, Any]) -> PriceList:
    region, prefix, currency = (_text(document, name) for name in ("region", "prefix", "currency"))
    found: dict[_Sold, dict[int, Price]] = {}
    for sold, day, price in _prices(document["prices"], prefix):
        if day in found.setdefault(sold, {}):
            raise ValueError(f"the price of {sold[0]} {sold[1]!r} is given twice")
        found[sold][day] = price
    since = (EVER, *sorted({day for days in found.values() for day in days} - {EVER}))
    tables = tuple(
        PriceTable(region, prefix, currency, dict(_in_force(found, start))) for start in since
    )
    return PriceList(region, since, tables)


def _in_force(
    found: Mapping[_Sold, Mapping[int, Price]], instant: int
) -> Iterator[tuple[_Sold, Price]]:
    for sold, days in found.items():
        begun = [day for day in days if day <= instant]
        if begun:
            yield sold, days[max(begun)]


def _prices(blocks: Sequence[Mapping[str, Any]], prefix: str) -> Iterator[tuple[_Sold, int, Price]]:
    for block in blocks:
        kind = UsageKind(block["kind"])
        if block["unit"] != MEASURES[kind].unit:
            raise ValueError(f"{kind} is sold in {MEASURES[kind].unit}, not {block['unit']!r}")
        Provenance.of(block)
        day, bounds = _day(block), _bounds(block)
        for label, given in block["amounts"].items():
            sku = "" if label == "any" else label
            price = _price(usage_type(kind, sku, prefix), block, given, bounds)
            yield (kind, sku), day, price


def _price(name: str, block: Mapping[str, Any], given: Any, bounds: Sequence[Decimal]) -> Price:
    amounts = given if isinstance(given, list) else [given] * (1 + len(bounds))
    if len(amounts) != 1 + len(bounds):
        raise ValueError(f"the price of {name} has {len(amounts)} amounts for {1 + len(bounds)}")
    first, *others = (_amount(name, one) for one in amounts)
    return Price(
        name,
        block["unit"],
        first,
        block["source"],
        block["date"],
        block["confidence"],
        str(block.get("from", "")),
        tuple(map(Tier, bounds, others)),
    )


def _amount(name: str, given: Any) -> Decimal:
    amount = Decimal(given)
    if isinstance(given, bool) or not amount.is_finite() or amount < 0:
        raise ValueError(f"the price of {name} is {given}: it must be a number from 0 up")
    return amount


def _day(block: Mapping[str, Any]) -> int:
    given = block.get("from")
    if given is None:
        return EVER
    if isinstance(given, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", str(given)):
        raise ValueError(f"from is {given!r}, not a date such as 2026-09-01, without quotes")
    day: int = given.toordinal() - _EPOCH
    return day * DAY


def _bounds(block: Mapping[str, Any]) -> list[Decimal]:
    """Where the tiers after the first begin."""
    bounds = [Decimal(one) for one in block.get("tiers", [0])]
    if bounds[:1] != [0] or any(after <= before for before, after in pairwise(bounds)):
        raise ValueError(f"tiers are {block['tiers']}: they must rise from 0")
    return bounds[1:]


def _text(document: Mapping[str, Any], name: str) -> str:
    if not isinstance(document[name], str) or not document[name]:
        raise ValueError(f"the {name} is {document[name]!r}, not a text")
    return str(document[name])


def _head(kind: UsageKind, price: Price) -> str:
    lines = [("kind", kind), ("unit", price.unit), ("source", price.source), ("date", price.date)]
    text = "".join(f"{name} = {_quoted(value)}\n" for name, value in lines)
    text += f"confidence = {_quoted(price.confidence)}\n"
    text += f"from = {price.since}\n" if price.since else ""
    bounds = ", ".join(f"{tier.above:f}" for tier in price.tiers)
    return text + (f"tiers = [0, {bounds}]\n" if bounds else "")


def _amounts(price: Price) -> str:
    if not price.varies:
        return f"{price.amount:f}"
    return f"[{', '.join(f'{one:f}' for one in (price.amount, *(t.amount for t in price.tiers)))}]"


def _quoted(text: str) -> str:
    """A string of JSON is one of TOML, but for pairs of surrogates and one more control code."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")
