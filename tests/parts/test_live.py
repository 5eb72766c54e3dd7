"""The host of a variant where one batch becomes several calls, with environments that answer when
the test says so: what a real one does between two calls cannot be timed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from emulator import faults
from emulator.billing import UsageKind
from emulator.clock import VirtualClock
from emulator.core import SECOND, Cause, Runtime
from emulator.delays import Delays
from emulator.endpoints import InstanceConfig, Variant
from emulator.errors import ModelError, ServiceUnavailable
from emulator.inflight import Served
from emulator.ledger import InvocationRow
from emulator.live import CALL_BYTES, LiveVariant, Means, Terms
from emulator.realtime import RealTimePolicy, RealTimeRules
from emulator.sandbox.protocol import (
    EnvironmentFailed,
    Invocation,
    Reply,
    Setup,
    Spec,
    Stats,
)

REPLY = Reply(200, "application/json", b"{}", 1, 1, 1)
LARGE = Invocation(b" " * (CALL_BYTES - 1), "application/json", "")


class Scripted:
    """An environment that answers a call when the test resolves it."""

    pid, together, setup = 1, 8, Setup(0, 0)

    def __init__(self) -> None:
        self.ended: asyncio.Future[EnvironmentFailed] = asyncio.Future()
        self.calls: list[asyncio.Future[list[Reply]]] = []

    def invoke(self, batch: object) -> asyncio.Future[list[Reply]]:
        self.calls.append(asyncio.Future())
        return self.calls[-1]

    def stats(self) -> Stats:
        return Stats(0, 0)

    async def stop(self) -> None:
        return


class Stage:
    """A sandbox of those, the variant on it, and what the variant wrote and held."""

    name, isolation = "scripted", "off"

    def __init__(self) -> None:
        self.environments: list[Scripted] = []
        self.rows: list[InvocationRow] = []
        self.held: list[int] = []
        self.clock = VirtualClock(0)
        variant = Variant("AllTraffic", "m", instances=InstanceConfig("ml.t2.medium"))
        means = Means(self.clock, self, self._write, self._hold, Delays("none", 0))  # type: ignore[arg-type]
        place = faults.Place("eu-west-3", "123456789012", "e", "AllTraffic")
        policy = RealTimePolicy(RealTimeRules(1, batch=8))
        self.live = LiveVariant(
            place, variant, policy, Spec("m", Path("/")), Terms(25 << 20), means
        )

    async def open(self, runtime: Runtime) -> None:
        return

    async def start(self, spec: Spec) -> Scripted:
        self.environments.append(Scripted())
        return self.environments[-1]

    def _write(self, row: InvocationRow) -> asyncio.Future[None]:
        self.rows.append(row)
        written: asyncio.Future[None] = asyncio.Future()
        written.set_result(None)
        return written

    def _hold(self, *held: object) -> None:
        if held[2] is UsageKind.INSTANCE:
            assert isinstance(held[4], int)
            self.held.append(held[4])

    def ask(self, number: int) -> asyncio.Future[Served]:
        return self.live.invoke(f"r{number}", LARGE, time.monotonic_ns(), "")


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def half_answered() -> tuple[Stage, list[asyncio.Future[Served]]]:
    """Three requests that waited together and are too large for one call, the first answered."""
    stage = Stage()
    await stage.live.launch(warm=True)
    stage.live.meter()
    first = stage.ask(0)
    await settle()
    waiting = [stage.ask(number) for number in (1, 2, 3)]
    await settle()
    (environment,) = stage.environments
    environment.calls[0].set_result([REPLY])
    await settle()
    assert first.done()
    assert len(environment.calls) == 4
    environment.calls[1].set_result([REPLY])
    await settle()
    assert [one.done() for one in waiting] == [True, False, False]
    return stage, waiting


@pytest.mark.parametrize("how", ["dies", "closes", "times out"])
def test_what_is_left_of_a_batch_is_told_and_the_instance_goes_on_or_ends(how: str) -> None:
    async def run() -> None:
        stage, waiting = await half_answered()
        if how == "dies":
            gone = EnvironmentFailed(Cause.DIED, "It died.")
            stage.environments[0].ended.set_result(gone)
            for call in stage.environments[0].calls[2:]:
                call.set_exception(gone)
        elif how == "closes":
            await stage.live.close()
        else:
            stage.clock.advance(60 * SECOND)
        await settle()
        served = [one.result() for one in waiting]
        expected = ServiceUnavailable if how == "closes" else ModelError
        assert served[0].error is None
        assert [type(one.error) for one in served[1:]] == [expected, expected]
        assert sorted(row.request_id for row in stage.rows) == ["r0", "r1", "r2", "r3"]
        assert stage.live.in_flight == 0
        if how == "closes":
            assert stage.held == [1, 0]
        else:
            assert len(stage.environments) == 2
            assert stage.held == [1]
        await stage.live.close()

    asyncio.run(asyncio.wait_for(run(), 20))
