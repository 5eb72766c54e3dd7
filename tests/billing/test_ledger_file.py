"""The ledger's file: crashes, full disks, and files that are something else."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.billing import UsageKind
from emulator.errors import SetupError
from emulator.ledger import APPLICATION_ID, VERSION, Counts, Ledger
from tests.billing.rows import DIGITS, row

ROOT = Path(__file__).parents[2]

APPENDING = """
import sys
from pathlib import Path
from emulator.billing import UsageKind
from emulator.ledger import Ledger
from tests.billing.rows import DIGITS, row

ledger = Ledger.open(Path(sys.argv[1]))
ledger.hold(DIGITS, "v", UsageKind.INSTANCE, "ml.m5.large", 1, 0)
batch = 0
while True:
    ledger.append([row(request_id=f"{batch}-{i}") for i in range(7)])
    ledger.beat(batch)
    print(batch, flush=True)
    batch += 1
"""

FILLING = """
import resource, sqlite3, sys
from pathlib import Path
from emulator.ledger import Ledger
from tests.billing.rows import DIGITS, row

ledger = Ledger.open(Path(sys.argv[1]))
ledger.append([row()] * 10)
_soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    ledger.append([row()] * 10_000)
except sqlite3.OperationalError as error:
    print("refused:", error)
print(ledger.counts()[DIGITS].invocations)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
ledger.append([row()] * 5)
print(ledger.counts()[DIGITS].invocations)
"""


def script(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_killed_process_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with script(APPENDING, path) as process:
        assert process.stdout
        reported = [next(process.stdout) for _batch in range(50)]
        process.send_signal(signal.SIGKILL)
        reported += process.stdout.readlines()
    last = int(reported[-1])

    ledger = Ledger.open(path)
    rows, _ = ledger.invocations(limit=10**6)
    ids = {one.request_id for one in rows}
    assert {f"{batch}-{i}" for batch in range(last + 1) for i in range(7)} <= ids
    assert len(rows) % 7 == 0  # a batch is there whole or not at all
    ledger.beat(10**9)  # the meter was closed at the killed process's last beat
    meters = [r.usage for r in ledger.usage() if r.usage.kind is UsageKind.INSTANCE]
    assert [usage.quantity - last in (0, 1) for usage in meters] == [True]
    ledger.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_write_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    with script(FILLING, tmp_path / "ledger.sqlite") as process:
        output, _ = process.communicate(timeout=60)
    refused, kept, after = output.splitlines()
    assert refused.startswith("refused: ")
    assert (kept, after) == ("10", "15")


def test_a_ledger_survives_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "a folder #1?" / "ledger.sqlite"
    first = Ledger.open(path)
    first.append([row()])
    first.put(("model", "m", b"{}"))
    first.close()
    first.close()
    second = Ledger.open(path)
    assert second.counts() == {DIGITS: Counts(1)}
    assert second.all("model") == [b"{}"]
    second.close()
    assert [file.name for file in path.parent.iterdir()] == ["ledger.sqlite"]


def test_a_relative_path_is_found_again_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger.open(Path("ledger.sqlite"))
    monkeypatch.chdir("/")
    ledger.append([row()])
    assert ledger.counts() == {DIGITS: Counts(1)}
    ledger.close()


def test_a_creation_that_was_cut_short_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    (tmp_path / "ledger.sqlite.new").write_bytes(b"half a header")
    (tmp_path / "ledger.sqlite.new-journal").write_bytes(b"of something")
    ledger = Ledger.open(path)
    ledger.append([row()])
    ledger.close()
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "state" / "ledger.sqlite"
    with pytest.raises(SetupError, match="EMULATOR_STATE_DIR") as refused:
        Ledger.open(path)
    assert str(path) in str(refused.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_in_the_ledgers_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"EMULATOR_STATE_DIR"):
        Ledger.open(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"x" * 100_000, b"SQLite format 3\x00 but not"], ids=len
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"ledger\.sqlite.*set EMULATOR_STATE_DIR"):
        Ledger.open(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE invocations (seq)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(SetupError, match="database of another program"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_newer_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(SetupError, match=rf"schema {VERSION + 1}.*upgrade Lukewarm"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger.open(path)
    ledger.append([row(request_id=f"r-{i}") for i in range(2_000)])
    ledger.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = b"\xa5" * 8192
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"ledger\.sqlite.*set EMULATOR_STATE_DIR"):
        Ledger.open(path)
    assert path.read_bytes() == content


def test_a_cut_off_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger.open(path)
    ledger.append([row()] * 2_000)
    ledger.close()
    content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"set EMULATOR_STATE_DIR"):
        Ledger.open(path)
    assert path.read_bytes() == content


def test_the_file_names_its_program_and_schema(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger.open(path)
    head = path.read_bytes()[:100]  # while it is open: the first bytes never wait in the log
    ledger.close()
    assert int.from_bytes(head[60:64], "big") == VERSION
    assert int.from_bytes(head[68:72], "big") == APPLICATION_ID
