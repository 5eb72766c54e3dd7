"""The state directory: made, checked and locked, so that one process decides.

A limit is only a limit if one policy counts, so a second server, or a second worker of one, on
the same directory stops with a sentence.
"""

from __future__ import annotations

import fcntl
import os
from io import FileIO
from pathlib import Path

from emulator.errors import SetupError


class StateDirectory:
    """Exclusive use of a directory, until `close` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _take(path)
        (path / "url").unlink(missing_ok=True)  # a killed server's: somebody else may be there

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def scratch(self) -> Path:
        """Where environments have their scratch folders."""
        return self.path / "scratch"

    def announce(self, url: str) -> None:
        """Say where the server is, for the command line. Raises OSError."""
        if url:
            (self.path / "url").write_text(url)

    def close(self) -> None:
        (self.path / "url").unlink(missing_ok=True)
        self._lock.close()


def in_use(path: Path) -> bool:
    """Whether a server runs on that directory. Raises OSError if that cannot be told."""
    with (path / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _take(path: Path) -> FileIO:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileIO(path / "lock", "a+")
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().decode("ascii", "replace").strip() or "unknown"
        lock.close()
        raise SetupError(
            f"The state directory {path} is in use by another server (process {holder}): stop it, "
            "or set EMULATOR_STATE_DIR to another directory."
        ) from None
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
    except OSError as error:  # a full disk
        lock.close()
        raise _unusable(path, error) from None
    return lock


def _unusable(path: Path, error: OSError) -> SetupError:
    reason = error.strerror or str(error)
    return SetupError(
        f"The state directory {path} cannot be used ({reason}): mend that, or set "
        "EMULATOR_STATE_DIR to a directory that this user can write to."
    )
