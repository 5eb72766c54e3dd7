"""How invocations get into the ledger: their rows, what they have in common, their roll-ups."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from emulator.ledger.rows import InvocationRow, Place
from emulator.ledger.schema import ADDED, MINUTE, ROLL, WIDTHS, packed

KNOWN = 10_000  # words and places that are remembered; those of others are looked up
LAST = "last-seq"  # in meta: the number of the last row there ever was, when rows are dropped

_APPEND = f"INSERT INTO calls VALUES ({', '.join('?' * 22)})"
_LAST = """
    SELECT MAX(IFNULL((SELECT MAX(seq) FROM calls), 0),
               IFNULL((SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?), 0))
"""
_MINUTES = ROLL.format(width=MINUTE, which="seq > ?")
_HOW = {
    "peak_bytes": "MAX(peak_bytes, excluded.peak_bytes)",
    "latencies": "merge_two(latencies, excluded.latencies)",
    "first": "MIN(first, excluded.first)",
    "last": "MAX(last, excluded.last)",
}
_ADD = (
    f"INSERT INTO {{table}} VALUES (?, ? / {{parts}}, {', '.join('?' * len(ADDED))})"
    " ON CONFLICT (place, start) DO UPDATE SET "
    + ", ".join(f"{name} = {_HOW.get(name, f'{name} + excluded.{name}')}" for name in ADDED)
)
_ADDS = [_ADD.format(table=table, parts=width // MINUTE) for table, width in WIDTHS.items()]
_place_of = attrgetter(*Place._fields)
_FIND_PLACE = "SELECT id FROM places WHERE " + " AND ".join(f"{n} = ?" for n in Place._fields)
_NEW_PLACE = f"INSERT INTO places VALUES (NULL, {', '.join('?' * len(Place._fields))})"


class Intake:
    """Takes rows in, within transactions of the writer's."""

    def __init__(self, writer: sqlite3.Connection) -> None:
        self._writer = writer
        self._known: dict[Any, int] = {}
        self._fresh: dict[Any, int] = {}  # of the transaction that runs
        self._last: int | None = None  # not known, until it is needed

    def take(self, rows: Iterable[InvocationRow]) -> None:
        """Write rows and add them to the roll-ups. Call `settle` when the transaction is over."""
        since = self.last
        self._writer.executemany(_APPEND, self._tuples(rows, since))
        rolls = self._writer.execute(_MINUTES, (since,)).fetchall()
        for add in _ADDS:
            self._writer.executemany(add, rolls)

    @property
    def last(self) -> int:
        """The number of the last row that there ever was. In a transaction."""
        if self._last is None:
            (self._last,) = self._writer.execute(_LAST, (LAST,)).fetchone()
        return self._last

    def forget(self) -> None:
        """Nothing is there any more, but numbers go on."""
        self._known, self._fresh = {}, {}

    def settle(self, committed: bool) -> None:
        """What was new is known from now on, or never was there."""
        if committed:
            self._known |= self._fresh
            if len(self._known) > KNOWN:
                self._known = {}
        else:
            self._known, self._last = {}, None
        self._fresh = {}

    def _tuples(self, rows: Iterable[InvocationRow], last: int) -> Iterator[tuple[Any, ...]]:
        for number, row in enumerate(rows, last + 1):
            self._last = number
            yield (
                number,
                packed(row.request_id),
                row.at_ns,
                self._number(_place_of(row), _FIND_PLACE, _NEW_PLACE),
                self._word(row.environment),
                row.status,
                self._word(row.error_code),
                row.cold_start,
                row.request_bytes,
                row.response_bytes,
                row.bytes_billed,
                row.queue_ns,
                row.provision_ns,
                row.runtime_ns,
                row.load_ns,
                row.model_ns,
                row.overhead_ns,
                row.cpu_ns,
                row.peak_bytes,
                row.billed_ms,
                row.billed_startup_ms,
                row.inference_id,
            )

    def _word(self, word: str) -> int:
        return self._number((word,), "SELECT id FROM words WHERE word = ?",
                            "INSERT INTO words VALUES (NULL, ?)")  # fmt: skip

    def _number(self, key: tuple[Any, ...], find: str, new: str) -> int:
        number = self._known.get(key) or self._fresh.get(key)
        if number is None:
            found = self._writer.execute(find, key).fetchone()
            number = found[0] if found else self._writer.execute(new, key).lastrowid
            assert number is not None  # SQLite has one after each INSERT
            self._fresh[key] = number
        return number
