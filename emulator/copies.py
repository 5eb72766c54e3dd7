"""Copies of models on this machine: fetched, unpacked and checked once, shared by the endpoints
that run the same one, and removed with the last of them.

A model comes from `s3://`, from `file://`, or from a path of this machine. What cannot be served is
told in one sentence: an endpoint's FailureReason.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from emulator import artifacts
from emulator.address import Home
from emulator.archives import unpack
from emulator.endpoints import Container
from emulator.errors import SetupError

SUBMIT = "SAGEMAKER_SUBMIT_DIRECTORY"  # where the SDKs put the script, if not into the archive
REMOTE = ("s3://", "https://")  # of S3: nothing here uses a network
PROGRAM = "SAGEMAKER_PROGRAM"
ARCHIVE = "model.tar.gz"
T = TypeVar("T")
_Known = tuple[Home, str, str, tuple[str, str]]


class Objects(Protocol):
    """Where `s3://` leads. Each raises SetupError with one sentence if there is no such object."""

    async def stamp(self, url: str, home: Home) -> str:
        """What changes when the object does."""

    async def fetch(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        """Copy the object into the file `target`."""

    async def fetch_prefix(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        """Copy the objects below a prefix into the directory `target`, by their relative keys."""


class Copies:
    """The copies of one server, in a directory of their own."""

    def __init__(self, directory: Path, limit_bytes: int, objects: Objects) -> None:
        self._directory, self._limit, self._objects = directory, limit_bytes, objects
        self._known: dict[_Known, asyncio.Task[Path]] = {}
        # Copies have threads of their own: measuring memory must not wait behind gigabytes.
        self._copier = ThreadPoolExecutor(2, "lukewarm-models")

    async def obtain(self, container: Container, home: Home) -> Path:
        """A directory with the container's model, unpacked. Raises SetupError.

        A copy that is there is used again as long as its source has not changed.
        """
        stamp = await self._stamp(container, home)
        script = (container.variables.get(SUBMIT, ""), container.variables.get(PROGRAM, ""))
        key = (home, container.url, stamp, script)
        task = self._known.get(key)
        if task is None or (task.done() and not _usable(task)):
            task = asyncio.create_task(self._copy(container, home))
            self._known[key] = task
        return await asyncio.shield(task)

    async def keep(self, used: Iterable[str]) -> None:
        """Remove every copy that is in none of the directories `used`."""
        names = {Path(directory).name for directory in used}
        for key, task in list(self._known.items()):
            if task.done() and (not _usable(task) or task.result().name not in names):
                del self._known[key]
        copying = {task for task in self._known.values() if not task.done()}
        if copying or not self._directory.is_dir():
            return
        for entry in list(self._directory.iterdir()):
            if entry.name not in names:
                await self._in_thread(shutil.rmtree, entry, True)

    async def clear(self) -> None:
        """Remove all of them."""
        for task in self._known.values():
            task.cancel()
        self._known.clear()
        await self._in_thread(shutil.rmtree, self._directory, True)

    def close(self) -> None:
        for task in self._known.values():
            task.cancel()
        self._copier.shutdown(wait=False, cancel_futures=True)

    async def _stamp(self, container: Container, home: Home) -> str:
        if not container.url:
            raise SetupError("The model has no ModelDataUrl, and no image is run here by itself.")
        if container.url.startswith(REMOTE) and not container.prefix:
            return await self._objects.stamp(container.url, home)
        if container.url.startswith(REMOTE):
            return uuid.uuid4().hex  # what is below a prefix has no stamp of its own
        return await self._in_thread(_stamp, local(container.url))

    async def _copy(self, container: Container, home: Home) -> Path:
        target = self._directory / uuid.uuid4().hex
        fetched = target.with_suffix(".fetched")
        try:
            source = await self._source(container, home, fetched)
            prepare = (artifacts.prepare, source, target, self._limit, container.variables)
            try:
                await self._in_thread(*prepare)
            except SetupError as error:  # it knows where the model lies, not where it came from
                raise SetupError(str(error).replace(str(source), container.url)) from error
        except BaseException:
            await self._in_thread(shutil.rmtree, target, True)
            raise
        finally:
            await self._in_thread(shutil.rmtree, fetched, True)
        return target

    async def _source(self, container: Container, home: Home, fetched: Path) -> Path:
        url = container.url
        if not url.startswith(REMOTE):
            return local(url)
        await self._in_thread(_make, fetched)
        if container.prefix:
            place = fetched / "model"
            await self._objects.fetch_prefix(url, home, place, self._limit)
        else:
            place = fetched / ARCHIVE
            await self._objects.fetch(url, home, place, self._limit)
        code = container.variables.get(SUBMIT, "")
        return await self._with_code(code, home, place) if code.startswith("s3://") else place

    async def _with_code(self, url: str, home: Home, archive: Path) -> Path:
        """The model with a script that was uploaded beside it, as containers fetch it."""
        place, whole = archive.with_name("sourcedir.tar.gz"), archive.with_name("whole")
        await self._objects.fetch(url, home, place, self._limit)
        for packed, into in ((archive, whole), (place, whole / "code")):
            await self._in_thread(_make, into)
            await self._in_thread(unpack, packed, into, self._limit)
        return whole

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._copier, work, *arguments)


def local(url: str) -> Path:
    """The path that `file://` or a plain path names. Raises SetupError for what is neither."""
    if "\0" in url:
        raise SetupError(f"There is no model at {url!r}: no path has a NUL in it.")
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise SetupError(f"There is no model at {url}: it is on another machine.")
        return Path(unquote(parts.path))
    return Path(url)


def _stamp(source: Path) -> str:
    """Size and time of a file, of every file in a directory."""
    try:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        facts = [f"{file}:{file.lstat().st_mtime_ns}:{file.lstat().st_size}" for file in files]
    except OSError:
        return ""  # preparing it will say what is wrong
    return "\n".join(facts)


def _usable(task: asyncio.Task[Path]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result().is_dir()


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
