"""How much memory a model needs: it is loaded and asked in one environment, as a server would start
it and with the same limits, until the smallest size is found in which it answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emulator import artifacts
from emulator.contract import contract
from emulator.conversions import Conversions
from emulator.core import MIB, Cause, Runtime
from emulator.endpoints import MB_PER_VCPU, MEMORY_SIZES_MB
from emulator.errors import SetupError
from emulator.sandbox import backends
from emulator.sandbox.protocol import Environment, EnvironmentFailed, Invocation, Sandbox, Spec

ANSWERS = 5
OPENED_S = 240.0
ANSWERED_S = 120.0


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model needs: bytes after the load, and at the peak of loading and answering; the
    smallest memory size that holds that (MB), 0 if none does."""

    runtime: str
    loaded_bytes: int
    peak_bytes: int
    answers: int  # of the request that was given; 0 for one of zeros, made while loading
    memory_mb: int

    @property
    def vcpus(self) -> float:
        """The share of a processor that comes with that size."""
        return self.memory_mb / MB_PER_VCPU


@dataclass(frozen=True, slots=True)
class Model:
    """A model as people have it, and how it is to be served."""

    path: Path
    variables: Mapping[str, str]
    runtime: Runtime
    limit_bytes: int  # of the unpacked model
    isolation: str
    python: str


async def fit(
    model: Model, body: bytes | None, content_type: str, tell: Callable[[str], None]
) -> Fit:
    """Measure. `body` is a request to answer; without one a TensorFlow model answers zeros. `tell`
    hears what is being done. Raises SetupError for a model or a request that is of no use."""
    with tempfile.TemporaryDirectory(prefix="lukewarm-fit-") as folder:
        directory = Path(folder) / "model"
        tell("unpacking")
        await asyncio.to_thread(
            artifacts.prepare, model.path, directory, model.limit_bytes, model.variables
        )
        spec = await _spec(model, directory, Path(folder))
        sandbox = backends.create(
            backends.default_backend(), Path(folder) / "scratch", model.isolation, model.python
        )
        try:
            tell(f"starting {spec.runtime.value}")
            await asyncio.wait_for(sandbox.open(spec.runtime), OPENED_S)
            return await _measured(sandbox, spec, body, content_type, tell)
        except EnvironmentFailed as failure:
            raise SetupError(f"{model.path} cannot be loaded: {failure.message}") from None
        finally:
            await sandbox.close()


async def _spec(model: Model, directory: Path, folder: Path) -> Spec:
    program = contract(directory, "", model.variables).program
    spec = Spec("fit", directory, program=program, variables=model.variables, warm_up=not program)
    if program or model.runtime is not Runtime.LITERT:
        return spec
    conversions = Conversions(folder / "conversions", model.isolation)
    await conversions.open()
    try:
        outcome = await conversions.of(directory)
    finally:
        await conversions.close()
    if outcome.directory is None:
        raise SetupError(f"{model.path} stays on TensorFlow: {outcome.note}")
    return replace(spec, conversion=outcome.directory)


async def _measured(
    sandbox: Sandbox, spec: Spec, body: bytes | None, content_type: str, tell: Callable[[str], None]
) -> Fit:
    """Once without a limit for the figures, then in sizes that may hold it, from the smallest."""
    tell("loading and answering")
    loaded, peak = await _tried(sandbox, spec, body, content_type)
    fits = [size for size in MEMORY_SIZES_MB if size * MIB >= peak]
    for size in fits:
        tell(f"trying {size} MB")
        try:
            limited = replace(spec, memory_bytes=size * MIB)
            peak = max(peak, (await _tried(sandbox, limited, body, content_type))[1])
        except EnvironmentFailed as failure:
            if failure.cause is not Cause.OUT_OF_MEMORY:
                raise
            continue
        return Fit(spec.runtime.value, loaded, peak, ANSWERS if body else 0, size)
    return Fit(spec.runtime.value, loaded, peak, ANSWERS if body else 0, 0)


async def _tried(
    sandbox: Sandbox, spec: Spec, body: bytes | None, content_type: str
) -> tuple[int, int]:
    """Load and answer in one environment: bytes after the load and at the peak. Raises
    EnvironmentFailed, or SetupError for a request that the model refuses."""
    environment = await asyncio.wait_for(sandbox.start(spec), OPENED_S)
    try:
        stats = environment.stats()
        peak = max(stats.footprint_bytes, stats.peak_bytes)
        for _ in range(ANSWERS if body is not None else 0):
            assert body is not None
            peak = max(peak, await _answered(environment, body, content_type))
        return stats.footprint_bytes, peak
    finally:
        await environment.stop()


async def _answered(environment: Environment, body: bytes, content_type: str) -> int:
    invocation = Invocation(body, content_type, "application/json")
    (reply,) = await asyncio.wait_for(environment.invoke([invocation]), ANSWERED_S)
    if reply.status != 200:
        said = reply.body.decode("utf-8", "replace")[:300]
        raise SetupError(f"The model answers the request with {reply.status}: {said}")
    return reply.peak_bytes
