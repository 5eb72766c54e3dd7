"""Bytes of an object that stay in a file: handed from place to place without being read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

PIECE = 1 << 20


@dataclass(slots=True)
class Content:
    """`size` bytes of a file from `start` on. `md5` is of exactly these, "" if it is not known.

    The file never changes; `len` and slices with a step of one work as with bytes.
    """

    path: Path
    size: int
    start: int = 0
    md5: str = ""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, wanted: slice) -> Content:
        start, stop, _ = wanted.indices(self.size)
        if (start, stop) == (0, self.size):
            return self
        return replace(self, start=self.start + start, size=max(0, stop - start), md5="")

    def read(self) -> bytes:
        """All of it, in memory."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """All of it, in pieces of at most PIECE bytes. Raises OSError."""
        with closing(self.open()) as reader:
            yield from reader

    def open(self) -> Reader:
        """A reader, which goes on after the file has been removed. Raises OSError."""
        return Reader(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), self.start, self.size)

    def digest(self) -> str:
        """The MD5, which is S3's ETag."""
        if not self.md5:
            md5 = hashlib.md5(usedforsecurity=False)
            for piece in self.pieces():
                md5.update(piece)
            self.md5 = md5.hexdigest()
        return self.md5

    def copy(self, target: Path) -> Content:
        """The same bytes in a file of their own: another name of this one where that will do."""
        if self.start == 0 and self.path.stat().st_size == self.size:
            try:
                os.link(self.path, target)
            except OSError:  # a file system without links
                shutil.copyfile(self.path, target)
        else:
            with target.open("xb") as out:
                for piece in self.pieces():
                    out.write(piece)
        return Content(target, self.size, md5=self.md5)


@dataclass(slots=True)
class Incoming(Content):
    """What a request brought, before it is anybody's. Who takes it says so."""

    taken: bool = False

    def __bool__(self) -> bool:
        return True  # also without bytes: an empty object is one

    def drop(self) -> None:
        """Remove the file, unless somebody has taken it."""
        if not self.taken:
            self.path.unlink(missing_ok=True)


class Reader:
    """An open file, read from one place to another."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._at, self.left = start, size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.piece():
            yield piece

    def piece(self) -> bytes:
        """The next bytes, none at the end. Raises OSError also where the file is too short."""
        if not self.left:
            return b""
        piece = os.pread(self._descriptor, min(PIECE, self.left), self._at)
        if not piece:
            raise OSError("a file of an object is shorter than the object")
        self._at += len(piece)
        self.left -= len(piece)
        return piece

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
