"""The tables of the ledger, and the way to them from every earlier version.

`PRAGMA user_version` counts the rows of MIGRATIONS that a file has been through. Roll-ups are made
by ROLL alone: when rows are written, when an older ledger is taken over, and when they are checked.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable

from emulator.errors import ThrottlingException
from emulator.ledger import histogram
from emulator.ledger.rows import InvocationRow, Place, Roll

APPLICATION_ID = 0x4C554B45  # "LUKE", in bytes 68-71 of the file
MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
WIDTHS = {"minutes": MINUTE, "hours": HOUR, "days": DAY}  # the tables of roll-ups, in nanoseconds

_FIRST = (
    """
    CREATE TABLE invocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, not after a reset
        request_id TEXT NOT NULL, at_ns INTEGER NOT NULL,
        endpoint TEXT NOT NULL, variant TEXT NOT NULL, persona TEXT NOT NULL,
        region TEXT NOT NULL, environment TEXT NOT NULL,
        status INTEGER NOT NULL, error_code TEXT NOT NULL,
        cold_start INTEGER NOT NULL, provisioned INTEGER NOT NULL,
        memory_mb INTEGER NOT NULL, instance_type TEXT NOT NULL,
        request_bytes INTEGER NOT NULL CHECK (request_bytes >= 0),
        response_bytes INTEGER NOT NULL CHECK (response_bytes >= 0),
        bytes_billed INTEGER NOT NULL,
        queue_ns INTEGER NOT NULL, provision_ns INTEGER NOT NULL,
        runtime_ns INTEGER NOT NULL, load_ns INTEGER NOT NULL,
        model_ns INTEGER NOT NULL, overhead_ns INTEGER NOT NULL,
        cpu_ns INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,
        billed_ms INTEGER NOT NULL CHECK (billed_ms >= 0),
        billed_startup_ms INTEGER NOT NULL CHECK (billed_startup_ms >= 0),
        inference_id TEXT NOT NULL
    )
    """,
    "CREATE INDEX invocations_by_endpoint ON invocations (endpoint)",
    "CREATE INDEX invocations_by_time ON invocations (at_ns)",
    """
    CREATE TABLE meters (
        id INTEGER PRIMARY KEY,
        region TEXT NOT NULL, endpoint TEXT NOT NULL, variant TEXT NOT NULL,
        kind TEXT NOT NULL, sku TEXT NOT NULL, units INTEGER NOT NULL CHECK (units > 0),
        started_ns INTEGER NOT NULL,
        until_ns INTEGER NOT NULL CHECK (until_ns >= started_ns),
        open INTEGER NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX open_meters ON meters (region, endpoint, variant, kind, sku)"
    " WHERE open = 1",
    """
    CREATE TABLE documents (
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
        UNIQUE (kind, name)
    )
    """,
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
_ACCOUNTS = (
    "ALTER TABLE invocations ADD COLUMN account TEXT NOT NULL DEFAULT '123456789012'",
    "ALTER TABLE meters ADD COLUMN account TEXT NOT NULL DEFAULT '123456789012'",
    "DROP INDEX open_meters",
    "CREATE UNIQUE INDEX open_meters"
    " ON meters (account, region, endpoint, variant, kind, sku) WHERE open = 1",
)

# -- version 3: what repeats is kept once, roll-ups ------------------------------------------------

_PLACES = f"""
    CREATE TABLE places (
        id INTEGER PRIMARY KEY,
        account TEXT NOT NULL, region TEXT NOT NULL, endpoint TEXT NOT NULL,
        variant TEXT NOT NULL, persona TEXT NOT NULL, provisioned INTEGER NOT NULL,
        memory_mb INTEGER NOT NULL, instance_type TEXT NOT NULL,
        UNIQUE ({", ".join(Place._fields)})
    )
"""
_WORDS = "CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE)"
# Rows come nearly in the order of time: the roll-ups say which numbers those of a minute have, so
# that no index by time is needed. A request's id has 16 bytes if it is a UUID as AWS writes them.
_CALLS = """
    CREATE TABLE calls (
        seq INTEGER PRIMARY KEY,  -- never used again, not after a reset
        request_id BLOB NOT NULL, at_ns INTEGER NOT NULL,
        place INTEGER NOT NULL REFERENCES places (id),
        environment INTEGER NOT NULL REFERENCES words (id),
        status INTEGER NOT NULL, error INTEGER NOT NULL REFERENCES words (id),
        cold_start INTEGER NOT NULL,
        request_bytes INTEGER NOT NULL CHECK (request_bytes >= 0),
        response_bytes INTEGER NOT NULL CHECK (response_bytes >= 0),
        bytes_billed INTEGER NOT NULL,
        queue_ns INTEGER NOT NULL, provision_ns INTEGER NOT NULL,
        runtime_ns INTEGER NOT NULL, load_ns INTEGER NOT NULL,
        model_ns INTEGER NOT NULL, overhead_ns INTEGER NOT NULL,
        cpu_ns INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,
        billed_ms INTEGER NOT NULL CHECK (billed_ms >= 0),
        billed_startup_ms INTEGER NOT NULL CHECK (billed_startup_ms >= 0),
        inference_id TEXT NOT NULL
    )
"""
_CALLS_BY_PLACE = "CREATE INDEX calls_by_place ON calls (place)"
_ROLLS = """
    CREATE TABLE {table} (
        place INTEGER NOT NULL REFERENCES places (id), start INTEGER NOT NULL,
        invocations INTEGER NOT NULL, cold_starts INTEGER NOT NULL, throttles INTEGER NOT NULL,
        errors INTEGER NOT NULL, faults INTEGER NOT NULL,
        billed_ms INTEGER NOT NULL, billed_startup_ms INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
        model_ms INTEGER NOT NULL, model_ns INTEGER NOT NULL, overhead_ns INTEGER NOT NULL,
        startup_ns INTEGER NOT NULL, cpu_ns INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,
        latencies BLOB NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (place, start)
    ) WITHOUT ROWID
"""
PLACED = "calls AS c JOIN places AS p ON p.id = c.place"
NAMED = (
    f"{PLACED} JOIN words AS e ON e.id = c.environment"
    " JOIN words AS w ON w.id = c.error"
)  # fmt: skip
_OF_PLACE = ("account", "region", "endpoint", "variant", "persona", "provisioned", "memory_mb",
             "instance_type")  # fmt: skip
_ELSEWHERE = {
    "request_id": "readable(c.request_id)",
    "environment": "e.word",
    "error_code": "w.word",
    **{name: f"p.{name}" for name in _OF_PLACE},
}
FIELDS = ", ".join(_ELSEWHERE.get(name, f"c.{name}") for name in InvocationRow._fields)
# For people with another SQLite, which has no function of ours.
_HEX = "lower(hex(c.request_id))"
_READABLE = (
    "CASE typeof(c.request_id) WHEN 'text' THEN c.request_id ELSE "
    + " || '-' || ".join(
        f"substr({_HEX}, {start}, {size})"
        for start, size in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    )
    + " END"
)
_VIEW = f"""
    CREATE VIEW invocations (seq, {", ".join(InvocationRow._fields)}) AS
    SELECT c.seq, {FIELDS.replace("readable(c.request_id)", _READABLE)} FROM {NAMED}
"""
_TO_PLACES = """
    INSERT INTO places (account, region, endpoint, variant, persona, provisioned, memory_mb,
                        instance_type)
    SELECT DISTINCT account, region, endpoint, variant, persona, provisioned, memory_mb,
                    instance_type FROM earlier
"""
_TO_WORDS = """
    INSERT INTO words (word)
    SELECT '' UNION SELECT environment FROM earlier UNION SELECT error_code FROM earlier
"""
_TO_CALLS = """
    INSERT INTO calls
    SELECT i.seq, packed(request_id), at_ns, p.id, e.id, status, w.id, cold_start, request_bytes,
           response_bytes, bytes_billed, queue_ns, provision_ns, runtime_ns, load_ns, model_ns,
           overhead_ns, cpu_ns, peak_bytes, billed_ms, billed_startup_ms, inference_id
    FROM earlier AS i
    JOIN places AS p USING (account, region, endpoint, variant, persona, provisioned, memory_mb,
                            instance_type)
    JOIN words AS e ON e.word = i.environment JOIN words AS w ON w.word = i.error_code
    ORDER BY i.seq
"""
# The rolls of rows. {width} is in nanoseconds. (`first` and `last` are numbers of rows.)
ROLL = f"""
    SELECT place, at_ns / {{width}} AS start, COUNT(*), SUM(cold_start),
           SUM(w.word = '{ThrottlingException.code}'),
           SUM(status >= 400 AND w.word <> '{ThrottlingException.code}'),
           SUM(status >= 500),
           SUM(billed_ms), SUM(billed_startup_ms),
           SUM(request_bytes * bytes_billed), SUM(response_bytes * bytes_billed),
           SUM((model_ns + 999999) / 1000000), SUM(model_ns), SUM(overhead_ns),
           SUM((provision_ns + runtime_ns + load_ns) * cold_start), SUM(cpu_ns), MAX(peak_bytes),
           histogram(IIF(w.word = '{ThrottlingException.code}', NULL, model_ns + overhead_ns)),
           MIN(seq), MAX(seq)
    FROM calls CROSS JOIN words AS w ON w.id = error
    WHERE {{which}} GROUP BY +place, start
"""
ADDED = Roll._fields[2:]  # what is added up, but for the following
_HOW = {"peak_bytes": "MAX", "first": "MIN", "last": "MAX", "latencies": "merged"}
SUMMED = ", ".join(f"{_HOW.get(name, 'SUM')}({name})" for name in ADDED)
_COARSER = (
    "INSERT INTO {table} SELECT place, start / {parts}, " + SUMMED + " FROM {finer}"
    " GROUP BY place, start / {parts}"
)
_ROLLED = (
    *(_ROLLS.format(table=table) for table in WIDTHS),
    "INSERT INTO minutes " + ROLL.format(width=MINUTE, which="true"),
    _COARSER.format(table="hours", finer="minutes", parts=HOUR // MINUTE),
    _COARSER.format(table="days", finer="hours", parts=DAY // HOUR),
)
_COMPACT = (
    "ALTER TABLE invocations RENAME TO earlier",
    _PLACES,
    _WORDS,
    _CALLS,
    _TO_PLACES,
    _TO_WORDS,
    _TO_CALLS,
    _CALLS_BY_PLACE,
    *_ROLLED,
    # Numbers go on where they were, whether there are rows left or not.
    "INSERT INTO meta SELECT 'last-seq', MAX(seq) FROM sqlite_sequence WHERE seq IS NOT NULL"
    " HAVING MAX(seq) IS NOT NULL",
    "DROP TABLE earlier",
    _VIEW,
)

MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("invocations, meters, documents, meta", _FIRST),
    ("accounts; until there were several, everything belonged to the default one", _ACCOUNTS),
    ("what repeats is kept once; roll-ups by minute, hour and day", _COMPACT),
)
VERSION = len(MIGRATIONS)


def migrate(writer: sqlite3.Connection, told: Callable[[int, str], object]) -> None:
    """Take a ledger to the newest version: the whole way, or not at all. `told` hears the number
    and the name of each step."""
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    teach(writer)
    writer.execute("BEGIN IMMEDIATE")
    try:
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for number, (name, statements) in enumerate(MIGRATIONS[version:], version + 1):
            told(number, name)
            for statement in statements:
                writer.execute(statement)
        writer.execute(f"PRAGMA user_version = {VERSION}")
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def teach(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that the statements use."""
    connection.create_function("packed", 1, packed, deterministic=True)
    connection.create_function("readable", 1, readable, deterministic=True)
    connection.create_function("merge_two", 2, histogram.merge, deterministic=True)
    connection.create_aggregate("histogram", 1, histogram.Histogram)  # type: ignore[arg-type]
    connection.create_aggregate("merged", 1, histogram.Merged)  # type: ignore[arg-type]


def packed(request_id: str) -> bytes | str:
    """16 bytes for a UUID in its usual form; anything else as it is."""
    try:
        found = uuid.UUID(request_id)
    except ValueError:
        return request_id
    return found.bytes if str(found) == request_id else request_id


def readable(request_id: bytes | str) -> str:
    return str(uuid.UUID(bytes=request_id)) if isinstance(request_id, bytes) else request_id
