"""The `spawn` backend: each environment is a fresh interpreter that imports its runtime itself. It
is the honest first start, and the default where forking an imported TensorFlow is not safe."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from emulator.core import Cause, Runtime
from emulator.sandbox.crew import Crew
from emulator.sandbox.environment import WorkerEnvironment
from emulator.sandbox.processes import Child
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.scratch import Scratch
from emulator.sandbox.surroundings import scrubbed


class SpawnSandbox:
    """Starts environments from nothing."""

    name = "spawn"

    def __init__(self, scratch: Path | None = None, isolation: str = "full") -> None:
        self._scratch = Scratch(scratch)
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
        variables = scrubbed(os.environ, home) | dict(spec.variables)

        async def begin(connection: socket.socket, log: int) -> Child:
            descriptor = connection.fileno()
            arguments = [str(descriptor), str(os.getpid()), self._isolation]
            module = "emulator.sandbox.worker"
            return Child(module, arguments, [descriptor], log, variables, home)

        return await self._crew.launch(spec, begin, requested_ns)

    async def close(self) -> None:
        """End every environment."""
        self._closed = True
        await self._crew.disband()
        await self._scratch.close()
