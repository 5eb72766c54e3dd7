"""Ledger files that are damaged: refused with a sentence and left alone, or sound."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.address import Key
from emulator.billing import UsageKind
from emulator.errors import SetupError
from emulator.ledger import Ledger
from tests.billing.rows import DIGITS, HOME, row

PAGE = 4096
Damage = Callable[[random.Random, bytes], bytes]


def filled(path: Path, name: str, rows: int) -> Ledger:
    """A ledger of some pages, its log not yet folded in."""
    ledger = Ledger.open(path)
    ledger.put(("endpoint", name, b"{}" * 100))
    ledger.hold(Key(HOME, name), "v", UsageKind.INSTANCE, "ml.m5.large", 1, 0)
    for start in range(0, rows, 10):
        ids = range(start, start + 10)
        ledger.append([row(endpoint=name, request_id=f"{name}-{i}", at_ns=i * 997) for i in ids])
        ledger.beat(start)
    return ledger


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "ledger.sqlite"
    filled(path, "digits", 600).close()
    return path.read_bytes()


def cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def page(chance: random.Random, content: bytes) -> bytes:
    at = chance.randrange(len(content) // PAGE) * PAGE
    return content[:at] + chance.randbytes(PAGE) + content[at + PAGE :]


def some(chance: random.Random, content: bytes) -> bytes:
    at, size = chance.randrange(len(content)), chance.randrange(1, 200)
    return (content[:at] + chance.randbytes(size) + content[at + size :])[: len(content)]


def refusal(path: Path) -> str:
    """Why the ledger is refused; it and its log are as they were. Empty if it is not refused."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    try:
        Ledger.open(path).close()
    except SetupError as refused:
        after = {file: file.read_bytes() for file in before if file.exists()}
        assert after == before
        return str(refused)
    return ""


@pytest.mark.parametrize(("damage", "always"), [(cut, True), (page, True), (some, False)])
def test_damage_is_refused_or_harmless(
    tmp_path: Path, sound: bytes, damage: Damage, always: bool
) -> None:
    """Some bytes may fall on what is not used, or into a word or a number: nobody can tell."""
    chance = random.Random(11)
    for number in range(60):
        path = tmp_path / f"{number}" / "ledger.sqlite"
        path.parent.mkdir()
        path.write_bytes(damage(chance, sound))
        said = refusal(path)
        assert said or not always
        if said:
            assert f"The ledger {path} cannot be used (" in said
            assert "set EMULATOR_STATE_DIR" in said
            assert "\n" not in said
        else:
            ledger = Ledger.open(path)
            ledger.append([row(endpoint="after")])
            assert len(ledger.invocations("after")[0]) == 1
            ledger.close()


@pytest.mark.parametrize("rows", [20, 590, 900])
def test_the_log_of_another_ledger_is_refused(tmp_path: Path, sound: bytes, rows: int) -> None:
    """As after a backup that was put back beside the log of a crash."""
    other = filled(tmp_path / "other" / "ledger.sqlite", "stranger", rows)
    other.checkpoint()
    for i in range(5):
        other.append([row(endpoint="stranger", request_id=f"last-{i}", at_ns=10**9 + i)])
    path = tmp_path / "mine" / "ledger.sqlite"
    path.parent.mkdir()
    path.write_bytes(sound)
    shutil.copy(tmp_path / "other" / "ledger.sqlite-wal", tmp_path / "mine")
    other.close()
    assert "move it and ledger.sqlite-wal away" in refusal(path)


def test_the_log_of_another_program_is_refused(tmp_path: Path, sound: bytes) -> None:
    other = sqlite3.connect(tmp_path / "other", isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE notes (text)")
    path = tmp_path / "mine" / "ledger.sqlite"
    path.parent.mkdir()
    path.write_bytes(sound)
    shutil.copy(tmp_path / "other-wal", tmp_path / "mine" / "ledger.sqlite-wal")
    other.close()
    assert "ledger.sqlite-wal is the log of another database" in refusal(path)


def test_a_log_without_its_ledger_is_kept(tmp_path: Path) -> None:
    other = filled(tmp_path / "other" / "ledger.sqlite", "digits", 20)
    path = tmp_path / "mine" / "ledger.sqlite"
    path.parent.mkdir()
    shutil.copy(tmp_path / "other" / "ledger.sqlite-wal", path.parent)
    other.close()
    assert "it is missing, though ledger.sqlite-wal is there" in refusal(path)


def test_a_removed_ledger_takes_no_more(tmp_path: Path) -> None:
    """SQLite itself would write on, into a file without a name."""
    path = tmp_path / "ledger.sqlite"
    ledger = filled(path, "digits", 20)
    away = path.rename(tmp_path / "away")
    with pytest.raises(sqlite3.OperationalError, match=r"ledger\.sqlite was removed or replaced"):
        ledger.append([row()])
    away.rename(path)
    ledger.append([row()])
    assert ledger.counts()[DIGITS].invocations == 21
    ledger.close()
