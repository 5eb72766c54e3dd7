"""A bill by day and by what it is for: the rows that programs for spending take in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from emulator.billing import Charge, charge
from emulator.ledger import TRAINED
from emulator.periods import Part

Row = Mapping[str, object]


class Resource(NamedTuple):
    """What is paid for: an endpoint or a training job."""

    account: str
    region: str
    persona: str
    name: str

    @property
    def kind(self) -> str:
        return "training-job" if self.persona == TRAINED else "endpoint"

    @property
    def arn(self) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Day:
    """One line of the bill of one resource on one day, in UTC."""

    day: date
    resource: Resource
    charge: Charge

    @property
    def start(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        return self.start + timedelta(days=1)

    @property
    def month(self) -> tuple[datetime, datetime]:
        """When the calendar month begins, and the next one."""
        first = self.start.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)


def days(parts: Iterable[Part]) -> list[Day]:
    """The lines of parts that are cut by day, in the order of time; those without a price are left
    out, since what reads them takes a cost of 0 for free."""
    found: dict[tuple[str, Resource], list[Part]] = {}
    for part in parts:
        record = part.record
        resource = Resource(record.account, record.region, record.persona, record.endpoint)
        found.setdefault((part.day, resource), []).append(part)
    return [
        Day(date.fromisoformat(day), resource, line)
        for (day, resource), some in sorted(found.items())
        for line in charge(part.counted for part in some)
        if line.amount is not None
    ]


def sheet(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """As CSV, with a row of titles; what is None is an empty cell."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def stamp(at: datetime) -> str:
    """As FOCUS and AWS's reports write an instant."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
