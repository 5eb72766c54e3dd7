"""The seam between a host and a backend of execution environments. Data and protocols only.

A backend starts environments (`Sandbox.start`); a started environment answers invocations, one
after the other or several in one call (`Environment.invoke`), says what it uses (`stats`) and can
be ended (`stop`). The four methods are all that a new backend has to provide;
`tests/sandbox/test_conformance.py` runs over every one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from emulator.core import Cause, Runtime
from emulator.sandbox.stream import Stream


class EnvironmentFailed(Exception):
    """An environment did not come up, or ended by itself.

    `cause` is LOAD_FAILED, DIED, OUT_OF_MEMORY or CLOSED; `message` is one sentence in the
    environment's own words where it had any ("The process ended by signal 9 (SIGKILL)."). After a
    death while loading, the last lines of its output follow.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message


@dataclass(frozen=True, slots=True)
class Spec:
    """What to start: one model in one environment.

    `model_dir` holds an unpacked model archive; TensorFlow serves it, or LiteRT if `conversion` is
    the directory that `model.convert` wrote for it, or the script `code/<program>` if there is a
    `program`; such a one is started by `spawn` whatever the backend, since it forks from nothing.
    `memory_bytes` is the limit that the
    footprint is held to (None: no limit). `warm_up` asks for one inference on zeros before the
    environment counts as ready, as an always-warm persona wants it; `batch` for finding out whether
    up to that many requests can be answered in one call, and `compiled` for compiling the model,
    where that makes it faster. `variables` is the container's
    environment; nothing else of the server's environment reaches the process but PATH, the locale
    and what TensorFlow needs. `label` (endpoint/variant/environment) marks its log lines, and
    `log` receives each line of its stdout and stderr in the loop's thread, at most 16 KB at a
    time; it must neither block nor raise. Variables that TensorFlow reads while it is being
    imported come too late for a forked environment; give those to the server.
    """

    label: str
    model_dir: Path
    conversion: Path | None = None
    program: str = ""
    memory_bytes: int | None = None
    warm_up: bool = False
    batch: int = 1
    compiled: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    log: Callable[[str], None] | None = None

    @property
    def runtime(self) -> Runtime:
        """What the environment has to import."""
        if self.program:
            return Runtime.SCRIPT
        return Runtime.LITERT if self.conversion else Runtime.TENSORFLOW


@dataclass(frozen=True, slots=True)
class Invocation:
    """One request as the container gets it: opaque bytes and the headers that AWS forwards. With a
    `stream` what its answer yields goes there, before the reply, and it is invoked alone."""

    body: bytes | bytearray  # as it came together: a megabyte is not copied for its type
    content_type: str
    accept: str
    custom_attributes: str = ""
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the container answered. `status` is the container's own, 200 or an error's. The `body`
    is what was not streamed.

    `model_ns` is the wall time of the call that answered it and `cpu_ns` the processor time (all
    threads) that the environment spent on it, its share where the call answered several;
    `peak_bytes` is the environment's largest footprint so far.
    """

    status: int
    content_type: str
    body: bytes
    model_ns: int
    cpu_ns: int
    peak_bytes: int
    custom_attributes: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """A measured start: `runtime_ns` from the request for a process to its first own
    instruction with the runtime imported, `load_ns` for loading and tracing the model."""

    runtime_ns: int
    load_ns: int


@dataclass(frozen=True, slots=True)
class Stats:
    """`footprint_bytes` is what the environment would need alone; `private_bytes` what it adds to
    this machine (its unshared pages). As measured last: after the load, and whenever a request has
    made it grow by some megabytes. Both 0 once it is gone, or where it cannot be told."""

    footprint_bytes: int
    private_bytes: int
    peak_bytes: int = 0  # the largest footprint so far; 0 until it has been measured closely


@dataclass(frozen=True, slots=True)
class Isolation:
    """What an environment is kept from, as the kernel has confirmed to it.

    `network`: "none" or "open". `files`: "read-only" for all but its own scratch folder, a form of
    that with an exception, or "open". `signals`: to its "own" processes alone, or "open".
    """

    network: str = "open"
    files: str = "open"
    signals: str = "open"


class Environment(Protocol):
    """One started environment."""

    @property
    def pid(self) -> int: ...

    @property
    def setup(self) -> Setup: ...

    @property
    def isolation(self) -> Isolation: ...

    @property
    def together(self) -> int:
        """How many requests it can answer in one call: from 1 to the `batch` of its Spec."""

    @property
    def ended(self) -> asyncio.Future[EnvironmentFailed]:
        """Resolves as soon as the environment is gone, whoever ended it; never raises."""

    def invoke(self, batch: Sequence[Invocation]) -> asyncio.Future[list[Reply]]:
        """Hand over requests to be answered in one call; one reply for each, in their order.

        The future raises EnvironmentFailed if the environment ends. Batches are answered one after
        the other. Cancelling the future drops the answers, but the environment is occupied until it
        has given them.
        """

    def stats(self) -> Stats: ...

    async def stop(self) -> None:
        """End the process and wait until it is gone. Safe to call twice."""


class Sandbox(Protocol):
    """A backend."""

    @property
    def name(self) -> str: ...

    async def open(self, runtime: Runtime = Runtime.TENSORFLOW) -> None:
        """Get ready to start environments of that runtime (a zygote imports it). Safe to call
        twice."""

    async def start(self, spec: Spec) -> Environment:
        """Start one environment and load its model.

        Raises EnvironmentFailed. If the caller's task is cancelled meanwhile, the process is ended.
        """

    async def close(self) -> None:
        """End every environment and the backend's own processes."""
