"""A ledger's usage in files, for other programs and for other ledgers."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulator.errors import SetupError
from emulator.ledger import files, samples, tables
from emulator.ledger.book import Ledger
from emulator.ledger.rows import InvocationRow, MeterRow

INVOCATIONS, METERS = "invocations", "meters"
_TABLES: dict[str, tables.Table] = {INVOCATIONS: InvocationRow, METERS: MeterRow}
_METERS = f"""
    SELECT {", ".join(MeterRow._fields)} FROM meters
    WHERE until_ns > :from AND started_ns < :to AND until_ns > started_ns ORDER BY id
"""
_PAGE = 10_000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Moved:
    """How many rows went from or to which files."""

    invocations: int
    meters: int
    paths: tuple[Path, ...]


def export(ledger: Path, folder: Path, suffix: str, from_ns: int, to_ns: int) -> Moved:
    """Write what was used from `from_ns` up to but without `to_ns` into `folder`, as
    `invocations.SUFFIX` and `meters.SUFFIX`; meters are cut at the ends of the period. A server may
    go on writing: both are of one moment. Raises SetupError."""
    with files.reading(ledger) as reader:
        sources: dict[str, Iterator[tuple[object, ...]]] = {
            INVOCATIONS: _invocations(reader, from_ns, to_ns),
            METERS: _meters(reader, from_ns, to_ns),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = {name: folder / f"{name}.{suffix}" for name in sources}
            counts = {n: tables.write(paths[n], _TABLES[n], sources[n]) for n in sources}
        except OSError as error:
            reason = error.strerror or str(error)
            raise SetupError(f"{folder} cannot be written to: {reason}.") from None
    return Moved(counts[INVOCATIONS], counts[METERS], tuple(paths.values()))


def take_in(ledger: Ledger, folder: Path, again: bool = False) -> Moved:
    """Add what was exported into `folder` to a ledger: all of it, or nothing. Raises SetupError for
    files that are not as `export` makes them, and for those that it has already, unless `again`."""
    found = {name: _one(folder, name) for name in _TABLES}
    paths = [path for path in found.values() if path is not None]
    if not paths:
        ends = ", ".join(tables.FORMATS)
        raise SetupError(
            f"There is neither {INVOCATIONS} nor {METERS} in {folder} (with one of {ends})."
        )
    marks = {path: f"imported-{_digest(path)}" for path in paths}
    for path, mark in marks.items():
        if not again and ledger.get_meta(mark):
            raise SetupError(f"{path} is in the ledger already; --again adds it once more.")
    invocations, meters = found[INVOCATIONS], found[METERS]
    counts = ledger.add(
        tables.read(invocations, InvocationRow) if invocations else (),
        tables.read(meters, MeterRow) if meters else (),
        marks.values(),
    )
    return Moved(*counts, tuple(paths))


def _invocations(reader: sqlite3.Connection, from_ns: int, to_ns: int) -> Iterator[InvocationRow]:
    after = 0
    while page := samples.page(reader, None, from_ns, _PAGE, after):
        yield from (row for _, row in page if row.at_ns < to_ns)
        after = page[-1][0]


def _meters(reader: sqlite3.Connection, from_ns: int, to_ns: int) -> Iterator[MeterRow]:
    for values in reader.execute(_METERS, {"from": from_ns, "to": to_ns}):
        one = MeterRow._make(values)
        yield one._replace(
            started_ns=max(one.started_ns, from_ns), until_ns=min(one.until_ns, to_ns)
        )


def _one(folder: Path, name: str) -> Path | None:
    there = [path for end in tables.FORMATS if (path := folder / f"{name}.{end}").is_file()]
    if len(there) > 1:
        names = " and ".join(path.name for path in there)
        raise SetupError(f"{folder} holds {names}: leave one of them.")
    return there[0] if there else None


def _digest(path: Path) -> str:
    made = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()
