"""What an environment is kept from: the network, writing anywhere but into its scratch folder, and
other processes. As much of it as the kernel allows without privileges; what that is gets reported.

A process goes in by steps, since some have to come before its first thread and some after the
import of the runtime: `enter`, `seal`, and in each environment `confine`.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from emulator.sandbox import kernel, landlock, namespaces, sockets

FULL, FILES, OFF = "full", "files", "off"
OPEN = {"network": "open", "files": "open", "signals": "open"}

NO_NETWORK = "It has no network; EMULATOR_ISOLATION=files gives environments this machine's."
NO_WRITING = (
    "It can write only below its working directory, which is HOME and TMPDIR, too; "
    "EMULATOR_ISOLATION=off lets environments write where the server can."
)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


class Enclosure:
    """The steps of one process. `wanted` is FULL, FILES (the network stays open) or OFF."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted if sys.platform == "linux" else OFF
        self._offered = 0
        self._sealed = False
        self._housed = False
        self._mounts: tuple[Path, ...] = ()

    def enter(self, writable: Path, furnished: bool = False) -> None:
        """While the process has one thread. `writable` is for `seal`; `furnished` says that
        `furnish` will be asked for, whatever else is wanted."""
        if self._wanted != OFF or (furnished and sys.platform == "linux"):
            self._offered = namespaces.enter(writable, network=self._wanted != FULL)

    def furnish(self, own: Path, place: Path) -> bool:
        """Have what is in `own` stand in the directory `place`, and shared memory of its own;
        whether that could be done."""
        if not self._offered & namespaces.MOUNTS:
            return False
        if not _done(partial(namespaces.furnish, own, place)):
            return False
        self._mounts = tuple(filter(Path.is_dir, (place, namespaces.SHARED_MEMORY)))
        self._housed = True
        return True

    def seal(self, writable: Path) -> None:
        """Nothing but what lies below `writable`, and what was furnished, can be changed from here
        on."""
        if self._wanted != OFF and self._offered & namespaces.MOUNTS:
            namespaces.seal(writable, self._mounts)
            self._sealed = True

    def confine(self, scratch: Path, port: int | None, also: Sequence[Path] = ()) -> dict[str, str]:
        """The rest, for an environment of its own: nothing but what lies below `scratch` and
        `also` can be changed, and no TCP connection made but to `port`. What is in force."""
        if self._wanted == OFF:
            return dict(OPEN)
        kernel.renounce()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        version = landlock.abi()
        alone = bool(self._offered & namespaces.NETWORK)
        closes = self._wanted == FULL and (alone or version >= landlock.NETWORK)
        closed = closes and _done(sockets.only_tcp)
        own = alone and self._housed  # its own loopback, which leads nowhere else
        restrict = partial(landlock.restrict, version, scratch, port, own or not closed, also)
        if not version or not _done(restrict):
            version, closed = 0, closed and alone
        return {
            "network": "none" if closed else "open",
            "files": self._files(version),
            "signals": "own" if version >= landlock.SCOPES else "open",
        }

    def _files(self, version: int) -> str:
        if version >= landlock.TRUNCATION or (version and self._sealed):
            return "read-only"
        if self._sealed:
            return "read-only but for all scratch folders"
        return "read-only but for truncation" if version else "open"


def _done(step: Callable[[], None]) -> bool:
    """Whether the kernel let it happen."""
    try:
        step()
    except OSError:
        return False
    return True


def hint(error: BaseException, in_force: Mapping[str, str]) -> str:
    """What in the isolation may have made this error, and the way out; empty if nothing."""
    for one in _chain(error):
        if not isinstance(one, OSError):
            continue
        about_a_file = one.filename is not None
        if in_force["files"] != "open" and about_a_file and one.errno in DENIED:
            return NO_WRITING
        lost = one.errno in (*UNREACHABLE, *DENIED) and not about_a_file
        if in_force["network"] != "open" and (lost or isinstance(one, socket.gaierror)):
            return NO_NETWORK
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, twenty at most."""
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
