"""What environments and training jobs print, kept in files of the state directory within bounds:
a folder for each endpoint, a file for each environment, a line of JSON for each line printed.

Lines are gathered for a moment and written by a thread, so that one of them costs a microsecond
or two. What is too much is left out, and said to be; what is oldest goes first. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote

import orjson

from emulator.address import Home
from emulator.core import MIB, MILLISECOND

log = logging.getLogger("lukewarm.logbook")

GATHERED_S = 0.2  # the most that a killed server loses
HELD_BYTES = MIB // 8  # of lines that are not written yet; above it they are left out
FILE_BYTES = MIB  # then a file begins anew, and the one before it is kept
STREAMS = 64  # of an endpoint; the ones that were written to last stay
ALL_BYTES = 256 * MIB  # of all endpoints
KEPT_S = 14 * 24 * 3600  # after the last line
OVERHEAD = 64  # bytes, about, that a line takes beside its text
PRUNED_EVERY = 256  # files that begin
TRAINING = "/TrainingJobs"  # no endpoint is called that
JOBS = 1000  # training jobs whose output stays
T = TypeVar("T")


class Stream(NamedTuple):
    """One environment of a variant; of the "endpoint" TRAINING, one instance of a job."""

    endpoint: str
    variant: str
    environment: str


class Event(NamedTuple):
    """One line, and when it was read, in milliseconds since the Unix epoch."""

    at_ms: int
    line: str


class Position(NamedTuple):
    """How far somebody has read: a file and a place in it."""

    inode: int = 0
    offset: int = 0


_Place = tuple[Home, Stream]


class Logbook:
    """The output of all environments of one server. `write` belongs to the event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, "logbook")
        self._lines: dict[_Place, list[bytes]] = {}
        self._held = 0
        self._left_out: dict[_Place, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._begun = 0
        self._failing = False

    def write(
        self, home: Home, endpoint: str, variant: str, environment: str, at_ns: int, line: str
    ) -> None:
        """Keep one line of an environment's output."""
        place = home, Stream(endpoint, variant, environment)
        if self._held > HELD_BYTES:
            self._left_out[place] = self._left_out.get(place, 0) + 1
            return
        made = orjson.dumps([at_ns // MILLISECOND, line.encode("utf-8", "replace").decode()])
        self._lines.setdefault(place, []).append(made)
        self._held += len(made) + OVERHEAD
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._gather())

    async def flush(self) -> None:
        """Have everything so far in the files."""
        while self._lines:
            await self._write_out()
        await self.call(lambda: None)

    async def reset(self) -> None:
        """Forget everything that was printed."""
        self._lines, self._left_out, self._held = {}, {}, 0
        await self.call(lambda: shutil.rmtree(self._directory, ignore_errors=True))

    async def close(self) -> None:
        """Write what is left. Safe to call twice."""
        if self._writing:
            self._writing.cancel()
            await asyncio.wait((self._writing,))
        with suppress(RuntimeError):  # closed before
            await self.flush()
        self._thread.shutdown(wait=False)

    async def call(self, work: Callable[[], T]) -> T:
        """Do something with the files, when nothing else does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _gather(self) -> None:
        while self._lines:
            await asyncio.sleep(GATHERED_S)
            await self._write_out()
        self._writing = None

    async def _write_out(self) -> None:
        lines, self._lines, self._held = self._lines, {}, 0
        left_out, self._left_out = self._left_out, {}
        for place, count in left_out.items():
            text = f"... {count} lines are left out: they came faster than they could be kept ..."
            at_ms = orjson.loads(lines[place][-1])[0] if place in lines else 0
            lines.setdefault(place, []).append(orjson.dumps([at_ms, text]))
        await self.call(lambda: self._append(lines))

    # -- in the thread ------------------------------------------------------------------------

    def _append(self, lines: dict[_Place, list[bytes]]) -> None:
        for place, made in lines.items():
            try:
                self._append_to(self.path(*place), b"\n".join(made) + b"\n")
            except OSError as error:
                if not self._failing:
                    log.error("What environments print cannot be kept: %s.", error)
                self._failing = True
            else:
                self._failing = False

    def _append_to(self, path: Path, text: bytes) -> None:
        new = not path.exists()
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif path.stat().st_size > FILE_BYTES:
            path.replace(_older(path))
            new = True
        with path.open("ab") as out:
            out.write(text)
        if new:
            self._begin(path)

    def _begin(self, path: Path) -> None:
        """A file has begun: see to the bounds."""
        of_jobs = path.parent.parent.name == _as_name(TRAINING)
        _prune(path.parent.parent.glob("*/*.log"), JOBS if of_jobs else STREAMS)
        self._begun += 1
        if self._begun % PRUNED_EVERY == 1:
            paths = sorted(self._directory.rglob("*.log"), key=_touched, reverse=True)
            total = 0
            for one in paths:
                total += sum(part.stat().st_size for part in (one, _older(one)) if part.exists())
                if total > ALL_BYTES or _touched(one) < time.time() - KEPT_S:
                    _remove(one)

    def streams(self, home: Home) -> list[Stream]:
        """Whose output there is. To be called by `call`, as the next ones are."""
        found = []
        base = self._directory / home.account / home.region
        for path in sorted(base.glob("*/*/*.log")):
            names = (path.parent.parent.name, path.parent.name, path.stem)
            found.append(Stream(*map(unquote, names)))
        return found

    def read(self, home: Home, stream: Stream, since: Position) -> tuple[list[Event], Position]:
        """The lines after a position, and the position after them."""
        path = self.path(home, stream)
        events: list[Event] = []
        position = since
        for one in (_older(path), path):
            with suppress(FileNotFoundError), one.open("rb") as file:
                inode = _inode(one)
                if one != path and inode != since.inode and since.inode == _inode(path):
                    continue  # read before
                file.seek(since.offset if inode == since.inode else 0)
                events += _parsed(file)
                position = Position(inode, file.tell())
        return events, position

    def delete(self, home: Home, stream: Stream) -> None:
        """Remove the output of an environment."""
        _remove(self.path(home, stream))

    def delete_endpoint(self, home: Home, endpoint: str) -> None:
        """Remove the output of all environments of an endpoint."""
        folder = self._directory / home.account / home.region / _as_name(endpoint)
        shutil.rmtree(folder, ignore_errors=True)

    def path(self, home: Home, stream: Stream) -> Path:
        """The file of a stream, which another process may write in the same form."""
        endpoint, variant, environment = map(_as_name, stream)
        folder = self._directory / home.account / home.region / endpoint / variant
        return folder / f"{environment}.log"


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _as_name(text: str) -> str:
    """A name of a file, from which `unquote` makes the text again."""
    return quote(text, safe="").replace(".", "%2E")


def _older(path: Path) -> Path:
    return path.with_suffix(".old")


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _prune(paths: Iterable[Path], most: int) -> None:
    for path in sorted(paths, key=_touched, reverse=True)[most:]:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _older(path).unlink(missing_ok=True)
    for folder in path.parents[:2]:  # of the variant and of the endpoint, if they are empty now
        with suppress(OSError):
            folder.rmdir()


def _parsed(file: Iterable[bytes]) -> Iterable[Event]:
    for line in file:
        with suppress(ValueError, TypeError):  # a killed server's last one may be cut
            yield Event(*orjson.loads(line))
