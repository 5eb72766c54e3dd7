"""A ledger's usage, cut where prices change, with the shares that are free or in a tier.

Decides where a bill is cut and what part of each usage has which price; `billing.py` multiplies,
`statement.py` puts together.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, Protocol

from emulator import catalogue
from emulator.address import Key
from emulator.allowances import free_shares, tier_shares
from emulator.billing import MEASURES, Counted, Price
from emulator.catalogue import Tables
from emulator.core import NEVER, SECOND
from emulator.errors import ValidationException
from emulator.ledger import Counts, UsageRecord
from emulator.pricelist import DAY, EVER, PriceList
from emulator.terms import GroupBy, Terms

MOST_DAYS = 400
_WHOLE: tuple[Fraction, ...] = (Fraction(1),)


class Usages(Protocol):
    """What is asked of a ledger."""

    def usage(
        self, from_ns: int | None, to_ns: int | None, include_startup: bool
    ) -> list[UsageRecord]: ...

    def statement(
        self, include_startup: bool, from_ns: int | None, to_ns: int | None
    ) -> tuple[list[UsageRecord], dict[Key, Counts]]: ...


class Part(NamedTuple):
    """A usage of one period, as it is to be priced. `day` is when the period began."""

    record: UsageRecord
    counted: Counted
    day: str


@dataclass(slots=True)
class _Month:
    """A part of a month, in which shares are the same: the whole of it or a day."""

    from_ns: int
    to_ns: int
    records: list[UsageRecord]
    # By account and number of the allowance; by account and usage type.
    free: dict[tuple[str, int], Fraction] = field(default_factory=dict)
    tiers: dict[tuple[str, str], tuple[Fraction, ...]] = field(default_factory=dict)

    @property
    def even(self) -> bool:
        """Whether nothing is used up in it, so that it need not be looked at day by day."""
        return all(share == 1 for share in self.free.values()) and all(
            shares[0] == 1 for shares in self.tiers.values()
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a ledger under the terms of a bill."""

    ledger: Usages
    terms: Terms
    tables: Tables
    now: int

    def parts(self) -> tuple[list[Part], dict[Key, Counts]]:
        """What was used, in parts that have one price each, and the requests of the period."""
        terms = self.terms
        records, counts = self.ledger.statement(terms.include_startup, terms.from_ns, terms.to_ns)
        lists = self._lists(records)
        months = self._months(lists) if records and self._by_month(lists) else []
        edges = self._edges(records, lists, months)
        if len(edges) == 2:
            return list(self._parts(edges[0], months, records)), counts
        found = [
            part
            for start, end in pairwise(edges)
            for part in self._parts(start, months, self._usage(start, end))
        ]
        return found, counts

    # -- where it is cut ----------------------------------------------------------------------

    def _edges(
        self, records: Sequence[UsageRecord], lists: Iterable[PriceList], months: Iterable[_Month]
    ) -> list[int]:
        first, last = self._span
        cuts = {cut for listed in lists for cut in listed.changes}
        cuts |= {edge for month in months for edge in (month.from_ns, month.to_ns)}
        if self.terms.group_by is GroupBy.DAY and records:
            days = range(self._start(), min(last, self.now) + 1, DAY)
            if len(days) > MOST_DAYS:
                raise ValidationException(
                    f"group_by is day, and the bill covers {len(days)} of them: name at most "
                    f"{MOST_DAYS} with from and to."
                )
            cuts |= set(days)
        return [first, *sorted(cut for cut in cuts if first < cut < last), last]

    @property
    def _span(self) -> tuple[int, int]:
        first, last = self.terms.from_ns, self.terms.to_ns
        return EVER if first is None else first, NEVER if last is None else last

    def _start(self) -> int:
        """The day of the first usage."""
        first, _ = self._span
        days = range(max(first, 0) // DAY, self.now // DAY + 1)
        return days.start * DAY + DAY * bisect_left(
            days, True, key=lambda day: bool(self._usage(first, (day + 1) * DAY))
        )

    def _usage(self, start: int, end: int) -> list[UsageRecord]:
        return self.ledger.usage(
            None if start == EVER else start,
            None if end == NEVER else end,
            self.terms.include_startup,
        )

    # -- what has which price -----------------------------------------------------------------

    def _list(self, record: UsageRecord) -> PriceList:
        return self.tables.known(self.terms.region or record.region)

    def _lists(self, records: Iterable[UsageRecord]) -> list[PriceList]:
        regions = {self.terms.region or record.region for record in records}
        return [self.tables.known(region) for region in sorted(regions)]

    def _by_month(self, lists: Iterable[PriceList]) -> bool:
        """Whether what was used before in a month makes a difference."""
        return self.terms.free_tier or any(_varying(lists))

    def _parts(
        self, start: int, months: Sequence[_Month], records: Iterable[UsageRecord]
    ) -> Iterator[Part]:
        place = bisect_right(months, start, key=lambda one: one.from_ns) - 1
        month = months[place] if place >= 0 and months[place].to_ns > start else None
        day = "" if start == EVER else f"{datetime.fromtimestamp(start // SECOND, UTC):%Y-%m-%d}"
        for record in records:
            table = self._list(record).at(start)
            free, tiers = Fraction(0), _WHOLE
            if month:
                free = _free(month, record)
                price = table.find(record.usage.kind, record.usage.sku)
                tiers = month.tiers.get((record.account, price.usage_type if price else ""), _WHOLE)
            counted = Counted(record.usage, table, free, tiers, self.terms.savings_plan)
            yield Part(record, counted, day)

    def _months(self, lists: Sequence[PriceList]) -> list[_Month]:
        """The months of the bill, from beginning to end whatever its period; those in which
        something is used up day by day."""
        found: list[_Month] = []
        start, end = _month(self._start()), min(self._span[1], self.now + 1)
        while start < end:
            following = _month(start + 31 * DAY)
            changes = any(start < cut < following for listed in lists for cut in listed.changes)
            whole = [] if changes else self._shared([start, following])
            if not (whole and whole[0].even):
                whole = self._shared(range(start, following + 1, DAY))
            found += whole
            start = following
        return found

    def _shared(self, edges: Sequence[int]) -> list[_Month]:
        """The parts of a month between the edges, with their shares."""
        parts = [_Month(start, end, self._usage(start, end)) for start, end in pairwise(edges)]
        allowances = catalogue.free_tier() if self.terms.free_tier else ()
        for account in sorted({record.account for part in parts for record in part.records}):
            for number, allowance in enumerate(allowances):
                used = [
                    sum(
                        record.usage.quantity
                        for record in part.records
                        if record.account == account
                        and allowance.covers(record.usage.kind, record.usage.sku)
                    )
                    for part in parts
                ]
                for part, share in zip(parts, free_shares(used, allowance.quantity), strict=True):
                    part.free[account, number] = share
        self._share_tiers(parts)
        return parts

    def _share_tiers(self, parts: Sequence[_Month]) -> None:
        """What is free takes up no tier: what is paid for would get cheaper by using more."""
        records = [record for part in parts for record in part.records]
        varying = {price.usage_type for price in _varying(self._lists(records))}
        paid: dict[tuple[str, str], list[Fraction]] = {}
        bounds: dict[tuple[str, str], list[tuple[Fraction, ...]]] = {}
        for number, part in enumerate(parts):
            for record in part.records:
                price = (
                    self._list(record).at(part.from_ns).find(record.usage.kind, record.usage.sku)
                )
                if price is None or price.usage_type not in varying:
                    continue
                key = record.account, price.usage_type
                days = paid.setdefault(key, [Fraction(0)] * len(parts))
                days[number] += (1 - _free(part, record)) * record.usage.quantity
                edges = bounds.setdefault(key, [()] * len(parts))
                edges[number] = _bounds(price, MEASURES[record.usage.kind].base_units)
        for key, days in paid.items():
            for part, shares in zip(parts, tier_shares(days, bounds[key]), strict=True):
                part.tiers[key] = shares


def _free(month: _Month, record: UsageRecord) -> Fraction:
    usage = record.usage
    for number, allowance in enumerate(catalogue.free_tier()):
        if allowance.covers(usage.kind, usage.sku):
            return month.free.get((record.account, number), Fraction(0))
    return Fraction(0)


def _varying(lists: Iterable[PriceList]) -> Iterator[Price]:
    for listed in lists:
        for table in listed.tables:
            yield from (price for price in table.prices.values() if price.varies)


def _bounds(price: Price, base_units: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(tier.above) * base_units for tier in price.tiers)


def _month(instant: int) -> int:
    """When the calendar month of an instant began, in UTC."""
    date = datetime.fromtimestamp(instant // SECOND, UTC)
    began = datetime(date.year, date.month, 1, tzinfo=UTC)
    return int(began.timestamp()) * SECOND
