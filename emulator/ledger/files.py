"""The ledger's file: made, judged before it is touched, opened; and the sentences about it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from emulator.core import MIB
from emulator.errors import SetupError
from emulator.ledger.schema import APPLICATION_ID, VERSION, migrate, teach

log = logging.getLogger("lukewarm.ledger")

MIGRATING = "The ledger (%d MiB) is brought to schema %d: %s."
CHECKED_SIZE = 64 * MIB  # a larger file is not read through when it is opened


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


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What is wrong with a file that is opened, as a SetupError."""
    try:
        yield
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error
    except sqlite3.OperationalError as error:
        raise unusable(path, str(error)) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # also in SQLite's own words
        raise unreadable(path, f"it is damaged: {error}") from error


def identity(path: Path) -> tuple[int, int] | None:
    """The same as long as it is the same file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def opened(path: Path, mode: str, timeout: float = 5) -> Iterator[sqlite3.Connection]:
    """A connection that creates nothing."""
    uri = f"{path.as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, timeout, isolation_level=None, uri=True)) as connection:
        teach(connection)
        yield connection


def create(path: Path) -> None:
    """Make an empty ledger under another name first: half a ledger is never found at `path`."""
    if beside(path, "-wal").exists():
        raise unreadable(path, f"it is missing, though {path.name}-wal is there")
    part = beside(path, ".new")
    for leftover in (part, beside(part, "-journal"), beside(part, "-wal")):
        leftover.unlink(missing_ok=True)
    with closing(sqlite3.connect(part, isolation_level=None)) as writer:
        migrate(writer, lambda *_: None)
        writer.execute("PRAGMA journal_mode = WAL")
    part.replace(path)


def inspect(path: Path) -> None:
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
    with opened(path, "rw" if beside(path, "-journal").exists() else "ro") as reader:
        (program,) = reader.execute("PRAGMA application_id").fetchone()
        if program != APPLICATION_ID:
            raise unreadable(path, f"{path.name}-wal is the log of another database")
        (version,) = reader.execute("PRAGMA user_version").fetchone()
        _check_version(path, version)
        if path.stat().st_size <= CHECKED_SIZE:
            (verdict,) = reader.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise unreadable(path, f"it is damaged: {' '.join(verdict.split())}")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A snapshot of a ledger whose server may write on. Raises SetupError if there is none, or one
    of another version."""
    path = path.absolute()
    with told(path):
        if not path.is_file():
            raise SetupError(f"There is no ledger {path}: name the state directory of a server.")
        inspect(path)
        with opened(path, "ro") as reader:
            reader.execute("BEGIN")
            (version,) = reader.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise unusable(path, f"it has schema {version}; start a server on it once")
            yield reader


def writing(path: Path) -> sqlite3.Connection:
    """The connection of the one writer, with the file brought up to the newest version."""
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        size = path.stat().st_size // MIB
        migrate(writer, lambda *step: log.warning(MIGRATING, size, *step))
        teach(writer)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE meters SET open = 0 WHERE open = 1")
        writer.execute("PRAGMA busy_timeout = 0")  # from now on the event loop would wait with it
    except BaseException:
        writer.close()
        raise
    return writer


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise SetupError(
            f"The ledger {path} was written by a newer Lukewarm (schema {version}, this one knows "
            f"{VERSION}): upgrade Lukewarm, or set EMULATOR_STATE_DIR to another folder."
        )
