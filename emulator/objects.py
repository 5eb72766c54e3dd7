"""The embedded S3's objects in the state directory: a file for each, and an index of them all.

The index is SQLite, so that a server which is killed finds what it had answered for; it knows
nothing of HTTP and nothing of who serves the objects. What the index does not name is removed when
it is opened. One thread at a time may use it.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from emulator.errors import SetupError

APPLICATION_ID = 0x4C554B4F  # "LUKO"
VERSION = 1

_SCHEMA = """
    CREATE TABLE buckets (
        name TEXT PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL,
        created_us INTEGER NOT NULL, facts TEXT NOT NULL
    );
    CREATE TABLE objects (
        bucket TEXT NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL,
        etag TEXT NOT NULL, modified_us INTEGER NOT NULL, facts TEXT NOT NULL,
        PRIMARY KEY (bucket, key)
    );
"""


class BucketRow(NamedTuple):
    """A bucket. `facts` is JSON; instants are microseconds since the Unix epoch."""

    name: str
    account: str
    region: str
    created_us: int
    facts: str


class ObjectRow(NamedTuple):
    """The newest version of an object. `file` is a name below the folder of contents."""

    bucket: str
    key: str
    file: str
    size: int
    etag: str
    modified_us: int
    facts: str


class Objects:
    """The index and the files, in a directory of their own.

    Raises SetupError from the constructor if the index cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._index = directory / "index.sqlite"
        self._contents = directory / "contents"
        try:
            self._contents.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
            self._sweep()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._unusable(str(error)) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._index, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (program,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if (program, version) == (0, 0):
                connection.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                    f" PRAGMA user_version = {VERSION}; COMMIT;"
                )
            elif program != APPLICATION_ID:
                raise self._unusable("it is a database of another program")
            elif version > VERSION:
                raise self._unusable(f"a newer Lukewarm wrote it, schema {version}")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise self._unusable(f"it is damaged: {' '.join(verdict.split())}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _sweep(self) -> None:
        """Remove what no row names: bodies whose request was never answered."""
        named = {file for (file,) in self._connection.execute("SELECT file FROM objects")}
        for path in self._contents.glob("*/*"):
            if f"{path.parent.name}/{path.name}" not in named:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        self._connection.close()

    def new_file(self) -> Path:
        """A path for a content, which is not there yet. Any thread may ask."""
        name = uuid.uuid4().hex
        folder = self._contents / name[:2]
        folder.mkdir(exist_ok=True)
        return folder / name

    def path(self, file: str) -> Path:
        return self._contents / file

    def file(self, path: Path) -> str:
        """The name by which a row calls a path that `new_file` gave."""
        return f"{path.parent.name}/{path.name}"

    def buckets(self) -> Iterator[BucketRow]:
        for row in self._connection.execute("SELECT * FROM buckets ORDER BY created_us, name"):
            yield BucketRow._make(row)

    def objects(self, bucket: str) -> Iterator[ObjectRow]:
        query = "SELECT * FROM objects WHERE bucket = ? ORDER BY modified_us"
        for row in self._connection.execute(query, (bucket,)):
            yield ObjectRow._make(row)

    def put_bucket(self, row: BucketRow) -> None:
        self._connection.execute("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)", row)

    def delete_bucket(self, name: str) -> None:
        """Forget a bucket and whatever is in it."""
        for row in tuple(self.objects(name)):
            self.delete(row.bucket, row.key)
        self._connection.execute("DELETE FROM buckets WHERE name = ?", (name,))

    def get(self, bucket: str, key: str) -> ObjectRow | None:
        query = "SELECT * FROM objects WHERE bucket = ? AND key = ?"
        found = self._connection.execute(query, (bucket, key)).fetchone()
        return ObjectRow._make(found) if found else None

    def put(self, row: ObjectRow, held: Collection[Path] = ()) -> None:
        """Keep an object; the file of the one that it replaces goes after the index has changed,
        unless it is `held`, as that of a version that somebody may still ask for."""
        before = self.get(row.bucket, row.key)
        if before != row:
            self._connection.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)", row
            )
            if before and before.file != row.file:
                self._remove(before, held)

    def delete(self, bucket: str, key: str, held: Collection[Path] = ()) -> None:
        if before := self.get(bucket, key):
            self._connection.execute(
                "DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key)
            )
            self._remove(before, held)

    def _remove(self, row: ObjectRow, held: Collection[Path]) -> None:
        path = self.path(row.file)
        if path not in held:
            path.unlink(missing_ok=True)

    def _unusable(self, reason: str) -> SetupError:
        return SetupError(
            f"The index of S3 objects {self._index} cannot be used ({reason}): move the folder "
            f"{self._index.parent} away, or set EMULATOR_STATE_DIR to another folder."
        )
