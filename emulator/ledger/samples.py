"""Rows one by one: pages of them, and what CloudWatch samples of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from emulator.address import Home
from emulator.ledger.rows import InvocationRow, Sums, Window
from emulator.ledger.schema import FIELDS, HOUR, MINUTE, NAMED

_PAGE = f"SELECT c.seq, {FIELDS} FROM {NAMED} WHERE c.seq IN ({{numbers}}) ORDER BY c.seq"
# Of one place the index has the numbers in order, and SQLite merges those of several as it reads.
_NUMBERS = """
    SELECT seq FROM calls WHERE {which} seq > :after
        AND (:since IS NULL OR seq >= :first AND at_ns >= :since)
"""
_LIMITED = "SELECT * FROM ({numbers} ORDER BY seq LIMIT :limit)"
_FIRST_SINCE = f"""
    SELECT IFNULL(MIN(first), 0) FROM places AS p CROSS JOIN minutes AS m
    WHERE m.place = p.id AND m.start >= :since / {MINUTE}
"""
# What CloudWatch samples of a row: the value, and which rows have one. Latencies in microseconds.
_EXECUTED = "e.word <> ''"
SAMPLES = {
    "invocations": ("1", "1"),
    "4xx": ("status BETWEEN 400 AND 499", "1"),
    "5xx": ("status >= 500", "1"),
    "model-errors": ("w.word IN ('ModelError', 'ModelStreamError')", "1"),
    "model-latency": ("model_ns / 1000.0", "model_ns > 0"),
    "overhead-latency": ("overhead_ns / 1000.0", "w.word <> 'ThrottlingException'"),
    "setup": (
        "(provision_ns + runtime_ns + load_ns) / 1000.0",
        "cold_start AND provision_ns + runtime_ns + load_ns > 0",
    ),
    "provisioned": ("provisioned", f"provisioned AND {_EXECUTED}"),
    "memory-mb": ("memory_mb", "1"),
    "peak-bytes": ("peak_bytes", "peak_bytes > 0"),
    "cpu-ns": ("cpu_ns", "1"),
}
_PLACES = f"""
    WITH wanted AS (
        SELECT id FROM places WHERE account = :account AND region = :region
            AND endpoint = :endpoint AND variant = :variant
            AND (:persona = '' OR persona = :persona)
    ), span AS (
        SELECT MIN(first) AS first, MAX(last) AS last FROM minutes
        WHERE place IN (SELECT id FROM wanted) AND start BETWEEN :from / {MINUTE} AND :to / {MINUTE}
    )
"""
_WHICH = """
    c.place IN (SELECT id FROM wanted)
    AND c.seq BETWEEN (SELECT first FROM span) AND (SELECT last FROM span)
    AND at_ns >= :from AND at_ns < :to
"""
_SAMPLED = f"""
    SELECT (at_ns - :from) / :width AS bucket, {{value}} AS value FROM {NAMED}
    WHERE {_WHICH} AND {{which}}
"""
_ADDED = (
    f"{_PLACES} SELECT bucket, COUNT(*), SUM(value), MIN(value), MAX(value) FROM ({_SAMPLED})"
    " GROUP BY bucket ORDER BY bucket"
)
_ORDERED = f"{_PLACES} {_SAMPLED} ORDER BY bucket, value"
_EXECUTIONS = f"""
    {_PLACES} SELECT at_ns, at_ns + model_ns + overhead_ns, provisioned, e.word FROM {NAMED}
    WHERE {_WHICH} AND {_EXECUTED} ORDER BY at_ns
"""
_ACTIVE = f"""
    SELECT endpoint, variant, persona, SUM(cold_starts) > 0, MAX(provisioned)
    FROM places AS p CROSS JOIN hours AS h
    WHERE p.account = :account AND p.region = :region AND h.place = p.id
        AND h.start >= :from / {HOUR}
    GROUP BY endpoint, variant, persona
"""
_FLAGS = tuple(
    InvocationRow._fields.index(name) for name in ("cold_start", "provisioned", "bytes_billed")
)


def page(
    reader: sqlite3.Connection,
    endpoint: str | None,
    since_ns: int | None,
    limit: int,
    after: int,
) -> list[tuple[int, InvocationRow]]:
    """The next rows after a number, with their numbers, in the order in which they were written."""
    wanted = {"after": after, "since": since_ns, "limit": limit, "first": 0}
    if since_ns is not None:
        (wanted["first"],) = reader.execute(_FIRST_SINCE, {"since": since_ns}).fetchone()
    which = [""]
    if endpoint is not None:
        found = reader.execute("SELECT id FROM places WHERE endpoint = ?", (endpoint,))
        which = [f"place = {number:d} AND" for (number,) in found]
    if not which:
        return []
    numbers = " UNION ALL ".join(_NUMBERS.format(which=one) for one in which)
    query = _PAGE.format(numbers=_LIMITED.format(numbers=numbers))
    return [(number, _row(values)) for number, *values in reader.execute(query, wanted)]


def sampled(
    reader: sqlite3.Connection, what: str, window: Window, width_ns: int, persona: str
) -> list[Sums]:
    """The samples of a window, added up in buckets of `width_ns`; those without any are left out.
    `what` is a key of SAMPLES."""
    value, which = SAMPLES[what]
    wanted = {**window.wanted(), "width": width_ns, "persona": persona}
    found = reader.execute(_ADDED.format(value=value, which=which), wanted)
    return [Sums._make(row) for row in found]


def ordered(
    reader: sqlite3.Connection, what: str, window: Window, width_ns: int, persona: str
) -> Iterator[tuple[int, float]]:
    """Each sample of a window with its bucket, by bucket and value."""
    value, which = SAMPLES[what]
    wanted = {**window.wanted(), "width": width_ns, "persona": persona}
    yield from reader.execute(_ORDERED.format(value=value, which=which), wanted)


def executions(reader: sqlite3.Connection, window: Window) -> Iterator[tuple[int, int, int, str]]:
    """When each serverless request of a window arrived and was answered, whether by provisioned
    concurrency, and in which environment; in the order of arrival, without those not run."""
    yield from reader.execute(_EXECUTIONS, {**window.wanted(), "persona": "serverless"})


def active(
    reader: sqlite3.Connection, home: Home, since_ns: int
) -> list[tuple[str, str, str, bool, bool]]:
    """The variants with invocations since the hour of `since_ns`: endpoint, variant, persona,
    whether there was a cold start among them, and whether provisioned concurrency served any."""
    wanted = {"from": since_ns, "region": home.region, "account": home.account}
    found = reader.execute(_ACTIVE, wanted)
    return [(e, v, persona, bool(cold), bool(pc)) for e, v, persona, cold, pc in found]


def _row(values: list[object]) -> InvocationRow:
    for flag in _FLAGS:
        values[flag] = bool(values[flag])
    return InvocationRow._make(values)
