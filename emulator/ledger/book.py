"""The record of everything that was used: one SQLite file, which only this package knows. It knows
no prices.

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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emulator.address import Home, Key
from emulator.billing import UsageKind
from emulator.core import MIB
from emulator.errors import SetupError
from emulator.ledger import files, periods, samples
from emulator.ledger.intake import LAST, Intake
from emulator.ledger.rows import (
    ENVIRONMENTS,
    Counts,
    InvocationRow,
    MeterRow,
    Roll,
    Sums,
    UsageRecord,
    Window,
)
from emulator.ledger.schema import MINUTE, WIDTHS

WAL_LIMIT = 256 * MIB  # above it a checkpoint makes the writer wait, some 50 ms
DROPPED_AT_ONCE = 1000  # rows, while the writer waits

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
_ADD_METER = f"""
    INSERT INTO meters ({", ".join(MeterRow._fields)}, open)
    VALUES ({", ".join("?" * len(MeterRow._fields))}, 0)
"""
_UNITS = """
    SELECT started_ns, until_ns, units, sku FROM meters
    WHERE account = :account AND region = :region AND endpoint = :endpoint
      AND variant = :variant AND kind = :kind
      AND until_ns > :from AND started_ns < :to
    ORDER BY started_ns
"""
_PUT_META = (
    "INSERT INTO meta (key, value) VALUES (?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
# The rows before an instant that are next to go; the rolls say up to which number to look.
_DROP = f"""
    DELETE FROM calls WHERE seq IN (
        SELECT seq FROM calls
        WHERE at_ns < :before AND seq <= (
            SELECT MAX(last) FROM places AS p CROSS JOIN minutes AS m
            WHERE m.place = p.id AND m.start < :before / {MINUTE}
        )
        ORDER BY seq LIMIT :limit
    )
"""
TABLES = ("calls", *WIDTHS, "places", "words", "meters", "documents", "meta")


class Ledger:
    """The ledger of one server. Writing methods may be called from any thread, one at a time gets
    through; each is one transaction and raises sqlite3.OperationalError, having changed nothing,
    if it cannot be written (a full disk, a file that was removed meanwhile)."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.path = path
        self._file = files.identity(path)
        self._writer = writer
        self._intake = Intake(writer)
        self._turn = threading.Lock()
        self.revision = 0  # another number after each change of what was used

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open the ledger at `path`, or create it together with its folder.

        Meters that a crash left running are closed at their last beat. Raises SetupError if the
        file is not a ledger, is damaged, comes from a newer version, or cannot be written; one
        that is refused is left as it was. That no other server has it open is the caller's to see
        to.
        """
        path = path.absolute()
        with files.told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                files.create(path)
            files.inspect(path)
            return cls(path, files.writing(path))

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it. Safe to call twice."""
        with self._turn:
            self._writer.close()

    def append(self, rows: Iterable[InvocationRow]) -> None:
        """Record invocations: all of them, or none."""
        with self._transaction():
            self._intake.take(rows)
        self.revision += 1

    def add(
        self,
        invocations: Iterable[InvocationRow],
        meters: Iterable[MeterRow],
        marks: Iterable[str],
    ) -> tuple[int, int]:
        """Record what another ledger has recorded, and remember `marks` of it: all, or nothing. The
        numbers of invocations and meters. Raises SetupError for a meter of no kind."""
        with self._transaction() as writer:
            before = self._intake.last
            self._intake.take(invocations)
            held = writer.executemany(_ADD_METER, map(_known, meters)).rowcount
            writer.executemany(_PUT_META, [(mark, "yes") for mark in marks])
            return self._intake.last - before, max(0, held)

    def hold(
        self,
        endpoint: Key,
        variant: str,
        kind: str,
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
        self.revision += 1

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
            writer.execute(_PUT_META, (key, value))

    def get_meta(self, key: str) -> str | None:
        """What was remembered under the key, or None."""
        with self._snapshot() as reader:
            found = reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def reset(self) -> None:
        """Forget everything: usage, meters, documents and what was remembered."""
        with self._transaction() as writer:
            last = self._intake.last
            for table in TABLES:
                writer.execute(f"DELETE FROM {table}")
            writer.execute(_PUT_META, (LAST, str(last)))
            self._intake.forget()
        self.revision += 1

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, so that it is used again from its start.

        To be called from a thread of its own. The writer goes on meanwhile; only a log that has
        outgrown WAL_LIMIT is cut back, and the writer waits for the last step of that.
        """
        with files.opened(self.path, "rw", timeout=0) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            wal = files.beside(self.path, "-wal")
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
        """`usage` and `counts` of the same snapshot."""
        with self._snapshot() as reader:
            period = periods.bounds(from_ns, to_ns)
            return periods.statement(reader, *period, include_startup)

    def rolls(
        self, table: str, first: int, last: int, home: Home | None = None, endpoint: str = ""
    ) -> list[Roll]:
        """The calls added up by place and by minute, hour or day (`table`: "minutes", "hours",
        "days"), from the `first` up to but without the `last` since the Unix epoch: of all, of an
        account and region, of an endpoint."""
        which, wanted = ["true"], dict[str, str]()
        if home is not None:
            which.append("p.account = :account AND p.region = :region")
            wanted |= {"account": home.account, "region": home.region}
        if endpoint:
            which.append("p.endpoint = :endpoint")
            wanted["endpoint"] = endpoint
        with self._snapshot() as reader:
            return list(periods.rolls(reader, table, first, last, " AND ".join(which), wanted))

    def invocations(
        self,
        endpoint: str | None = None,
        since_ns: int | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> tuple[list[InvocationRow], int | None]:
        """A page of invocations in the order they were recorded, and the cursor of the next page
        (None after the last one)."""
        with self._snapshot() as reader:
            found = samples.page(reader, endpoint, since_ns, limit + 1, cursor or 0)
        rows = [row for _, row in found[:limit]]
        return rows, found[limit - 1][0] if len(found) > limit else None

    def sampled(self, what: str, window: Window, width_ns: int, persona: str = "") -> list[Sums]:
        """See `samples.sampled`."""
        with self._snapshot() as reader:
            return samples.sampled(reader, what, window, width_ns, persona)

    def ordered(
        self, what: str, window: Window, width_ns: int, persona: str = ""
    ) -> Iterator[tuple[int, float]]:
        """See `samples.ordered`."""
        with self._snapshot() as reader:
            yield from samples.ordered(reader, what, window, width_ns, persona)

    def executions(self, window: Window) -> Iterator[tuple[int, int, int, str]]:
        """See `samples.executions`."""
        with self._snapshot() as reader:
            yield from samples.executions(reader, window)

    def units(self, kind: str, window: Window) -> list[tuple[int, int, int, str]]:
        """What a variant held in a window: from when, until when, how many units, and of what."""
        with self._snapshot() as reader:
            return reader.execute(_UNITS, {**window.wanted(), "kind": str(kind)}).fetchall()

    def active(self, home: Home, since_ns: int) -> list[tuple[str, str, str, bool, bool]]:
        """The variants with invocations since then: endpoint, variant, persona, whether there was
        a cold start among them, and whether provisioned concurrency served any."""
        with self._snapshot() as reader:
            return samples.active(reader, home, since_ns)

    def drop(self, before_ns: int) -> int:
        """Drop the rows of whole minutes before that instant, and keep their roll-ups; the number
        of rows dropped. In steps, between which the writer goes on."""
        before_ns -= before_ns % MINUTE
        with self._transaction() as writer:
            writer.execute(_PUT_META, (LAST, str(self._intake.last)))
            known = writer.execute(
                "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?", (periods.DROPPED,)
            ).fetchone()
            if known is None or known[0] < before_ns:
                writer.execute(_PUT_META, (periods.DROPPED, str(before_ns)))
        dropped = 0
        while True:
            with self._transaction() as writer:
                wanted = {"before": before_ns, "limit": DROPPED_AT_ONCE}
                count = writer.execute(_DROP, wanted).rowcount
            dropped += count
            if count < DROPPED_AT_ONCE:
                return dropped

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            if files.identity(self.path) != self._file:
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
                self._intake.settle(False)
                raise
            self._intake.settle(True)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with files.opened(self.path, "ro") as reader:
            reader.execute("BEGIN")
            yield reader


def _known(meter: MeterRow) -> MeterRow:
    if meter.kind not in (*UsageKind, ENVIRONMENTS):
        kinds = ", ".join((*UsageKind, ENVIRONMENTS))
        raise SetupError(f"A meter's kind is {meter.kind!r}, which is none of {kinds}.")
    if meter.units < 1 or meter.until_ns < meter.started_ns:
        raise SetupError(
            f"A meter of {meter.endpoint} holds {meter.units} from {meter.started_ns} to "
            f"{meter.until_ns}: it must hold one at least, and end after its start."
        )
    return meter
