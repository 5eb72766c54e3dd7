"""The `spawn` backend: each environment is a fresh interpreter that imports its runtime itself. It
is the honest first start, and the default where forking an imported TensorFlow is not safe."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

from emulator.core import Cause
from emulator.sandbox.crew import Crew
from emulator.sandbox.environment import WorkerEnvironment
from emulator.sandbox.processes import Child
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.surroundings import scratch, scrubbed


class SpawnSandbox:
    """Starts environments from nothing."""

    name = "spawn"

    def __init__(self) -> None:
        self._crew = Crew()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False

    async def open(self, runtime: str = "tensorflow") -> None:
        """Make the directory that the processes run in; there is nothing to warm up."""
        if self._scratch is None and not self._closed:
            self._scratch = scratch()

    async def start(self, spec: Spec) -> WorkerEnvironment:
        """Start one environment and load its model. Raises EnvironmentFailed."""
        requested_ns = time.monotonic_ns()
        await self.open()
        if self._closed or self._scratch is None:
            raise EnvironmentFailed(Cause.CLOSED, "The sandbox is closed.")
        home = Path(self._scratch.name)
        variables = scrubbed(os.environ, home) | dict(spec.variables)

        async def begin(connection: socket.socket, log: int) -> Child:
            descriptor = connection.fileno()
            arguments = [str(descriptor), str(os.getpid())]
            module = "emulator.sandbox.worker"
            return Child(module, arguments, [descriptor], log, variables, home)

        return await self._crew.launch(spec, begin, requested_ns)

    async def close(self) -> None:
        """End every environment."""
        self._closed = True
        await self._crew.disband()
        if self._scratch is not None:
            self._scratch.cleanup()
