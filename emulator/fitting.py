"""How much memory a model needs: it is loaded and asked in environments as a server starts them and
with the same limits, until the smallest size is found in which it answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emulator import artifacts, personas
from emulator.config import Config
from emulator.contract import contract
from emulator.conversions import Conversions
from emulator.core import MIB, Cause, Runtime
from emulator.endpoints import MB_PER_VCPU, MEMORY_SIZES_MB
from emulator.errors import SetupError
from emulator.sandbox import backends, interpreter
from emulator.sandbox.protocol import (
    Environment,
    EnvironmentFailed,
    Invocation,
    Sandbox,
    Spec,
    Stats,
)

ANSWERS = 5
OPENED_S = 240.0
ANSWERED_S = 120.0
MEASURED_S = 10.0
POLL_S = 0.005
LARGEST_MB = MEMORY_SIZES_MB[-1]
# What an environment has in its memory before any model.
NAMES = {Runtime.TENSORFLOW: "TensorFlow", Runtime.LITERT: "LiteRT", Runtime.SCRIPT: "Python"}


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model needs: bytes after the load, and at the peak of loading and answering; the
    smallest memory size in which it answers (MB). `note` says why it does not run on LiteRT where
    that was asked for."""

    runtime: Runtime
    loaded_bytes: int
    peak_bytes: int
    asked: str
    memory_mb: int
    note: str = ""

    @property
    def left_bytes(self) -> int:
        """What that size has to spare."""
        return self.memory_mb * MIB - self.peak_bytes

    @property
    def smaller_mb(self) -> int:
        """The next smaller size, which does not hold it; 0 if there is none."""
        at = MEMORY_SIZES_MB.index(self.memory_mb)
        return MEMORY_SIZES_MB[at - 1] if at else 0

    @property
    def lacking_bytes(self) -> int:
        """What the next smaller size lacks; 0 if there is none."""
        return self.peak_bytes - self.smaller_mb * MIB if self.smaller_mb else 0

    @property
    def vcpus(self) -> float:
        """The share of a processor that comes with the size."""
        return self.memory_mb / MB_PER_VCPU


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked: `body`; where it is None, one answer to zeros of the right shape,
    and nothing of a script."""

    body: bytes | None
    content_type: str


async def fit(
    path: Path,
    variables: Mapping[str, str],
    config: Config,
    question: Question,
    tell: Callable[[str], None],
) -> Fit:
    """Measure the model at `path`. `variables` are its container's; `tell` hears what is being
    done. Raises SetupError for a model or a request that is of no use, or if no size holds it."""
    runtime, python = personas.runtime(config, variables), interpreter.usable(config.python)
    with tempfile.TemporaryDirectory(prefix="lukewarm-fit-") as temporary:
        folder = Path(temporary)
        model = folder / "model"
        tell("unpacking the model")
        await asyncio.to_thread(artifacts.prepare, path, model, config.model_bytes, variables)
        spec, note = await _spec(model, variables, runtime, config.isolation, tell)
        sandbox = backends.create(_backend(config), folder / "scratch", config.isolation, python)
        try:
            tell(f"starting {NAMES[spec.runtime]}")
            await asyncio.wait_for(sandbox.open(spec.runtime), OPENED_S)
            return replace(await _fitted(sandbox, spec, question, tell), note=note)
        except TimeoutError:
            raise SetupError(f"{path} does not load or answer within minutes.") from None
        except EnvironmentFailed as failure:
            raise SetupError(_refusal(path, failure)) from None
        finally:
            await sandbox.close()


def _backend(config: Config) -> str:
    """The server's, unless its environments have no memory of their own."""
    given = config.sandbox
    return backends.default_backend() if given in ("auto", "inline") else given


def _refusal(path: Path, failure: EnvironmentFailed) -> str:
    if failure.cause is Cause.OUT_OF_MEMORY:
        return (
            f"{path} fits into no memory size, of which {LARGEST_MB} MB is the largest: "
            f"{failure.message} Take a real-time endpoint (`lukewarm deploy --instance`) or a "
            "smaller model."
        )
    if failure.cause is Cause.LOAD_FAILED:
        return f"{path} cannot be loaded: {failure.message}"
    return f"{path} ended instead of answering: {failure.message}"


async def _spec(
    model: Path,
    variables: Mapping[str, str],
    runtime: Runtime,
    isolation: str,
    tell: Callable[[str], None],
) -> tuple[Spec, str]:
    """What a server would start, and why not on LiteRT where that was asked for."""
    program = contract(model, "", variables).program
    spec = Spec("fit", model, program=program, variables=variables)
    if program or runtime is Runtime.TENSORFLOW:
        return spec, ""
    tell("converting the model")
    conversions = Conversions(model.parent / "conversions", isolation)
    await conversions.open()
    try:
        outcome = await conversions.of(model)
    finally:
        await conversions.close()
    return replace(spec, conversion=outcome.directory), "" if outcome.directory else outcome.note


async def _fitted(
    sandbox: Sandbox, spec: Spec, question: Question, tell: Callable[[str], None]
) -> Fit:
    """Once in the largest size for the figures, then in those that may hold it, from the smallest:
    what is named has answered within its limit."""
    tell(f"trying {LARGEST_MB} MB")
    loaded, peak = await _tried(sandbox, spec, question, LARGEST_MB)
    zeros = question.body is None and not spec.program
    asked = f"{ANSWERS} answers" if question.body is not None else "the load"
    for size in [each for each in MEMORY_SIZES_MB if each * MIB >= peak]:
        tell(f"trying {size} MB")
        try:
            _, again = await _tried(sandbox, replace(spec, warm_up=zeros), question, size)
        except EnvironmentFailed as failure:
            if failure.cause is not Cause.OUT_OF_MEMORY or size == LARGEST_MB:
                raise
            continue
        asked = "an answer to zeros" if zeros else asked
        return Fit(spec.runtime, loaded, max(peak, again), asked, size)
    raise AssertionError(f"{peak} bytes were within {LARGEST_MB} MB")


async def _tried(sandbox: Sandbox, spec: Spec, question: Question, size: int) -> tuple[int, int]:
    """Load and answer in one environment of `size` MB: bytes after the load and at the peak. Raises
    EnvironmentFailed, TimeoutError, or SetupError for a request that the model refuses."""
    limited = replace(spec, memory_bytes=size * MIB)
    environment = await asyncio.wait_for(sandbox.start(limited), OPENED_S)
    try:
        loaded = last = await _measured(environment)
        if question.body is not None:
            for _ in range(ANSWERS):
                await _answered(environment, question.body, question.content_type)
            last = await _measured(environment)
        return loaded.footprint_bytes, max(loaded.peak_bytes, last.peak_bytes)
    finally:
        await environment.stop()


async def _measured(environment: Environment) -> Stats:
    """What it uses, not as it estimates that while somebody waits, but as measured in the pause
    that follows. Raises EnvironmentFailed if it ends instead."""
    async with asyncio.timeout(MEASURED_S):
        while not (stats := environment.stats()).peak_bytes:
            if environment.ended.done():
                raise environment.ended.result()
            await asyncio.sleep(POLL_S)
    return stats


async def _answered(environment: Environment, body: bytes, content_type: str) -> None:
    invocation = Invocation(body, content_type, "application/json")
    (reply,) = await asyncio.wait_for(environment.invoke([invocation]), ANSWERED_S)
    if reply.status != 200:
        said = reply.body.decode("utf-8", "replace")[:300]
        raise SetupError(f"The model answers the request with {reply.status}: {said}")
