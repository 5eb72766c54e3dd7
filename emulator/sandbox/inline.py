"""The `inline` backend: each environment is a thread of the server, for debugging.

It runs the same worker loop over the same kind of socket, so that a breakpoint in the model's code
works: its output goes to the server's terminal, not to `Spec.log`. It cannot hold a model to a
memory limit, hide the server's environment from it, or end it: closing the socket ends an idle
environment, and a busy one when it has answered. The variables of all its environments share
`os.environ`, a model that ends its process ends the server, and a script runs in the server's own
interpreter, whatever other one is configured.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Mapping

from emulator.core import Cause, Runtime
from emulator.sandbox import worker
from emulator.sandbox.crew import Crew
from emulator.sandbox.environment import WorkerEnvironment
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.scratch import Scratch

PATIENCE_S = 1.0  # for a thread that cannot be killed


class InlineSandbox:
    """Starts environments as threads."""

    name = "inline"

    def __init__(self, scratch: Scratch, isolation: str = "off", python: str = "") -> None:
        self._crew = Crew()  # a thread has no working directory and no HOME of its own
        self._closed = False

    async def open(self, runtime: Runtime = Runtime.TENSORFLOW) -> None:
        """Nothing to do: the first start imports the runtime."""

    async def start(self, spec: Spec) -> WorkerEnvironment:
        """Start one environment and load its model. Raises EnvironmentFailed."""
        if self._closed:
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox is closed.")

        async def begin(connection: socket.socket, log: int) -> WorkerThread:
            return WorkerThread(connection, spec)

        return await self._crew.launch(spec, begin, time.monotonic_ns())

    async def close(self) -> None:
        """Hang up on every environment."""
        self._closed = True
        await self._crew.disband()


class WorkerThread:
    """The worker's loop in a thread. It takes `connection` over."""

    shared: int | None = None

    def __init__(self, connection: socket.socket, spec: Spec) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self._connection = socket.socket(fileno=connection.detach())
        before = {name: os.environ.get(name) for name in spec.variables}
        threading.Thread(
            target=self._run, args=(before,), name=f"environment {spec.label}", daemon=True
        ).start()

    def kill(self) -> None:
        """The environment's socket is being closed, and that is all that can be done."""
        if not self.gone.done():
            self._loop.call_later(PATIENCE_S, self._end)

    def _run(self, before: Mapping[str, str | None]) -> None:
        try:
            with self._connection:
                worker.serve(self._connection, shared=None, enclosure=None)
        finally:
            _restore(before)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.gone.done():
            self.gone.set_result("")


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
