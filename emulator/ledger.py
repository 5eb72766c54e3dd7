"""The record of everything that was used: one SQLite file. The only file with SQL; knows no prices.

One writer connection appends; queries read a committed snapshot through connections of their own,
from any thread, while writing goes on (WAL). What `append` returned from survives the end of the
process; with `synchronous=NORMAL` the last moments before a loss of power may be missing, whole
transactions at a time. The writer never checkpoints, since that waits for the disk: call
`checkpoint` from a thread now and then. Nor does it wait for another process that has the file
locked: it raises, `busy` tells such an error from others, and the caller may try again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emulator.address import Home, Key
from emulator.billing import Usage, UsageKind
from emulator.core import MIB, NEVER, Persona
from emulator.errors import SetupError, ThrottlingException

APPLICATION_ID = 0x4C554B45  # "LUKE", in bytes 68-71 of the file
WAL_LIMIT = 256 * MIB  # above it a checkpoint makes the writer wait, some 50 ms
CHECKED_SIZE = 64 * MIB  # a larger file is not read through when it is opened
_EVER = -NEVER


class InvocationRow(NamedTuple):
    """One invocation, as it was answered. Times are nanoseconds, sizes bytes.

    The caller decides what is billed. A throttled call: `billed_ms` 0 and `bytes_billed` false. One
    that no environment ran: 0 ms. A ModelError of the container's own: as any answer, for Lambda
    bills failed invocations.
    """

    request_id: str
    at_ns: int  # arrival
    endpoint: str
    variant: str
    persona: str
    region: str
    environment: str  # "" if none was assigned
    status: int  # as the caller got it
    error_code: str  # "" if none
    cold_start: bool
    provisioned: bool
    memory_mb: int  # 0 for real-time
    instance_type: str  # "" for serverless
    request_bytes: int
    response_bytes: int
    bytes_billed: bool
    queue_ns: int
    provision_ns: int
    runtime_ns: int
    load_ns: int
    model_ns: int  # ModelLatency, the stretch for a share of a CPU included
    overhead_ns: int  # OverheadLatency, a serverless start included
    cpu_ns: int
    peak_bytes: int
    billed_ms: int
    billed_startup_ms: int  # the same if starting is billed too
    inference_id: str
    account: str


class Window(NamedTuple):
    """The rows of one variant from `from_ns` up to but without `to_ns`."""

    account: str
    region: str
    endpoint: str
    variant: str
    from_ns: int
    to_ns: int

    def wanted(self) -> dict[str, str | int]:
        return {
            "account": self.account,
            "region": self.region,
            "endpoint": self.endpoint,
            "variant": self.variant,
            "from": self.from_ns,
            "to": self.to_ns,
        }


class Sums(NamedTuple):
    """Samples that fall into one of the buckets that a window is cut into, the first being 0."""

    bucket: int
    samples: int
    total: float
    least: float
    most: float


class UsageRecord(NamedTuple):
    """What one variant used."""

    endpoint: str
    variant: str
    persona: str
    region: str
    account: str
    usage: Usage

    @property
    def key(self) -> Key:
        return Key(Home(self.account, self.region), self.endpoint)


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of one endpoint. `invocations` counts every request, as CloudWatch's Invocations
    does; `throttles` and `errors` (all other answers from 400 up) are parts of it."""

    invocations: int = 0
    cold_starts: int = 0
    throttles: int = 0
    errors: int = 0
    persona: str = field(default="", compare=False)


# Each row takes an older ledger one version up; PRAGMA user_version counts the rows applied.
_MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "invocations, meters, documents, meta",
        (
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
        ),
    ),
    (
        "accounts; until there were several, everything belonged to the default one",
        (
            "ALTER TABLE invocations ADD COLUMN account TEXT NOT NULL DEFAULT '123456789012'",
            "ALTER TABLE meters ADD COLUMN account TEXT NOT NULL DEFAULT '123456789012'",
            "DROP INDEX open_meters",
            "CREATE UNIQUE INDEX open_meters"
            " ON meters (account, region, endpoint, variant, kind, sku) WHERE open = 1",
        ),
    ),
)
VERSION = len(_MIGRATIONS)

_APPEND = (
    f"INSERT INTO invocations ({', '.join(InvocationRow._fields)})"
    f" VALUES ({', '.join('?' * len(InvocationRow._fields))})"
)
# Written out for each case: with `:endpoint IS NULL OR ...` the index would not be used. Rows come
# nearly in the order of time, so reading by `seq`, to which the unary plus keeps, reads less.
_PAGE = f"""
    SELECT seq, {", ".join(InvocationRow._fields)} FROM invocations
    WHERE seq > :after AND (:since IS NULL OR +at_ns >= :since)
    ORDER BY seq LIMIT :limit
"""
_PAGE_OF_ENDPOINT = _PAGE.replace("WHERE", "WHERE endpoint = :endpoint AND")
_SUMS = """
    SELECT endpoint, variant, persona, region, account, provisioned, memory_mb,
           SUM(billed_ms), SUM(billed_startup_ms),
           SUM(request_bytes * bytes_billed), SUM(response_bytes * bytes_billed),
           COUNT(*), SUM(cold_start),
           SUM(error_code = :throttled), SUM(status >= 400 AND error_code <> :throttled)
    FROM invocations WHERE {which}
    GROUP BY endpoint, variant, persona, region, account, provisioned, memory_mb
"""
_SUMS_OF_PERIOD = _SUMS.format(which="at_ns >= :from AND at_ns < :to")
_SUMS_AFTER = _SUMS.format(which="seq > :after")
_EXTENT = "SELECT (SELECT MIN(seq) FROM invocations), (SELECT MAX(seq) FROM invocations)"
_OPEN_METER = """
    SELECT id, units, until_ns FROM meters
    WHERE open = 1 AND account = ? AND region = ? AND endpoint = ? AND variant = ? AND kind = ?
      AND sku = ?
"""
_MOVE_METER = "UPDATE meters SET until_ns = ?, open = ? WHERE id = ?"
_START_METER = """
    INSERT INTO meters
        (account, region, endpoint, variant, kind, sku, units, started_ns, until_ns, open)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
"""
# Multiplied by the units outside: GB-nanoseconds of a few years would not fit 64 bits.
_HELD = """
    SELECT endpoint, variant, region, account, kind, sku, units,
           SUM(MIN(until_ns, :to) - MAX(started_ns, :from))
    FROM meters WHERE until_ns > :from AND started_ns < :to
    GROUP BY endpoint, variant, region, account, kind, sku, units
"""
# What CloudWatch samples of a row: the value, and which rows have one. Latencies in microseconds.
_EXECUTED = "environment <> ''"
_SAMPLES = {
    "invocations": ("1", "1"),
    "4xx": ("status BETWEEN 400 AND 499", "1"),
    "5xx": ("status >= 500", "1"),
    "model-errors": ("error_code IN ('ModelError', 'ModelStreamError')", "1"),
    "model-latency": ("model_ns / 1000.0", "model_ns > 0"),
    "overhead-latency": ("overhead_ns / 1000.0", "error_code <> 'ThrottlingException'"),
    "setup": (
        "(provision_ns + runtime_ns + load_ns) / 1000.0",
        "cold_start AND provision_ns + runtime_ns + load_ns > 0",
    ),
    "provisioned": ("provisioned", f"provisioned AND {_EXECUTED}"),
    "memory-mb": ("memory_mb", "1"),
    "peak-bytes": ("peak_bytes", "peak_bytes > 0"),
    "cpu-ns": ("cpu_ns", "1"),
}
# The unary plus keeps to the index by time: a look-back reads what is in it.
_SAMPLED = """
    SELECT (at_ns - :from) / :width AS bucket, {value} AS value FROM invocations
    WHERE at_ns >= :from AND at_ns < :to AND +region = :region AND +account = :account
      AND +endpoint = :endpoint AND +variant = :variant
      AND (:persona = '' OR persona = :persona) AND {which}
"""
_EXECUTIONS = f"""
    SELECT at_ns, at_ns + model_ns + overhead_ns, provisioned, environment FROM invocations
    WHERE at_ns >= :from AND at_ns < :to AND +region = :region AND +account = :account
      AND +endpoint = :endpoint AND +variant = :variant
      AND persona = 'serverless' AND {_EXECUTED}
    ORDER BY at_ns
"""
_UNITS = """
    SELECT started_ns, until_ns, units, sku FROM meters
    WHERE account = :account AND region = :region AND endpoint = :endpoint
      AND variant = :variant AND kind = :kind
      AND until_ns > :from AND started_ns < :to
    ORDER BY started_ns
"""
_ACTIVE = """
    SELECT endpoint, variant, persona, MAX(cold_start), MAX(provisioned) FROM invocations
    WHERE at_ns >= :from AND +region = :region AND +account = :account
    GROUP BY endpoint, variant, persona
"""
TRAINED = "training"  # stands for a persona: a job's usage, not an endpoint's
_METERED_BY: dict[UsageKind, str] = {
    UsageKind.PROVISIONED_USAGE: Persona.SERVERLESS,
    UsageKind.TRAINING: TRAINED,
}
_FLAGS = tuple(
    InvocationRow._fields.index(name) for name in ("cold_start", "provisioned", "bytes_billed")
)


_Place = tuple[str, str, str, str, str, UsageKind, str]
_Held = tuple[str, str, str, str, str, str, int, int]


class _Sum(NamedTuple):
    endpoint: str
    variant: str
    persona: str
    region: str
    account: str
    provisioned: int
    memory_mb: int
    billed_ms: int
    billed_startup_ms: int
    bytes_in: int
    bytes_out: int
    invocations: int
    cold_starts: int
    throttles: int
    errors: int


_KEY = _Sum._fields.index("billed_ms")


class _Folded(NamedTuple):
    """The sums of the rows from `first` to `last`: rows never change, so they are read once."""

    first: int
    last: int
    sums: list[_Sum]


class Ledger:
    """The ledger of one server. Writing methods may be called from any thread, one at a time gets
    through; each is one transaction and raises sqlite3.OperationalError, having changed nothing,
    if it cannot be written (a full disk, a file that was removed meanwhile)."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.path = path
        self._file = _identity(path)
        self._writer = writer
        self._turn = threading.Lock()
        self._folding = threading.Lock()
        self._folded = _Folded(0, 0, [])

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open the ledger at `path`, or create it together with its folder.

        Meters that a crash left running are closed at their last beat. Raises SetupError if the
        file is not a ledger, is damaged, comes from a newer version, or cannot be written; one
        that is refused is left as it was. That no other server has it open is the caller's to see
        to.
        """
        path = path.absolute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _create(path)
            _inspect(path)
            return cls(path, _connect(path))
        except OSError as error:
            raise unusable(path, error.strerror or str(error)) from error
        except sqlite3.OperationalError as error:
            raise unusable(path, str(error)) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # also in SQLite's own words
            raise unreadable(path, f"it is damaged: {error}") from error

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it. Safe to call twice."""
        with self._turn:
            self._writer.close()

    def append(self, rows: Iterable[InvocationRow]) -> None:
        """Record invocations: all of them, or none."""
        with self._transaction() as writer:
            writer.executemany(_APPEND, rows)

    def hold(
        self,
        endpoint: Key,
        variant: str,
        kind: UsageKind,
        sku: str,
        units: int,
        now_ns: int,
    ) -> None:
        """From now on `units` of the resource are held; 0 ends it. Raises ValueError below 0.

        A `now_ns` before what is already counted is taken as that instant: time is counted once.
        """
        if units < 0:
            raise ValueError(f"{endpoint.name}/{variant} cannot hold {units} of {kind} {sku!r}")
        key = (*endpoint.home, endpoint.name, variant, str(kind), sku)
        with self._transaction() as writer:
            running = writer.execute(_OPEN_METER, key).fetchone()
            if running:
                meter, held, counted_ns = running
                now_ns = max(now_ns, counted_ns)
                writer.execute(_MOVE_METER, (now_ns, held == units, meter))
                if held == units:
                    return
            if units:
                writer.execute(_START_METER, (*key, units, now_ns, now_ns))

    def beat(self, now_ns: int) -> None:
        """Count everything held up to now. What a crash can lose is the time since the last beat.

        Rows are updated in place: a meter that runs for a year is one row.
        """
        with self._transaction() as writer:
            writer.execute(
                "UPDATE meters SET until_ns = ?1 WHERE open = 1 AND until_ns < ?1", (now_ns,)
            )

    def put(self, *documents: tuple[str, str, bytes]) -> None:
        """Keep documents (kind, name, body), all of them or none; one of the same kind and name
        is replaced and keeps its place."""
        with self._transaction() as writer:
            writer.executemany(
                "INSERT INTO documents (kind, name, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body",
                documents,
            )

    def delete(self, *documents: tuple[str, str]) -> None:
        """Drop documents (kind, name), where there are such. Usage is never dropped with them."""
        with self._transaction() as writer:
            writer.executemany("DELETE FROM documents WHERE kind = ? AND name = ?", documents)

    def get(self, kind: str, name: str) -> bytes | None:
        """The document of that kind and name, or None."""
        with self._snapshot() as reader:
            found = reader.execute(
                "SELECT body FROM documents WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
        return found[0] if found else None

    def all(self, kind: str) -> list[bytes]:
        """All documents of a kind, in the order of their first `put`."""
        with self._snapshot() as reader:
            found = reader.execute(
                "SELECT body FROM documents WHERE kind = ? ORDER BY seq", (kind,)
            )
            return [body for (body,) in found]

    def put_meta(self, key: str, value: str) -> None:
        """Remember a word about the server, such as its virtual clock's last instant."""
        with self._transaction() as writer:
            writer.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def get_meta(self, key: str) -> str | None:
        """What was remembered under the key, or None."""
        with self._snapshot() as reader:
            found = reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def reset(self) -> None:
        """Forget everything: usage, meters, documents and what was remembered."""
        with self._transaction() as writer:
            for table in ("invocations", "meters", "documents", "meta"):
                writer.execute(f"DELETE FROM {table}")

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, so that it is used again from its start.

        To be called from a thread of its own. The writer goes on meanwhile; only a log that has
        outgrown WAL_LIMIT is cut back, and the writer waits for the last step of that.
        """
        with _opened(self.path, "rw", timeout=0) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            wal = _beside(self.path, "-wal")
            if wal.exists() and wal.stat().st_size > WAL_LIMIT:
                with self._turn:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def usage(
        self, from_ns: int | None = None, to_ns: int | None = None, include_startup: bool = False
    ) -> list[UsageRecord]:
        """What was used from `from_ns` up to but without `to_ns`, one record for each variant, kind
        and sku; deleted endpoints included. An invocation counts at its arrival, a meter by the
        nanoseconds inside. Adjoining periods add up to their union."""
        return self.statement(include_startup, from_ns, to_ns)[0]

    def counts(self, from_ns: int | None = None, to_ns: int | None = None) -> dict[Key, Counts]:
        """The requests that arrived in the period, by endpoint."""
        return self.statement(False, from_ns, to_ns)[1]

    def statement(
        self, include_startup: bool = False, from_ns: int | None = None, to_ns: int | None = None
    ) -> tuple[list[UsageRecord], dict[Key, Counts]]:
        """`usage` and `counts` of the same snapshot. Without a period, what an earlier call has
        added up is not read again."""
        period = {
            "from": _EVER if from_ns is None else from_ns,
            "to": NEVER if to_ns is None else to_ns,
        }
        with self._folding, self._snapshot() as reader:
            held = list(reader.execute(_HELD, period))
            if from_ns is None and to_ns is None:
                sums = self._fold(reader)
            else:
                sums = _sums(reader, _SUMS_OF_PERIOD, period)
        return _records(sums, held, include_startup), _counts(sums)

    def _fold(self, reader: sqlite3.Connection) -> list[_Sum]:
        first, last = reader.execute(_EXTENT).fetchone()
        if first is None:
            return []
        known = self._folded if self._folded.first == first else _Folded(first, 0, [])
        sums = _merged([*known.sums, *_sums(reader, _SUMS_AFTER, {"after": known.last})])
        self._folded = _Folded(first, last, sums)
        return sums

    def invocations(
        self,
        endpoint: str | None = None,
        since_ns: int | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> tuple[list[InvocationRow], int | None]:
        """A page of invocations in the order they were recorded, and the cursor of the next page
        (None after the last one)."""
        wanted = {"after": cursor or 0, "endpoint": endpoint, "since": since_ns, "limit": limit + 1}
        with self._snapshot() as reader:
            query = _PAGE if endpoint is None else _PAGE_OF_ENDPOINT
            found = reader.execute(query, wanted).fetchall()
        page = found[:limit]
        return [_row(row[1:]) for row in page], page[-1][0] if len(found) > limit else None

    def sampled(self, what: str, window: Window, width_ns: int, persona: str = "") -> list[Sums]:
        """The samples of a window, added up in buckets of `width_ns`; those without any are left
        out. `what` is a key of _SAMPLES."""
        value, which = _SAMPLES[what]
        query = (
            "SELECT bucket, COUNT(*), SUM(value), MIN(value), MAX(value) FROM"
            f" ({_SAMPLED.format(value=value, which=which)}) GROUP BY bucket ORDER BY bucket"
        )
        with self._snapshot() as reader:
            found = reader.execute(
                query, {**window.wanted(), "width": width_ns, "persona": persona}
            )
            return [Sums._make(row) for row in found]

    def ordered(
        self, what: str, window: Window, width_ns: int, persona: str = ""
    ) -> Iterator[tuple[int, float]]:
        """Each sample of a window with its bucket, by bucket and value."""
        value, which = _SAMPLES[what]
        query = f"{_SAMPLED.format(value=value, which=which)} ORDER BY bucket, value"
        with self._snapshot() as reader:
            yield from reader.execute(
                query, {**window.wanted(), "width": width_ns, "persona": persona}
            )

    def executions(self, window: Window) -> Iterator[tuple[int, int, int, str]]:
        """When each serverless request of a window arrived and was answered, whether by
        provisioned concurrency, and in which environment; in the order of arrival, without those
        that were not run."""
        with self._snapshot() as reader:
            yield from reader.execute(_EXECUTIONS, window.wanted())

    def units(self, kind: UsageKind, window: Window) -> list[tuple[int, int, int, str]]:
        """What a variant held in a window: from when, until when, how many units, and of what."""
        with self._snapshot() as reader:
            return reader.execute(_UNITS, {**window.wanted(), "kind": str(kind)}).fetchall()

    def active(self, home: Home, since_ns: int) -> list[tuple[str, str, str, bool, bool]]:
        """The variants with invocations since then: endpoint, variant, persona, whether there was
        a cold start among them, and whether provisioned concurrency served any."""
        with self._snapshot() as reader:
            wanted = {"from": since_ns, "region": home.region, "account": home.account}
            found = reader.execute(_ACTIVE, wanted)
            return [(e, v, persona, bool(cold), bool(pc)) for e, v, persona, cold, pc in found]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            if _identity(self.path) != self._file:
                # SQLite would go on writing to a file that nobody can find any more.
                raise sqlite3.OperationalError(
                    f"{self.path} was removed or replaced while the server ran; restart it"
                )
            writer = self._writer
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:  # SQLite has ended it by itself after some failures
                    writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with _opened(self.path, "ro") as reader:
            reader.execute("BEGIN")
            yield reader


def busy(error: BaseException) -> bool:
    """Whether a write failed only because another process has the file locked at the moment."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def unusable(path: Path, reason: str) -> SetupError:
    """The sentence for a ledger that cannot be opened where it is."""
    return SetupError(
        f"The ledger {path} cannot be used ({reason}): mend that, or set EMULATOR_STATE_DIR to "
        "another folder."
    )


def unreadable(path: Path, reason: str) -> SetupError:
    """The sentence for a ledger with the wrong content."""
    return SetupError(
        f"The ledger {path} cannot be used ({reason}): move it and {path.name}-wal away, or set "
        "EMULATOR_STATE_DIR to another folder."
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _opened(path: Path, mode: str, timeout: float = 5) -> Iterator[sqlite3.Connection]:
    """A connection that creates nothing."""
    uri = f"{path.as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, timeout, isolation_level=None, uri=True)) as connection:
        yield connection


def _create(path: Path) -> None:
    """Make an empty ledger under another name first: half a ledger is never found at `path`."""
    if _beside(path, "-wal").exists():
        raise unreadable(path, f"it is missing, though {path.name}-wal is there")
    part = _beside(path, ".new")
    for leftover in (part, _beside(part, "-journal"), _beside(part, "-wal")):
        leftover.unlink(missing_ok=True)
    with closing(sqlite3.connect(part, isolation_level=None)) as writer:
        _migrate(writer)
        writer.execute("PRAGMA journal_mode = WAL")
    part.replace(path)


def _inspect(path: Path) -> None:
    """Judge a file without changing it: by its first bytes, so that a foreign one stays untouched,
    then together with a log that a crash left, and page by page if that does not take long."""
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(b"SQLite format 3\0"):
        wrong = "it is not a ledger, or its beginning is damaged" if head else "it is empty"
        raise unreadable(path, wrong)
    if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise unreadable(path, "it is a database of another program")
    _check_version(path, int.from_bytes(head[60:64], "big"))
    # Closing a connection that may write would fold the log in, damaged or not. Only a journal of
    # before the first log has to be rolled back by somebody.
    with _opened(path, "rw" if _beside(path, "-journal").exists() else "ro") as reader:
        (program,) = reader.execute("PRAGMA application_id").fetchone()
        if program != APPLICATION_ID:
            raise unreadable(path, f"{path.name}-wal is the log of another database")
        (version,) = reader.execute("PRAGMA user_version").fetchone()
        _check_version(path, version)
        if path.stat().st_size <= CHECKED_SIZE:
            (verdict,) = reader.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise unreadable(path, f"it is damaged: {' '.join(verdict.split())}")


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise SetupError(
            f"The ledger {path} was written by a newer Lukewarm (schema {version}, this one knows "
            f"{VERSION}): upgrade Lukewarm, or set EMULATOR_STATE_DIR to another folder."
        )


def _connect(path: Path) -> sqlite3.Connection:
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _migrate(writer)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE meters SET open = 0 WHERE open = 1")
        writer.execute("PRAGMA busy_timeout = 0")  # from now on the event loop would wait with it
    except BaseException:
        writer.close()
        raise
    return writer


def _migrate(writer: sqlite3.Connection) -> None:
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for _name, statements in _MIGRATIONS[version:]:
        for statement in statements:
            writer.execute(statement)
    writer.execute(f"PRAGMA user_version = {VERSION}")
    writer.execute("COMMIT")


def _sums(reader: sqlite3.Connection, query: str, which: dict[str, int]) -> list[_Sum]:
    found = reader.execute(query, {**which, "throttled": ThrottlingException.code})
    return [_Sum._make(row) for row in found]


def _merged(parts: list[_Sum]) -> list[_Sum]:
    totals: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for part in parts:
        key, added = part[:_KEY], part[_KEY:]
        so_far = totals.get(key, (0,) * len(added))
        totals[key] = tuple(map(sum, zip(so_far, added, strict=True)))
    return [_Sum._make((*key, *total)) for key, total in totals.items()]


def _records(sums: list[_Sum], held: list[_Held], include_startup: bool) -> list[UsageRecord]:
    totals: Counter[_Place] = Counter()
    for place, quantity in (*_used(sums, include_startup), *_metered(held)):
        totals[place] += quantity
    return [
        UsageRecord(endpoint, variant, persona, region, account, Usage(kind, sku, quantity))
        for (endpoint, variant, persona, region, account, kind, sku), quantity in sorted(
            totals.items()
        )
        if quantity
    ]


def _used(sums: list[_Sum], include_startup: bool) -> Iterator[tuple[_Place, int]]:
    for one in sums:
        where = (one.endpoint, one.variant, one.persona, one.region, one.account)
        billed_ms = one.billed_startup_ms if include_startup else one.billed_ms
        provisioned = UsageKind.PROVISIONED_DURATION
        kind = provisioned if one.provisioned else UsageKind.SERVERLESS_DURATION
        yield (*where, kind, str(one.memory_mb)), billed_ms
        yield (*where, UsageKind.DATA_IN, one.persona), one.bytes_in
        yield (*where, UsageKind.DATA_OUT, one.persona), one.bytes_out


def _metered(held: list[_Held]) -> Iterator[tuple[_Place, int]]:
    for endpoint, variant, region, account, kind_name, sku, units, duration_ns in held:
        kind = UsageKind(kind_name)
        persona = str(_METERED_BY.get(kind, Persona.REALTIME))
        yield (endpoint, variant, persona, region, account, kind, sku), units * duration_ns


def _counts(sums: list[_Sum]) -> dict[Key, Counts]:
    counts: dict[Key, Counts] = {}
    for one in sums:
        key = Key(Home(one.account, one.region), one.endpoint)
        so_far = counts.get(key, Counts())
        counts[key] = Counts(
            so_far.invocations + one.invocations,
            so_far.cold_starts + one.cold_starts,
            so_far.throttles + one.throttles,
            so_far.errors + one.errors,
            one.persona,
        )
    return counts


def _row(values: tuple[object, ...]) -> InvocationRow:
    row = list(values)
    for flag in _FLAGS:
        row[flag] = bool(row[flag])
    return InvocationRow._make(row)
