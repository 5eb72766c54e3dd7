"""Model archives, tar files with or without gzip, unpacked within bounds: they are somebody else's.

Only plain files and directories come out of one, only below the place given, without their modes
and owners, and only as much as allowed; memory stays flat whatever is in it. Of zip files, which
.keras files are, only the list of what is in them is read.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from emulator.errors import SetupError

MAX_MEMBERS = 20_000
MAX_DEPTH = 64
MAX_NAME, MAX_PART = 1024, 255  # bytes; longer ones do not fit every file system
# Weights hardly shrink, zeros a thousandfold: what grows more than this is made to fill the disk.
MAX_GROWTH, FREE_GROWTH = 100, 100_000_000  # times the size packed, and bytes on top

BLOCK = 1 << 16  # what is read at once
# What stands before the content of one member: names of any length, and records of other tools.
HEADER_BYTES = 1 << 20
AFTER_THE_END = 1 << 20  # blocks are filled up with zeros
ZIP_LIST_BYTES = 1 << 20  # the list at the end of a zip file; 20,000 members have one as long

GZIP = b"\x1f\x8b"
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
DRIVE = re.compile(r"[A-Za-z]:")


def unpack(source: Path, target: Path, limit_bytes: int) -> None:
    """Unpack the archive `source` into the empty directory `target`.

    Raises SetupError with one sentence, and may leave something in `target`, if the archive is
    damaged, unsafe, or larger than `limit_bytes` unpacked; OSError if it cannot be written.
    """
    packed, unpacked, names = source.stat().st_size, 0, set[PurePosixPath]()
    with _stream(source) as stream, _complaining(source):
        stream.allow(HEADER_BYTES)
        readable = cast("IO[bytes]", stream)  # of a file, tarfile asks for `read` alone here
        with tarfile.open(fileobj=readable, mode="r|", bufsize=BLOCK) as archive:
            for number, member in enumerate(archive):
                archive.members.clear()  # type: ignore[attr-defined]  # it would remember them all
                if number >= MAX_MEMBERS:
                    raise SetupError(f"The archive {source} has more than {MAX_MEMBERS} members.")
                _refuse_unsafe(member, source)
                unpacked += member.size
                _refuse_large(f"The archive {source}", packed, unpacked, limit_bytes)
                stream.allow(member.size + BLOCK)
                _put(archive, member, target, names, source)
                stream.allow(HEADER_BYTES)
        stream.finish()


def check_zip(file: Path, title: str, limit_bytes: int) -> None:
    """Raises SetupError, which begins with `title`, if the zip file is damaged or says that it
    unpacks to more than is allowed. A reader takes no more out of it than it says.
    """
    try:
        with Listing(file) as listing, zipfile.ZipFile(listing) as content:
            unpacked = sum(member.file_size for member in content.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise SetupError(f"{title} is damaged: {error}; save it again.") from error
    _refuse_large(title, file.stat().st_size, unpacked, limit_bytes)


class Listing(io.FileIO):
    """A zip file of which no more than its list of members is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > ZIP_LIST_BYTES:
            raise zipfile.BadZipFile(f"its list of members has more than {ZIP_LIST_BYTES} bytes")
        return super().read(-1 if size is None else size)


def _refuse_large(title: str, packed: int, unpacked: int, limit_bytes: int) -> None:
    if unpacked > limit_bytes:
        raise SetupError(
            f"{title} unpacks to more than {limit_bytes} bytes, the limit of EMULATOR_MODEL_BYTES."
        )
    if unpacked > packed * MAX_GROWTH + FREE_GROWTH:
        raise SetupError(
            f"{title} is refused: its {packed} bytes unpack to more than {MAX_GROWTH} times as "
            "many; if the model is meant to be like that, give it as a directory."
        )


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Stream:
    """The unpacked bytes of an archive, given out as far as has been allowed."""

    def __init__(self, content: Readable, source: Path) -> None:
        self._content = content
        self._source = source
        self._allowed = 0

    def allow(self, size: int) -> None:
        """Give out `size` bytes from here on, and no more."""
        self._allowed = size

    def read(self, size: int) -> bytes:
        data = self._content.read(size)
        self._allowed -= len(data)
        if self._allowed < 0:
            raise SetupError(
                f"The archive {self._source} is refused: it goes on where a file should begin or "
                "end; pack it with `tar -czf`."
            )
        return data

    def finish(self) -> None:
        """Read what is left after the end, so that gzip compares its sum."""
        self.allow(AFTER_THE_END)
        while self.read(BLOCK):
            pass


@contextmanager
def _stream(source: Path) -> Iterator[Stream]:
    with source.open("rb") as file:
        begin = file.read(6)
        file.seek(0)
        for magic, kind in OTHERS.items():
            if begin.startswith(magic):
                raise SetupError(
                    f"The archive {source} is packed by {kind}; SageMaker takes gzip: pack it with "
                    "`tar -czf`."
                )
        with gzip.GzipFile(fileobj=file) if begin.startswith(GZIP) else file as content:
            yield Stream(content, source)


@contextmanager
def _complaining(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SetupError(f"The archive {source} is not a readable .tar.gz: {error}.") from error
    except (RecursionError, ValueError) as error:  # headers upon headers, sizes of no number
        raise SetupError(f"The archive {source} is damaged: its headers make no sense.") from error


def _refuse_unsafe(member: tarfile.TarInfo, source: Path) -> None:
    """Raises SetupError for a member that is not a plain file or directory within the target."""
    name = PurePosixPath(member.name)
    sizes = [len(os.fsencode(part)) for part in name.parts]
    if name.is_absolute() or ".." in name.parts or DRIVE.match(member.name):
        fault = "points out of it"
    elif "\\" in member.name or "\0" in member.name:
        fault = "is not a name that every system can have"
    elif len(sizes) > MAX_DEPTH or sum(sizes) > MAX_NAME or max([0, *sizes]) > MAX_PART:
        fault = "is too long or too deep"
    elif not (member.isfile() or member.isdir()):
        fault = "is a link or a device, not a file"
    elif member.issparse():
        fault = "is a sparse file; pack it without --sparse"
    elif member.size < 0 or (member.isfile() and not sizes):
        fault = "is no file that could be"
    else:
        return
    shown = member.name if len(member.name) <= 100 else member.name[:100] + "..."
    raise SetupError(f"The archive {source} is refused: {shown!r} {fault}.")


def _put(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: Path,
    names: set[PurePosixPath],
    source: Path,
) -> None:
    name = PurePosixPath(member.name)
    place = target.joinpath(*name.parts)
    try:
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if name not in names and place.exists():
            raise FileExistsError  # of another case, on a disk that makes no difference
        names.add(name)
        content = archive.extractfile(member)
        assert content is not None  # it is a file
        with content, place.open("wb") as out:
            shutil.copyfileobj(content, out, BLOCK)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        raise SetupError(
            f"The archive {source} is refused: it holds {member.name!r} twice, as a file and a "
            "directory or in another spelling."
        ) from None
