"""One zygote process and its children as the server sees them: what is asked of it over the control
socket, and what becomes of whom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emulator.core import Cause, Runtime
from emulator.sandbox import control as wire
from emulator.sandbox.logs import LogPipe
from emulator.sandbox.processes import Child, ending
from emulator.sandbox.protocol import EnvironmentFailed
from emulator.sandbox.surroundings import scrubbed

IMPORT_PATIENCE_S = 300.0  # a first import from a cold disk has been seen to take a minute
EXIT_PATIENCE_S = 5.0


class Zygote:
    """A zygote process as the server sees it. `on_lost` is called if it dies after it was up."""

    def __init__(
        self, home: Path, runtime: Runtime, isolation: str, on_lost: Callable[[], None]
    ) -> None:
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._message = ""
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[ForkedProcess]] = {}
        self._processes: dict[int, ForkedProcess] = {}
        self._control, theirs = wire.pair()
        output, log = os.pipe()
        self._log = LogPipe(output, None)
        arguments = [str(theirs.fileno()), str(os.getpid()), runtime, isolation]
        try:
            self._child = Child(
                "emulator.sandbox.zygote",
                arguments,
                [theirs.fileno()],
                log,
                scrubbed(os.environ, home),
                home,
            )
        except BaseException:
            self._log.close()
            self._control.close()
            raise
        finally:
            theirs.close()
            os.close(log)
        self._control.setblocking(False)
        self._loop.add_reader(self._control.fileno(), self._readable)
        self._child.gone.add_done_callback(self._bury)

    async def up(self) -> Zygote:
        """Wait for the import. Raises EnvironmentFailed (LOAD_FAILED) with the zygote's words."""
        await asyncio.wait(
            (self._ready, self._child.gone),
            timeout=IMPORT_PATIENCE_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._ready.done():
            return self
        await self.close()
        raise EnvironmentFailed(Cause.LOAD_FAILED, self._complaint())

    async def fork(self, connection: socket.socket, log: int) -> ForkedProcess:
        """Have an environment forked that talks on `connection` and writes to `log`. One at a
        time: forks queue here, where a caller may still change its mind."""
        async with self._turn:
            if self.lost:
                raise _orphan()
            number = next(self._numbers)
            order = {"kind": "start", "id": number}
            try:
                wire.send(self._control, order, [connection.fileno(), log])
            except (BrokenPipeError, ConnectionResetError):
                self._mourn()
                raise _orphan() from None
            future: asyncio.Future[ForkedProcess] = self._loop.create_future()
            self._waiting[number] = future
            return await future

    async def close(self) -> None:
        """Hang up, which the zygote takes as the end; kill it if it does not."""
        self._on_lost = _nothing
        self._mourn()
        await asyncio.wait((self._child.gone,), timeout=EXIT_PATIENCE_S if self._up() else 0)
        self._child.kill()
        await asyncio.wait((self._child.gone,), timeout=EXIT_PATIENCE_S)

    def kill(self, number: int) -> None:
        """Have a child killed, where there is no pidfd to do it with."""
        with contextlib.suppress(OSError):
            wire.send(self._control, {"kind": "kill", "id": number})

    def _up(self) -> bool:
        return self._ready.done()

    def _readable(self) -> None:
        if not self._listen():
            self._mourn()
            self._loop.call_later(EXIT_PATIENCE_S, self._child.kill)

    def _listen(self) -> bool:
        """Hear what has been said; False at the end."""
        while True:
            try:
                message, descriptors = wire.receive(self._control)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if message is None:
                return False
            self._heard(message, descriptors)

    def _heard(self, message: dict[str, Any], descriptors: list[int]) -> None:
        match message["kind"]:
            case "ready":
                self._ready.set_result(None)
            case "broken":
                self._message = message["message"]
            case "started":
                self._started(message, *descriptors)
            case "refused":
                refusal = OSError(f"the zygote cannot fork ({message['message']})")
                future = self._waiting.pop(message["id"])
                if not future.done():
                    future.set_exception(refusal)
            case "exited":
                self._processes.pop(message["id"]).end(ending(message["code"]))

    def _started(self, message: dict[str, Any], pidfd: int = -1) -> None:
        number = message["id"]
        process = ForkedProcess(self, number, message["pid"], message["shared"], pidfd)
        self._processes[number] = process
        future = self._waiting.pop(number)
        if future.done():  # its caller was cancelled meanwhile
            process.kill()
        else:
            future.set_result(process)

    def _mourn(self) -> None:
        """The zygote is gone, or is told to go, and its children with it."""
        if self.lost:
            return
        self.lost = True
        self._listen()  # its last words may come after the news of its end
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_orphan())
        for process in self._processes.values():
            process.orphan()
        if self._up():
            self._loop.call_soon(self._on_lost)

    def _bury(self, _: asyncio.Future[str]) -> None:
        self._mourn()
        self._log.close()

    def _complaint(self) -> str:
        if self._message:
            return f"The runtime cannot be imported: {self._message}"
        gone = self._child.gone
        how = f"ended {gone.result()}" if gone.done() else "did not come up in time"
        tail = " | ".join(list(self._log.tail)[-5:])
        said = f" Its last output: {tail}" if tail else ""
        return f"The zygote {how} while importing the runtime.{said}"


class ForkedProcess:
    """A child of the zygote. `pidfd` is a descriptor for it that this object owns, or -1."""

    def __init__(self, zygote: Zygote, number: int, pid: int, shared: int, pidfd: int) -> None:
        self.pid = pid
        self.shared: int | None = shared
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self._zygote = zygote
        self._number = number
        self._pidfd = pidfd

    def kill(self) -> None:
        if self.gone.done():
            return
        if self._pidfd < 0:
            self._zygote.kill(self._number)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self, how: str) -> None:
        """It has been reaped."""
        if self.gone.done():
            return
        self.gone.set_result(how)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def orphan(self) -> None:
        """The zygote is gone, so nobody will tell how it ends, only the pidfd that it does."""
        if self._pidfd < 0:
            self.end("")
        elif not self.gone.done():
            self.kill()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # its subprocesses, which the zygote ends else
            self._loop.add_reader(self._pidfd, self.end, "because the zygote did")


def _orphan() -> EnvironmentFailed:
    return EnvironmentFailed(Cause.DIED, "The process ended because the zygote did.")


def _nothing() -> None:
    """A zygote that was told to go is not replaced."""
