"""Roll-ups held against the rows that they were made of, and against each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulator.ledger import files
from emulator.ledger.periods import dropped_before
from emulator.ledger.rows import Roll
from emulator.ledger.schema import DAY, HOUR, MINUTE, ROLL, SUMMED

_COLUMNS = ("place", "start", *Roll._fields[2:])
_LIST = ", ".join(_COLUMNS)
_STORED = f"SELECT {_LIST} FROM {{table}} WHERE start >= :first"
_SUMMED_UP = (
    f"SELECT place, start / {{parts}} AS start, {SUMMED} FROM {{finer}}"
    " GROUP BY place, start / {parts}"
)
# What one side has and the other has not; a roll that differs is on both.
_DIFFER = """
    SELECT 0 AS made, * FROM (SELECT * FROM ({stored}) EXCEPT SELECT * FROM ({made}))
    UNION ALL
    SELECT 1, * FROM (SELECT * FROM ({made}) EXCEPT SELECT * FROM ({stored}))
"""
_WHERE = "SELECT endpoint, variant FROM places WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Fault:
    """A roll that is not the sum of its parts. `table` is "minutes", "hours" or "days", `start_ns`
    when it begins; `column` the first that differs ("" if the roll is missing or too many)."""

    table: str
    endpoint: str
    variant: str
    start_ns: int
    column: str
    stored: object
    counted: object


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at, and what was wrong with it."""

    rows: int
    rolls: int
    dropped_before_ns: int  # before it there are no rows to hold minutes against
    faults: tuple[Fault, ...]


def check(path: Path) -> Checked:
    """Hold the roll-ups of a ledger against its rows; a server may write on meanwhile. Raises
    SetupError if the file is no ledger of this version."""
    with files.reading(path) as reader:
        return _checked(reader)


def _checked(reader: sqlite3.Connection) -> Checked:
    dropped = dropped_before(reader)
    rows = ROLL.format(width=MINUTE, which=f"at_ns >= {dropped}")
    tables = (
        ("minutes", MINUTE, rows, dropped // MINUTE),
        ("hours", HOUR, _SUMMED_UP.format(parts=HOUR // MINUTE, finer="minutes"), 0),
        ("days", DAY, _SUMMED_UP.format(parts=DAY // HOUR, finer="hours"), 0),
    )
    faults: list[Fault] = []
    rolls = 0
    for table, width, made, first in tables:
        rolls += reader.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        faults += _faults(reader, table, width, made, first)
    (count,) = reader.execute("SELECT COUNT(*) FROM calls").fetchone()
    return Checked(count, rolls, dropped, tuple(faults))


def _faults(
    reader: sqlite3.Connection, table: str, width: int, made: str, first: int
) -> Iterator[Fault]:
    query = _DIFFER.format(stored=_STORED.format(table=table), made=made)
    differing: dict[tuple[int, int], dict[int, tuple[object, ...]]] = {}
    for side, *values in reader.execute(query, {"first": first}):
        differing.setdefault((values[0], values[1]), {})[side] = tuple(values)
    for (place, start), sides in sorted(differing.items()):
        endpoint, variant = reader.execute(_WHERE, (place,)).fetchone() or ("?", "?")
        where = (table, endpoint, variant, start * width)
        stored, counted = sides.get(0), sides.get(1)
        if stored is None or counted is None:
            yield Fault(*where, "", stored and "there", counted and "there")
            continue
        column = next(n for n, a, b in zip(_COLUMNS, stored, counted, strict=True) if a != b)
        number = _COLUMNS.index(column)
        yield Fault(*where, column, stored[number], counted[number])
