"""What goes into a training job and what comes out of it: data and code from S3 or from this
machine, archives of the results to where they are wanted."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from emulator.address import Home
from emulator.archives import unpack
from emulator.copies import REMOTE, local
from emulator.errors import SetupError, ValidationException

ANYTHING = 1 << 60  # bytes; the disk is the limit
ARCHIVE = "application/x-tar"
T = TypeVar("T")


class Store(Protocol):
    """Where `s3://` leads. Each raises SetupError with one sentence."""

    async def keys(self, url: str, home: Home) -> list[str]:
        """All keys that begin as the one at `url`."""

    async def fetch(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        """Copy the object into the file `target`."""

    async def fetch_each(
        self, base: str, names: Iterable[str], home: Home, target: Path, limit_bytes: int
    ) -> None:
        """Copy the objects at `base` and each of the names to these names below `target`."""

    async def put(self, url: str, home: Home, source: Path, content_type: str = ...) -> None:
        """Store a copy of the file."""


class Channels:
    """The ways in and out of the jobs of one server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Threads of their own: measuring memory must not wait behind gigabytes.
        self._copier = ThreadPoolExecutor(2, "lukewarm-training")

    def close(self) -> None:
        self._copier.shutdown(wait=False, cancel_futures=True)

    async def apart(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what takes long with files in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._copier, work, *arguments)

    async def check(self, url: str, home: Home, role: str) -> None:
        """Raises ValidationException, for S3 in AWS's words, if nothing is at that address."""
        if not url.startswith(REMOTE):
            await self.apart(_check_local, url)
            return
        trouble = ""
        try:
            if await self._names(url, home):
                return
        except SetupError as error:
            trouble = f" {error}"
        bucket = url.partition("://")[2].partition("/")[0]
        raise ValidationException(
            f'No S3 objects found under S3 URL "{url}" given in input data source. Please ensure '
            f"that the bucket exists in the selected region ({home.region}), that objects exist "
            f'under that S3 prefix, and that the role "{role}" has "s3:ListBucket" permissions on '
            f'bucket "{bucket}".{trouble}'
        )

    async def check_output(self, url: str, home: Home) -> None:
        """Raises ValidationException if nothing can be stored at that address."""
        try:
            if url.startswith(REMOTE):
                await self._store.keys(f"{url.rstrip('/')}/-", home)
            elif not local(url).is_absolute():
                raise SetupError(f'"{url}" is no absolute path.')
        except SetupError as error:
            raise ValidationException(f'Nothing can be stored at "{url}": {error}') from None

    async def bring(self, url: str, home: Home, target: Path) -> None:
        """Copy what is at an address, a prefix or a single object, into the folder `target`. A
        prefix stands for what is below it as a folder, else for all keys that begin with it.

        Raises SetupError.
        """
        if not url.startswith(REMOTE):
            await self._copied(local(url), target)
            return
        base, names = (await self._names(url, home)) or (url, [])
        await self._store.fetch_each(base, names, home, target, ANYTHING)

    async def bring_code(self, url: str, home: Home, target: Path, limit_bytes: int) -> None:
        """Unpack an archive of code, or copy a folder, into the empty folder `target`. Raises
        SetupError."""
        if url.startswith(REMOTE):
            archive = target.with_name("sourcedir.tar.gz")
            await self._store.fetch(url, home, archive, limit_bytes)
            await self.apart(_unpack, url, archive, target, limit_bytes)
            archive.unlink()
            return
        source = local(url)
        if source.is_dir():
            await self._copied(source, target)
        else:
            await self.apart(_unpack, url, source, target, limit_bytes)

    async def deliver(self, source: Path, url: str, home: Home, content_type: str) -> None:
        """Store a file at an address. Raises SetupError."""
        if url.startswith(REMOTE):
            await self._store.put(url, home, source, content_type)
        else:
            await self.apart(_place, source, local(url))

    async def _copied(self, source: Path, target: Path) -> None:
        """Copy a file or a folder; when cancelled, the thread stops, too. Raises SetupError."""
        cancelled = threading.Event()
        try:
            await self.apart(_copy, source, target, cancelled)
        finally:
            cancelled.set()

    async def _names(self, url: str, home: Home) -> tuple[str, list[str]] | None:
        """The address of the folder that a prefix stands for, and names below it; None for none."""
        keys = await self._store.keys(url, home)
        bucket = "/".join(url.split("/")[:3])
        prefix = url.removeprefix(bucket).removeprefix("/")
        folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        found = [key for key in keys if key.startswith(folder) and not key.endswith("/")]
        if not found:
            found = [prefix] if prefix in keys else [key for key in keys if not key.endswith("/")]
            folder = prefix[: prefix.rfind("/") + 1]
        if not found:
            return None
        return f"{bucket}/{folder}", [key.removeprefix(folder) for key in found]


def refused(channel: Mapping[str, Any], mode: str) -> str:
    """Why a channel cannot be brought in here, as one sentence; empty if it can."""
    name = channel["ChannelName"]
    source = channel["DataSource"].get("S3DataSource")
    if name in (".", ".."):
        return f"The channel name {name!r} is no name of a folder."
    if source is None:
        return f"The channel {name} has no S3DataSource: other sources cannot be read here."
    if source["S3DataType"] != "S3Prefix":
        return (
            f"The channel {name} is a {source['S3DataType']}, which is not read here: give the "
            "data as an S3Prefix."
        )
    if channel.get("InputMode", mode) == "Pipe":
        return f"The channel {name} is in Pipe mode, which is not here: use File or FastFile."
    if channel.get("CompressionType", "None") != "None":
        return f"The channel {name} is to be decompressed, which File mode does not do."
    return ""


def pack(folder: Path, target: Path) -> None:
    """Make a .tar.gz of what is in a folder, as AWS's model.tar.gz: nobody's files, no links out.
    Raises OSError."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member if member.isfile() or member.isdir() else None

    with tarfile.open(target, "w:gz", compresslevel=1, dereference=False) as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, entry.name, filter=anonymous)


def _check_local(url: str) -> None:
    try:
        path = local(url)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return
    except (SetupError, OSError) as error:
        raise ValidationException(f'The data at "{url}" cannot be read: {error}') from None
    what = "an empty folder" if path.is_dir() else "no file or folder"
    raise ValidationException(f'There is {what} at "{url}": give the address of the data.')


def _copy(source: Path, target: Path, cancelled: threading.Event) -> None:
    def copy(one: str, other: str) -> None:
        if cancelled.is_set():
            raise asyncio.CancelledError
        shutil.copy2(one, other)

    try:
        if source.is_dir():
            shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    except (OSError, shutil.Error) as error:
        raise SetupError(f"{source} cannot be copied: {error}.") from None


def _place(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SetupError(f"{target} cannot be written ({reason}): name another place.") from None


def _unpack(url: str, archive: Path, target: Path, limit_bytes: int) -> None:
    try:
        unpack(archive, target, limit_bytes)
    except SetupError as error:  # it knows where the archive lies, not where it came from
        raise SetupError(str(error).replace(str(archive), url)) from error
    except OSError as error:
        raise SetupError(f"{url} cannot be unpacked: {error}.") from None
