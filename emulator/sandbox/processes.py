"""The process behind an environment: what a backend provides to `environment.py`, and the child
of the server's own that `spawn` and the zygote are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

POLL_S = 0.005


class Process(Protocol):
    """What runs the worker's loop."""

    @property
    def pid(self) -> int: ...

    @property
    def shared(self) -> int | None:
        """The bytes that it shares with the process it was forked from; None for no sharing."""

    @property
    def gone(self) -> asyncio.Future[str]:
        """Resolves when it is gone, with how that happened ("with exit code 3") or ""."""

    def kill(self) -> None:
        """End it at once. Does nothing when it is gone."""


def ending(code: int) -> str:
    """An exit code in words; a negative one is a signal's number, as `subprocess` has it."""
    if code >= 0:
        return f"with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"by signal {-code} ({signal.Signals(-code).name})"
    return f"by signal {-code}"


def pidfd(pid: int) -> int:
    """A descriptor for the process that stays right when its number is given to another one; -1
    where the system has none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1


class Child:
    """A fresh Python process in its own session, running `module`, noticed the moment it ends.
    `python` is the interpreter's path.

    Its subprocesses go with it. It must be created in the loop's own thread: on Linux it asks to
    be killed when the thread that created it is gone.
    """

    shared: int | None = None

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        descriptors: Sequence[int],
        output: int,
        variables: Mapping[str, str],
        home: Path,
        python: str = sys.executable,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self._popen = subprocess.Popen(
            [python, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            env=dict(variables),
            cwd=home,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._pidfd = pidfd(self.pid)
        if self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, self._reap)
        else:
            self._poll()

    def kill(self) -> None:
        # Nobody else reaps it, so until `gone` the number cannot belong to another group.
        if not self.gone.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _poll(self) -> None:
        done = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if done is None:
            self._loop.call_later(POLL_S, self._poll)
        else:
            self._reap()

    def _reap(self) -> None:
        self.kill()  # what is left of its group, while its number is still its own
        code = self._popen.wait()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self.gone.set_result(ending(code))
