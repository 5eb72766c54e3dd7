"""The `fork` backend: an environment is a fork of a zygote that has TensorFlow imported. Linux."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from emulator.core import Cause
from emulator.sandbox.crew import Crew
from emulator.sandbox.environment import WorkerEnvironment
from emulator.sandbox.forking import Zygote
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.surroundings import scratch


class ForkSandbox:
    """Starts environments by forking. Should the zygote die, its environments die with it and a
    new one takes its place at once; a start in flight is tried again on the new one."""

    name = "fork"

    def __init__(self) -> None:
        self._crew = Crew()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._current: Zygote | None = None
        self._opening: asyncio.Task[Zygote] | None = None
        self._closed = False

    async def open(self) -> None:
        """Wait until a zygote has imported TensorFlow. Raises EnvironmentFailed (LOAD_FAILED)."""
        await self._zygote()

    async def start(self, spec: Spec) -> WorkerEnvironment:
        """Start one environment and load its model. Raises EnvironmentFailed."""
        requested_ns = time.monotonic_ns()
        zygote = await self._zygote()
        try:
            return await self._crew.launch(spec, zygote.fork, requested_ns)
        except EnvironmentFailed as failed:
            if not zygote.lost or failed.cause is not Cause.DIED:
                raise
        zygote = await self._zygote()
        return await self._crew.launch(spec, zygote.fork, requested_ns)

    async def close(self) -> None:
        """End every environment, then the zygote."""
        self._closed = True
        await self._crew.disband()
        if self._opening is not None:
            self._opening.cancel()
        if self._current is not None:
            await self._current.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    async def _zygote(self) -> Zygote:
        if self._closed:
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox is closed.")
        opening = self._opening
        if opening is None or _useless(opening):
            opening = self._renew()
        await asyncio.wait((opening,))  # which leaves it alone when this caller is cancelled
        if opening.cancelled():
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox was closed.")
        return opening.result()

    def _renew(self) -> asyncio.Task[Zygote]:
        if self._scratch is None:
            self._scratch = scratch()
        self._current = Zygote(Path(self._scratch.name), self._replace)
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
