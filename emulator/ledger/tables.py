"""Tables in files: one row after the other, in and out, as Parquet, CSV or JSON lines.

A file holds the fields of such a row, whose annotations say what may stand in it. Knows no ledger.
"""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import orjson

from emulator.errors import SetupError
from emulator.ledger.rows import InvocationRow, MeterRow

BATCH = 50_000  # rows that are in memory at once
_MOST = 2**63 - 1
Table = type[InvocationRow] | type[MeterRow]
Row = TypeVar("Row", InvocationRow, MeterRow)


class Format(NamedTuple):
    """How rows are written to a file, and read from one as mappings from field to value."""

    write: Callable[[Path, Table, Iterable[tuple[Any, ...]]], int]
    read: Callable[[Path], Iterator[Mapping[str, Any]]]


def write(path: Path, table: Table, rows: Iterable[tuple[Any, ...]]) -> int:
    """Make the file, in the format that its name ends in; the number of rows. It is there when it
    is complete, in place of one that was there before. Raises OSError."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        count = FORMATS[path.suffix[1:]].write(part, table, rows)
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return count


def read(path: Path, table: type[Row]) -> Iterator[Row]:
    """The rows of a file. Raises SetupError, which names file, row and field, for what is wrong."""
    kinds = get_type_hints(table)
    number = 0
    try:
        for given in FORMATS[path.suffix[1:]].read(path):
            number += 1
            yield table._make(_value(given, name, kinds[name]) for name in table._fields)
    except _Wrong as wrong:
        raise SetupError(f"{path.name} cannot be imported: in row {number} {wrong}.") from None
    except (ValueError, OSError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).partition("\n")[0].rstrip(".")
        raise SetupError(f"{path.name} cannot be read behind row {number}: {reason}.") from None


class _Wrong(Exception):
    pass


def _value(given: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in given or given[name] is None:
        raise _Wrong(f"the field {name} is missing")
    value = given[name]
    if kind is str and isinstance(value, str):
        return value
    if kind is bool:
        if value in (True, "true", "True", "1"):
            return True
        if value in (False, "false", "False", "0"):
            return False
    if kind is int and not isinstance(value, (bool, float)):
        with suppress(ValueError):
            if 0 <= int(value) <= _MOST:
                return int(value)
    wanted = {int: f"a whole number from 0 to {_MOST}", bool: "true or false", str: "text"}[kind]
    raise _Wrong(f"{name} is {str(value)[:60]!r}, which is not {wanted}")


def _write_lines(path: Path, table: Table, rows: Iterable[tuple[Any, ...]]) -> int:
    count = 0
    with path.open("wb") as file:
        for row in rows:
            made = dict(zip(table._fields, row, strict=True))
            file.write(orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            found = orjson.loads(line)
            if not isinstance(found, dict):
                raise ValueError("it is no JSON object")
            yield found


def _write_csv(path: Path, table: Table, rows: Iterable[tuple[Any, ...]]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table._fields)
        for row in rows:
            writer.writerow([str(one).lower() if isinstance(one, bool) else one for one in row])
            count += 1
    return count


def _read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file, strict=True)


def _write_parquet(path: Path, table: Table, rows: Iterable[tuple[Any, ...]]) -> int:
    import pyarrow as pa  # large, and only for this
    from pyarrow import parquet

    types = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
    kinds = get_type_hints(table)
    schema = pa.schema([(name, types[kinds[name]]) for name in table._fields])
    count = 0
    source = iter(rows)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(source, BATCH)):
            columns = list(zip(*batch, strict=True))
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(batch)
    return count


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


FORMATS: Mapping[str, Format] = {
    "parquet": Format(_write_parquet, _read_parquet),
    "csv": Format(_write_csv, _read_csv),
    "jsonl": Format(_write_lines, _read_lines),
}
