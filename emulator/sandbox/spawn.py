"""The `spawn` backend: each environment is a fresh interpreter that imports its runtime itself. It
is the honest first start, the default where forking an imported TensorFlow is not safe, and what
starts scripts whatever the backend."""

from __future__ import annotations

import os
import socket
import sys
import time

from emulator.core import Cause, Runtime
from emulator.sandbox import interpreter
from emulator.sandbox.crew import Crew
from emulator.sandbox.environment import WorkerEnvironment
from emulator.sandbox.processes import Child
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.scratch import Scratch
from emulator.sandbox.surroundings import scrubbed


class SpawnSandbox:
    """Starts environments from nothing."""

    name = "spawn"

    def __init__(self, scratch: Scratch, isolation: str, python: str = "") -> None:
        self._scratch = scratch
        self._python = python  # for scripts, where it is not the server's own
        self._isolation = isolation
        self._crew = Crew(self._scratch)
        self._closed = False

    async def open(self, runtime: Runtime = Runtime.TENSORFLOW) -> None:
        """Nothing to do: every process imports the runtime itself."""

    async def start(self, spec: Spec) -> WorkerEnvironment:
        """Start one environment and load its model. Raises EnvironmentFailed."""
        requested_ns = time.monotonic_ns()
        if self._closed:
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox is closed.")
        home = self._scratch.path
        variables, python = scrubbed(os.environ, home), sys.executable
        if self._python and spec.runtime is Runtime.SCRIPT:
            python = self._python
            variables = interpreter.apart(variables, interpreter.links(home))
        variables |= spec.variables

        async def begin(connection: socket.socket, log: int) -> Child:
            descriptor = connection.fileno()
            arguments = [str(descriptor), str(os.getpid()), self._isolation]
            module = "emulator.sandbox.worker"
            return Child(module, arguments, [descriptor], log, variables, home, python)

        return await self._crew.launch(spec, begin, requested_ns)

    async def disband(self) -> None:
        """End every environment, and start no more."""
        self._closed = True
        await self._crew.disband()

    async def close(self) -> None:
        """End every environment, and remove what they left."""
        await self.disband()
        await self._scratch.close()
