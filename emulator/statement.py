"""The bill as `GET /billing` shows it: the ledger's usage, priced, one entry for each endpoint and
for each training job, or for each of what it is grouped by.

Turns usage into a document; formats nothing for people (`dashboard.py`) and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Protocol

from emulator.address import Key
from emulator.billing import Bill, Charge, Counted, charge, total
from emulator.catalogue import Tables
from emulator.errors import ValidationException
from emulator.ledger import TRAINED, Counts
from emulator.periods import Part, Reading, Usages
from emulator.terms import GroupBy, Terms


class Entry(Protocol):
    """A part of the statement with lines of its own."""

    @property
    def bill(self) -> Bill: ...

    def document(self) -> dict[str, Any]: ...


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
            **_document(self.bill),
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
            **_document(self.bill),
        }


@dataclass(frozen=True, slots=True)
class Group:
    """What has one name of what a bill is grouped by."""

    name: str
    facts: Mapping[str, str]  # of an endpoint: where it is, and its persona
    bill: Bill

    def document(self) -> dict[str, Any]:
        return {"name": self.name, **self.facts, **_document(self.bill)}


@dataclass(frozen=True, slots=True)
class Statement:
    """The bill of a server: what every endpoint and every training job that ever ran here cost,
    each at the prices of its region. `region` is the server's own.

    There are either groups, or endpoints and jobs.
    """

    region: str
    currency: str
    terms: Terms
    endpoints: tuple[EndpointStatement, ...] = ()
    jobs: tuple[JobStatement, ...] = ()
    groups: tuple[Group, ...] = ()

    @property
    def include_startup(self) -> bool:
        return self.terms.include_startup

    @property
    def total(self) -> Decimal:
        return total(bill.total for bill in self._bills)

    @property
    def complete(self) -> bool:
        return all(bill.complete for bill in self._bills)

    @property
    def _bills(self) -> list[Bill]:
        entries: list[Entry] = [*self.endpoints, *self.jobs, *self.groups]
        return [one.bill for one in entries]

    def document(self) -> dict[str, Any]:
        """JSON types; every amount of money and every quantity a decimal string."""
        document = {
            "region": self.region,
            "currency": self.currency,
            "total": _plain(self.total),
            "complete": self.complete,
            **self.terms.document(),
        }
        if self.terms.group_by:
            return document | {"groups": [one.document() for one in self.groups]}
        return document | {
            "endpoints": [one.document() for one in self.endpoints],
            "training_jobs": [one.document() for one in self.jobs],
        }


def draw_up(
    ledger: Usages,
    personas: Mapping[Key, str],
    tables: Tables,
    region: str,
    terms: Terms,
    now: int,
) -> Statement:
    """Price what the ledger holds. `personas` names the endpoints that are hosted now, which are
    listed even if they have not been used, `region` is the server's own and `now` its time.

    Raises ValidationException for an endpoint that has never been here, and for too many days.
    """
    if terms.endpoint:
        _check_endpoint(ledger, personas, terms.endpoint)
    parts, counts = Reading(ledger, terms, tables, now).parts()
    if terms.endpoint:
        parts = [part for part in parts if _is_of(part, terms.endpoint)]
        counts = {key: one for key, one in counts.items() if key.name == terms.endpoint}
        personas = {key: one for key, one in personas.items() if key.name == terms.endpoint}
    currency = tables.known(terms.region or region).latest.currency
    if terms.group_by:
        groups = _groups(parts, _NAMES[terms.group_by], currency)
        return Statement(region, currency, terms, groups=groups)
    jobs = [part for part in parts if part.record.persona == TRAINED]
    served = [part for part in parts if part.record.persona != TRAINED]
    return Statement(
        region,
        currency,
        terms,
        tuple(_endpoints(served, counts, personas, currency)),
        tuple(JobStatement(key, bill) for key, bill in _bills(jobs, (), currency).items()),
    )


def _check_endpoint(ledger: Usages, personas: Mapping[Key, str], name: str) -> None:
    records, counts = ledger.statement(False, None, None)
    known = {record.endpoint for record in records if record.persona != TRAINED}
    known |= {key.name for key in (*counts, *personas)}
    if name not in known:
        some = sorted(known)[:10]
        raise ValidationException(
            f"endpoint is {name[:80]!r}, which has never been here: the bill has "
            f"{', '.join(some) or 'none'}{' and others' if len(known) > len(some) else ''}."
        )


def _is_of(part: Part, name: str) -> bool:
    return part.record.endpoint == name and part.record.persona != TRAINED


def _endpoints(
    parts: list[Part], counts: Mapping[Key, Counts], personas: Mapping[Key, str], currency: str
) -> Iterable[EndpointStatement]:
    named = dict(personas)
    for part in parts:
        named.setdefault(part.record.key, part.record.persona)
    for key, counted in counts.items():
        named.setdefault(key, counted.persona)
    for key, bill in _bills(parts, named, currency).items():
        yield EndpointStatement(key, named[key], counts.get(key, Counts()), bill)


def _bills(parts: Iterable[Part], also: Iterable[Key], currency: str) -> dict[Key, Bill]:
    """A bill for each endpoint or job, by name."""
    counted: dict[Key, list[Counted]] = {key: [] for key in also}
    for part in parts:
        counted.setdefault(part.record.key, []).append(part.counted)
    return {
        key: Bill(key.home.region, currency, charge(counted[key]))
        for key in sorted(counted, key=lambda key: (key.name, key.home))
    }


_Named = tuple[str, tuple[tuple[str, str], ...]]


def _endpoint_of(part: Part) -> _Named:
    record = part.record
    facts = {"region": record.region, "account": record.account, "persona": record.persona}
    return record.endpoint, tuple(facts.items())


_NAMES: Mapping[GroupBy, Callable[[Part], _Named]] = {
    GroupBy.ENDPOINT: _endpoint_of,
    GroupBy.PERSONA: lambda part: (part.record.persona, ()),
    GroupBy.USAGE_TYPE: lambda part: (part.counted.usage_type, ()),
    GroupBy.REGION: lambda part: (part.record.region, ()),
    GroupBy.ACCOUNT: lambda part: (part.record.account, ()),
    GroupBy.DAY: lambda part: (part.day, ()),
}


def _groups(
    parts: Iterable[Part], name: Callable[[Part], _Named], currency: str
) -> tuple[Group, ...]:
    found: dict[_Named, list[Part]] = {}
    for part in parts:
        found.setdefault(name(part), []).append(part)
    return tuple(
        Group(
            named[0],
            dict(named[1]),
            Bill("", currency, charge(part.counted for part in found[named])),
        )
        for named in sorted(found)
    )


def _document(bill: Bill) -> dict[str, Any]:
    return {"total": _plain(bill.total), "lines": [line(charge) for charge in bill.charges]}


def line(charge: Charge) -> dict[str, Any]:
    """One line of the bill as JSON types."""
    return {
        "usage_type": charge.usage_type,
        "product_family": charge.family,
        "quantity": _plain(charge.quantity),
        "unit": charge.unit,
        "price": _plain(charge.price),
        "amount": _plain(charge.amount),
        "source": charge.source,
        "date": charge.date,
        "confidence": charge.confidence,
        "from": charge.since or None,
        "note": charge.note,
    }


def _plain(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"
