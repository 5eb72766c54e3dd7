"""The bill as `GET /billing` shows it: the ledger's usage, priced, one entry for each endpoint and
for each training job.

Turns usage into a document; formats nothing for people (`dashboard.py`) and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from emulator.address import Key
from emulator.billing import Bill, Charge, PriceTable, Usage, bill, total
from emulator.ledger import TRAINED, Counts, UsageRecord


@dataclass(frozen=True, slots=True)
class EndpointStatement:
    """One endpoint's share of the bill; a deleted one keeps its place."""

    key: Key
    persona: str
    counts: Counts
    bill: Bill

    def document(self) -> dict[str, Any]:
        counted = {key: value for key, value in asdict(self.counts).items() if key != "persona"}
        return {
            "name": self.key.name,
            "region": self.key.home.region,
            "account": self.key.home.account,
            "persona": self.persona,
            **counted,
            "total": _plain(self.bill.total),
            "lines": [_line(charge) for charge in self.bill.charges],
        }


@dataclass(frozen=True, slots=True)
class JobStatement:
    """A training job's share of the bill. An endpoint may have the same name."""

    key: Key
    bill: Bill

    def document(self) -> dict[str, Any]:
        return {
            "name": self.key.name,
            "region": self.key.home.region,
            "account": self.key.home.account,
            "total": _plain(self.bill.total),
            "lines": [_line(charge) for charge in self.bill.charges],
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """The bill of a server: what every endpoint and every training job that ever ran here cost,
    each at the prices of its region. `region` is the server's own."""

    region: str
    currency: str
    endpoints: tuple[EndpointStatement, ...]
    jobs: tuple[JobStatement, ...]
    include_startup: bool

    @property
    def total(self) -> Decimal:
        return total(bill.total for bill in self._bills)

    @property
    def complete(self) -> bool:
        return all(bill.complete for bill in self._bills)

    @property
    def _bills(self) -> list[Bill]:
        return [one.bill for one in self.endpoints] + [one.bill for one in self.jobs]

    def document(self) -> dict[str, Any]:
        """JSON types; every amount of money and every quantity a decimal string."""
        return {
            "region": self.region,
            "currency": self.currency,
            "total": _plain(self.total),
            "complete": self.complete,
            "include_startup": self.include_startup,
            "endpoints": [one.document() for one in self.endpoints],
            "training_jobs": [one.document() for one in self.jobs],
        }


def draw_up(
    usages: Iterable[UsageRecord],
    counts: dict[Key, Counts],
    personas: dict[Key, str],
    prices: Callable[[str], PriceTable],
    region: str,
    include_startup: bool,
) -> Statement:
    """Price what the ledger holds, by the tables that `prices` has. `personas` names the
    endpoints that are hosted now, which are listed even if they have not been used."""
    by_endpoint: dict[Key, list[Usage]] = {key: [] for key in personas}
    by_job: dict[Key, list[Usage]] = {}
    named = dict(personas)
    for record in usages:
        if record.persona == TRAINED:
            by_job.setdefault(record.key, []).append(record.usage)
            continue
        by_endpoint.setdefault(record.key, []).append(record.usage)
        named.setdefault(record.key, record.persona)
    for key, counted in counts.items():
        by_endpoint.setdefault(key, [])
        named.setdefault(key, counted.persona)
    entries = (
        EndpointStatement(
            key,
            named.get(key, ""),
            counts.get(key, Counts()),
            bill(by_endpoint[key], prices(key.home.region)),
        )
        for key in sorted(by_endpoint, key=lambda key: (key.name, key.home))
    )
    jobs = (
        JobStatement(key, bill(by_job[key], prices(key.home.region)))
        for key in sorted(by_job, key=lambda key: (key.name, key.home))
    )
    currency = prices(region).currency
    return Statement(region, currency, tuple(entries), tuple(jobs), include_startup)


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
