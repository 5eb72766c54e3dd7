"""Scratch folders: HOME, TMPDIR and the working directory of one environment each, removed with
whatever was left in them when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Scratch:
    """The folders of one sandbox, in `root` or in the system's place for temporary files.

    Nobody else may use `root`: what lies there when the first folder is made was left by a server
    that was killed, and is removed.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._path: Path | None = None
        self._numbers = itertools.count(1)
        # Removing may take long; measuring memory must not wait behind it.
        self._remover = ThreadPoolExecutor(1, "lukewarm-scratch")

    @property
    def path(self) -> Path:
        """The directory that holds the folders. Raises OSError if it cannot be made."""
        if self._path is None:
            self._path = self._make()
        return self._path

    def folder(self) -> Path:
        """A new, empty folder that only this user can look into. Raises OSError."""
        folder = self.path / str(next(self._numbers))
        folder.mkdir(0o700)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder, soon. Does nothing once closed, which removes them all."""
        with contextlib.suppress(RuntimeError):
            self._remover.submit(remove, folder)

    async def close(self) -> None:
        """Remove every folder."""
        if self._path is not None:
            await self._in_thread(remove, self._path)
        self._remover.shutdown(wait=False)

    def _make(self) -> Path:
        if self._root is None:
            return Path(tempfile.mkdtemp(prefix="lukewarm-"))
        self._root.mkdir(parents=True, exist_ok=True)
        left = list(self._root.iterdir())
        path = self._root.resolve() / uuid.uuid4().hex
        path.mkdir(0o700)
        for entry in left:
            self.discard(entry)
        return path

    async def _in_thread(self, work: Callable[[Path], None], path: Path) -> None:
        with contextlib.suppress(RuntimeError):  # it has been closed before
            await asyncio.get_running_loop().run_in_executor(self._remover, work, path)


def remove(top: Path) -> None:
    """Remove a directory, whatever a model has made of it. Follows no link, never raises.

    Directories come up to the top before they are emptied, so neither the length of a path nor
    the depth of a recursion ends this early; and permissions that would are taken back.
    """
    if top.is_symlink() or not top.is_dir():
        with contextlib.suppress(OSError):
            top.unlink()
        return
    mark = uuid.uuid4().hex
    numbers = itertools.count()
    pending = [top]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError):
            folder.chmod(0o700)
            with os.scandir(folder) as entries:
                for entry in entries:
                    place = Path(entry.path)
                    if not entry.is_dir(follow_symlinks=False):
                        place.unlink()
                        continue
                    if folder != top:
                        place.chmod(0o700)  # which moving it needs
                        place = place.rename(top / f"{mark}-{next(numbers)}")
                    pending.append(place)
            folder.rmdir()
    with contextlib.suppress(OSError):
        top.rmdir()
