"""The environments of one sandbox: starting them, keeping count, ending them together."""

from __future__ import annotations

import asyncio

from emulator.core import Cause
from emulator.sandbox.environment import Begin, WorkerEnvironment
from emulator.sandbox.limits import Watch
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from emulator.sandbox.scratch import Scratch


class Crew:
    """The environments of one sandbox that are alive or coming up, and the watch over them. With
    `scratch` each of them gets a folder of its own there, until it ends."""

    def __init__(self, scratch: Scratch | None = None) -> None:
        self.members: set[WorkerEnvironment] = set()
        self.watch = Watch()
        self._scratch = scratch

    async def launch(self, spec: Spec, begin: Begin, requested_ns: int) -> WorkerEnvironment:
        """Start an environment and wait until its model is loaded.

        `begin` gets the environment's end of the socket and the write end of its log, which it may
        hand over but not keep, and starts the process. `requested_ns` is the monotonic instant
        that the start is measured from. Raises EnvironmentFailed. When it raises, or the caller
        is cancelled, the process is gone.
        """
        environment = WorkerEnvironment(spec, self.watch)
        self.members.add(environment)
        environment.ended.add_done_callback(lambda _: self._dismiss(environment))
        try:
            if self._scratch is not None:
                environment.folder = self._scratch.folder()
            await environment.connect(begin, requested_ns)
            await environment.loaded()
        except OSError as error:
            await environment.stop()
            message = f"The environment could not be started: {error}."
            raise EnvironmentFailed(Cause.LOAD_FAILED, message) from error
        except BaseException:
            await environment.stop()
            raise
        return environment

    async def disband(self) -> None:
        """Stop them all."""
        await asyncio.gather(*(member.stop() for member in tuple(self.members)))

    def _dismiss(self, environment: WorkerEnvironment) -> None:
        self.members.discard(environment)
        if self._scratch is not None and environment.folder is not None:
            self._scratch.discard(environment.folder)
