"""The bill as `GET /billing` shows it: the ledger's usage, priced, one entry per endpoint.

Turns usage into a document; formats nothing for people (`dashboard.py`) and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from emulator.billing import Bill, Charge, PriceTable, Usage, bill, total
from emulator.ledger import Counts, UsageRecord


@dataclass(frozen=True, slots=True)
class EndpointStatement:
    """One endpoint's share of the bill; a deleted one keeps its place."""

    name: str
    persona: str
    counts: Counts
    bill: Bill

    def document(self) -> dict[str, Any]:
        counted = {key: value for key, value in asdict(self.counts).items() if key != "persona"}
        return {
            "name": self.name,
            "persona": self.persona,
            **counted,
            "total": _plain(self.bill.total),
            "lines": [_line(charge) for charge in self.bill.charges],
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """The bill of a server: what every endpoint that ever ran here cost."""

    table: PriceTable
    endpoints: tuple[EndpointStatement, ...]
    include_startup: bool

    @property
    def total(self) -> Decimal:
        return total(one.bill.total for one in self.endpoints)

    @property
    def complete(self) -> bool:
        return all(one.bill.complete for one in self.endpoints)

    def document(self) -> dict[str, Any]:
        """JSON types; every amount of money and every quantity a decimal string."""
        return {
            "region": self.table.region,
            "currency": self.table.currency,
            "total": _plain(self.total),
            "complete": self.complete,
            "include_startup": self.include_startup,
            "endpoints": [one.document() for one in self.endpoints],
        }


def draw_up(
    usages: Iterable[UsageRecord],
    counts: dict[str, Counts],
    personas: dict[str, str],
    table: PriceTable,
    include_startup: bool,
) -> Statement:
    """Price what the ledger holds. `personas` names the endpoints that are hosted now, which are
    listed even if they have not been used."""
    by_endpoint: dict[str, list[Usage]] = {name: [] for name in personas}
    named = dict(personas)
    for record in usages:
        by_endpoint.setdefault(record.endpoint, []).append(record.usage)
        named.setdefault(record.endpoint, record.persona)
    for name, counted in counts.items():
        by_endpoint.setdefault(name, [])
        named.setdefault(name, counted.persona)
    entries = (
        EndpointStatement(
            name, named.get(name, ""), counts.get(name, Counts()), bill(by_endpoint[name], table)
        )
        for name in sorted(by_endpoint)
    )
    return Statement(table, tuple(entries), include_startup)


def _line(charge: Charge) -> dict[str, Any]:
    return {
        "usage_type": charge.usage_type,
        "quantity": _plain(charge.quantity),
        "unit": charge.unit,
        "price": _plain(charge.price),
        "amount": _plain(charge.amount),
        "source": charge.source,
        "date": charge.date,
        "confidence": charge.confidence,
    }


def _plain(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"
