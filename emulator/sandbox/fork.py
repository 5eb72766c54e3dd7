"""The `fork` backend: an environment is a fork of a zygote that has its runtime imported. Linux."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from emulator.core import Cause, Runtime
from emulator.sandbox.crew import Crew
from emulator.sandbox.environment import WorkerEnvironment
from emulator.sandbox.forking import Zygote
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.scratch import Scratch
from emulator.sandbox.spawn import SpawnSandbox


class ForkSandbox:
    """Starts environments by forking, from one zygote for each runtime that is asked for. Should a
    zygote die, its environments die with it and a new one takes its place at once; a start in
    flight is tried again on the new one. Scripts are spawned: a zygote could import nothing of
    what they need."""

    name = "fork"

    def __init__(self, scratch: Scratch, isolation: str, python: str = "") -> None:
        self._scratch = scratch
        self._fresh = SpawnSandbox(scratch, isolation, python)
        self._isolation = isolation
        self._crew = Crew(self._scratch)
        self._lines: dict[Runtime, Line] = {}
        self._closed = False

    async def open(self, runtime: Runtime = Runtime.TENSORFLOW) -> None:
        """Wait until a zygote has imported the runtime. Raises EnvironmentFailed (LOAD_FAILED)."""
        if runtime is Runtime.SCRIPT:
            return
        await self._zygote(runtime)

    async def start(self, spec: Spec) -> WorkerEnvironment:
        """Start one environment and load its model. Raises EnvironmentFailed."""
        requested_ns = time.monotonic_ns()
        if spec.runtime is Runtime.SCRIPT:
            return await self._fresh.start(spec)
        zygote = await self._zygote(spec.runtime)
        try:
            return await self._crew.launch(spec, zygote.fork, requested_ns)
        except EnvironmentFailed as failed:
            if not zygote.lost or failed.cause is not Cause.DIED:
                raise
        zygote = await self._zygote(spec.runtime)
        return await self._crew.launch(spec, zygote.fork, requested_ns)

    async def close(self) -> None:
        """End every environment, then the zygotes."""
        self._closed = True
        await asyncio.gather(self._crew.disband(), self._fresh.disband())
        await asyncio.gather(*(line.close() for line in self._lines.values()))
        await self._scratch.close()

    async def _zygote(self, runtime: Runtime) -> Zygote:
        if self._closed:
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox is closed.")
        if runtime not in self._lines:
            home, isolation = self._scratch.path, self._isolation
            self._lines[runtime] = Line(lambda lost: Zygote(home, runtime, isolation, lost))
        return await self._lines[runtime].zygote()


class Line:
    """The zygote of one runtime and those that take its place."""

    def __init__(self, begin: Callable[[Callable[[], None]], Zygote]) -> None:
        self._begin = begin
        self._current: Zygote | None = None
        self._opening: asyncio.Task[Zygote] | None = None
        self._closed = False

    async def zygote(self) -> Zygote:
        """The one that is up, or will be. Raises EnvironmentFailed if it does not come up."""
        opening = self._opening
        if opening is None or _useless(opening):
            opening = self._renew()
        await asyncio.wait((opening,))  # which leaves it alone when this caller is cancelled
        if opening.cancelled():
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox was closed.")
        return opening.result()

    async def close(self) -> None:
        """End it, and let none follow."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._current is not None:
            await self._current.close()

    def _renew(self) -> asyncio.Task[Zygote]:
        self._current = self._begin(self._replace)
        self._opening = asyncio.create_task(self._current.up())
        self._opening.add_done_callback(_seen)
        return self._opening

    def _replace(self) -> None:
        """At once, unless a start has been quicker."""
        if not self._closed and self._opening is not None and _useless(self._opening):
            self._renew()


def _useless(opening: asyncio.Task[Zygote]) -> bool:
    if not opening.done():
        return False
    return opening.cancelled() or opening.exception() is not None or opening.result().lost


def _seen(opening: asyncio.Task[Zygote]) -> None:
    """A failure in the background is told to whoever starts next, not to the loop."""
    if not opening.cancelled():
        opening.exception()
