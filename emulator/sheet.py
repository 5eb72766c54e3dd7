"""The bill as CSV: one row for each line, with what the line is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.billing import Bill
from emulator.ledger import TRAINED
from emulator.statement import Entry, Statement, line

_OF = ("group", "region", "account", "persona")
_LINE = ("usage_type", "product_family", "quantity", "unit", "price", "amount")
_ORIGIN = ("source", "date", "confidence", "from", "note")
COLUMNS = (*_OF, *_LINE, "currency", *_ORIGIN)


def sheet(statement: Statement) -> str:
    """All lines of the bill, with a row of titles. The cells of what has no price are empty."""
    out = io.StringIO(newline="")
    rows = csv.DictWriter(out, COLUMNS, extrasaction="ignore")
    rows.writeheader()
    for of, bill in _bills(statement):
        for charge in bill.charges:
            rows.writerow({**of, **line(charge), "currency": statement.currency})
    return out.getvalue()


def _bills(statement: Statement) -> Iterator[tuple[dict[str, Any], Bill]]:
    entries: list[Entry] = [*statement.endpoints, *statement.groups]
    for one in entries:
        yield _of(one.document()), one.bill
    for job in statement.jobs:
        yield {**_of(job.document()), "persona": TRAINED}, job.bill


def _of(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: document.get(name, "") for name in _OF}, "group": document["name"]}
