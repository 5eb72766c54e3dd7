"""The zygote: a process that imports a runtime once, runs no operation, and forks environments.

It may not run an operation because TensorFlow starts its threads with the first one, and threads
do not survive a fork. It lives as long as the server's end of the control socket, and its
children die with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from emulator.sandbox import control as wire
from emulator.sandbox.footprint import resident
from emulator.sandbox.isolation import Enclosure
from emulator.sandbox.worker import die_with, leave, serve, settle


def main(arguments: list[str]) -> None:
    """`python -m emulator.sandbox.zygote <descriptor of the socket> <server's pid> <runtime>
    <isolation>`"""
    descriptor, parent = map(int, arguments[:2])
    die_with(parent, signal.SIGTERM)
    settle()
    enclosure = Enclosure(arguments[3])
    with socket.socket(fileno=descriptor) as control:
        control.set_inheritable(False)
        try:
            enclosure.enter(Path.cwd())
            _prepare(arguments[2])
            enclosure.seal(Path.cwd())  # an import may write what it has compiled
        except BaseException as error:
            wire.send(control, {"kind": "broken", "message": f"{type(error).__name__}: {error}"})
            raise
        Zygote(control, enclosure).run()
    leave()


def _prepare(runtime: str) -> None:
    from model import inference

    inference.import_runtime(runtime)
    _reseed()  # which imports what the runtime leaves for later, and every child needs
    # Forking with a thread of the linear algebra library around is what we are here for: it
    # re-creates its threads after a fork.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")
    gc.collect()
    gc.freeze()  # the collector would write to every shared object, and so unshare its page


class Zygote:
    """Forks on request and reports what becomes of its children."""

    def __init__(self, control: socket.socket, enclosure: Enclosure) -> None:
        self._control = control
        self._enclosure = enclosure
        self._children: dict[int, int] = {}
        self._woken, self._wake = socket.socketpair()

    def run(self) -> None:
        """Serve until the server hangs up, then end the children."""
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, _quit)
        try:
            wire.send(self._control, {"kind": "ready"})
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server is gone
        finally:
            for pid in self._children:
                _end_group(pid)
            for pid in self._children:  # the server takes our end for theirs
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _serve(self) -> None:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if self._woken.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._reap()
            if self._control.fileno() in ready:
                message, descriptors = wire.receive(self._control)
                if message is None:
                    return
                self._obey(message, descriptors)

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["kind"] == "start":
            self._fork(message["id"], *descriptors)
        else:  # "kill": only where the server has no pidfd
            for pid, number in self._children.items():
                if number == message["id"]:
                    _end_group(pid)

    def _fork(self, number: int, connection: int, log: int) -> None:
        shared = resident()
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            wire.send(self._control, {"kind": "refused", "id": number, "message": str(error)})
        else:
            if pid == 0:
                _become(zygote, connection, log, shared, self._enclosure)
            self._children[pid] = number
            self._announce(number, pid, shared)
        os.close(connection)
        os.close(log)

    def _announce(self, number: int, pid: int, shared: int) -> None:
        message = {"kind": "started", "id": number, "pid": pid, "shared": shared}
        try:
            handle = os.pidfd_open(pid)  # before anybody reaps it, so it is surely this child's
        except OSError:
            wire.send(self._control, message)
            return
        wire.send(self._control, message, [handle])
        os.close(handle)

    def _reap(self) -> None:
        for pid in _zombies():
            _end_group(pid)  # its own subprocesses, while its number is still its own
            _, status = os.waitpid(pid, 0)
            number = self._children.pop(pid, None)
            if number is not None:
                code = os.waitstatus_to_exitcode(status)
                wire.send(self._control, {"kind": "exited", "id": number, "code": code})


def _become(zygote: int, connection: int, log: int, shared: int, enclosure: Enclosure) -> NoReturn:
    """Turn the fork into an environment: nothing of the zygote's is left but its memory."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        die_with(zygote, signal.SIGKILL)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _close_all_but(connection)
        _reseed()
        serve(socket.socket(fileno=connection), shared, enclosure)
        leave()
    except BaseException:  # noqa: BLE001 - the zygote's own stack must never be unwound here
        traceback.print_exc()
    finally:
        os._exit(1)


def _close_all_but(connection: int) -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        if (descriptor := int(entry.name)) > 2 and descriptor != connection:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.close(descriptor)


def _reseed() -> None:
    """Siblings must not draw the same numbers. `random` sees to itself after a fork."""
    import numpy.random

    numpy.random.seed()


def _zombies() -> Iterator[int]:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        yield ended.si_pid


def _end_group(pid: int) -> None:
    for end in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _quit(*_: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
