"""Ledgers of every earlier version, taken over with all that they hold."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from emulator.billing import UsageKind
from emulator.errors import SetupError
from emulator.ledger import APPLICATION_ID, VERSION, InvocationRow, Ledger
from emulator.ledger.check import check
from emulator.ledger.schema import DAY, HOUR, MIGRATIONS
from tests.billing.rows import DIGITS, row, throttled

ROOT = Path(__file__).parents[2]
ROWS = [
    row(request_id="0b4e6d2a-9c1f-4a54-8f7b-3d2a1c0b9e8f", at_ns=5),
    row(at_ns=HOUR, cold_start=True, load_ns=9, billed_startup_ms=400, environment="env-2"),
    throttled(at_ns=DAY, request_id="refused"),
    row(at_ns=DAY + 1, endpoint="other", provisioned=True, inference_id="mine"),
]
STOPS = """
import os, sqlite3, sys
from pathlib import Path
from emulator.ledger import Ledger
connect = sqlite3.connect
def breaking(*given, **more):
    made = connect(*given, **more)
    made.set_trace_callback(lambda text: "DROP TABLE earlier" in text and os._exit(9))
    return made
sqlite3.connect = breaking
Ledger.open(Path(sys.argv[1]))
"""


def written_by(version: int, path: Path, rows: list[InvocationRow]) -> None:
    """A ledger as that version left it, with the rows numbered from 3 on."""
    fields = [name for name in InvocationRow._fields if version > 1 or name != "account"]
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for _, statements in MIGRATIONS[:version]:
            for statement in statements:
                writer.execute(statement)
        writer.execute(f"PRAGMA user_version = {version}")
        writer.execute("INSERT INTO sqlite_sequence VALUES ('invocations', 2)")
        writer.executemany(
            f"INSERT INTO invocations ({', '.join(fields)})"
            f" VALUES ({', '.join('?' * len(fields))})",
            [[getattr(one, name) for name in fields] for one in rows],
        )
        writer.execute(
            "INSERT INTO meters (region, endpoint, variant, kind, sku, units, started_ns, until_ns,"
            " open) VALUES (?, ?, 'v', 'instance', 'ml.m5.large', 2, 0, ?, 1)",
            (DIGITS.home.region, DIGITS.name, HOUR),
        )
        writer.execute("INSERT INTO documents (kind, name, body) VALUES ('model', 'm', x'00ff')")
        writer.execute("INSERT INTO meta VALUES ('initialised', 'yes')")
        writer.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("version", range(1, VERSION))
def test_everything_is_taken_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    written_by(version, path, ROWS)
    ledger = Ledger.open(path)
    assert ledger.invocations()[0] == ROWS
    assert ledger.invocations(cursor=3)[0] == ROWS[1:]
    held = [one.usage for one in ledger.usage() if one.usage.kind is UsageKind.INSTANCE]
    assert [one.quantity for one in held] == [2 * HOUR]
    assert ledger.counts(DAY, 2 * DAY)[DIGITS].throttles == 1
    assert (ledger.all("model"), ledger.get_meta("initialised")) == ([b"\x00\xff"], "yes")
    fresh = Ledger.open(tmp_path / "fresh.sqlite")
    fresh.append(ROWS)
    for table, last in (("minutes", 2 * 1440), ("hours", 48), ("days", 2)):
        there, new = ledger.rolls(table, 0, last), fresh.rolls(table, 0, last)
        assert [one[:-2] for one in sorted(there)] == [one[:-2] for one in sorted(new)]
    for one in (ledger, fresh):
        one.close()
    assert check(path).faults == ()


@pytest.mark.parametrize("version", range(1, VERSION))
def test_numbers_go_on_where_no_row_is_left(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    written_by(version, path, [])
    ledger = Ledger.open(path)
    ledger.append([row()])
    assert ledger.invocations(cursor=2)[0] == [row()]
    assert ledger.invocations(cursor=3)[0] == []
    ledger.close()


def test_one_that_is_cut_short_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    written_by(2, path, ROWS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", STOPS, str(path)], env=environment, timeout=60)
    assert done.returncode == 9
    ledger = Ledger.open(path)
    assert ledger.invocations()[0] == ROWS
    ledger.close()
    assert check(path).faults == ()


def test_a_check_takes_nothing_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    written_by(2, path, ROWS)
    shutil.copy(path, tmp_path / "before")
    with pytest.raises(SetupError, match="it has schema 2; start a server on it once"):
        check(path)
    assert path.read_bytes() == (tmp_path / "before").read_bytes()
