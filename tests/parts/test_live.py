"""The host of a variant where one batch becomes several calls, where its capacity changes, and
where another takes its place, with environments that start and answer when the test says so: what
a real one does in between cannot be timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from emulator import faults
from emulator.billing import UsageKind
from emulator.clock import VirtualClock
from emulator.core import SECOND, Cause, Policy, Runtime
from emulator.delays import Delays
from emulator.endpoints import InstanceConfig, ServerlessConfig, Variant
from emulator.errors import ModelError, ServiceUnavailable
from emulator.inflight import Served
from emulator.ledger import InvocationRow
from emulator.live import CALL_BYTES, LiveVariant, Means, Terms
from emulator.realtime import RealTimePolicy, RealTimeRules, Routing
from emulator.sandbox.protocol import (
    EnvironmentFailed,
    Invocation,
    Reply,
    Setup,
    Spec,
    Stats,
)
from emulator.serverless import ServerlessPolicy, ServerlessRules

REPLY = Reply(200, "application/json", b"{}", 1, 1, 1)
INSTANCE = Variant("AllTraffic", "m", instances=InstanceConfig("ml.t2.medium"))
SERVERLESS = Variant("AllTraffic", "m", ServerlessConfig(2048, 4))
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

    def __init__(self, variant: Variant = INSTANCE, policy: Policy | None = None) -> None:
        self.environments: list[Scripted] = []
        self.gates: list[asyncio.Future[None]] | None = None  # what starts wait for, if anything
        self.rows: list[InvocationRow] = []
        self.held: list[int] = []
        self.clock = VirtualClock(0)
        means = Means(self.clock, self, self._write, self._hold, Delays("none", 0))  # type: ignore[arg-type]
        place = faults.Place("eu-west-3", "123456789012", "e", "AllTraffic")
        policy = policy or RealTimePolicy(RealTimeRules(1, batch=8))
        self.live = LiveVariant(
            place, variant, policy, Spec("m", Path("/")), Terms(25 << 20), means
        )

    async def open(self, runtime: Runtime) -> None:
        return

    async def start(self, spec: Spec) -> Scripted:
        if self.gates is not None:
            self.gates.append(asyncio.Future())
            await self.gates[-1]
        self.environments.append(Scripted())
        return self.environments[-1]

    def _write(self, row: InvocationRow) -> asyncio.Future[None]:
        self.rows.append(row)
        written: asyncio.Future[None] = asyncio.Future()
        written.set_result(None)
        return written

    def _hold(self, *held: object) -> None:
        if held[2] in (UsageKind.INSTANCE, UsageKind.PROVISIONED_USAGE):
            assert isinstance(held[4], int)
            self.held.append(held[4])

    def ask(self, number: int) -> asyncio.Future[Served]:
        return self.live.invoke(f"r{number}", LARGE, time.monotonic_ns(), "")

    def answer(self, environment: int) -> None:
        """Let an environment answer the call that it is at."""
        self.environments[environment].calls[-1].set_result([REPLY])

    @property
    def states(self) -> list[tuple[str, bool]]:
        return [(live.state, live.provisioned) for live in self.live.lives]


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
    async def story() -> None:
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

    run(story)


async def in_service(variant: Variant = INSTANCE, policy: Policy | None = None) -> Stage:
    """A variant that is up and billed, and whose next starts wait for the test."""
    stage = Stage(variant, policy)
    await stage.live.launch(warm=True)
    stage.live.meter()
    stage.gates = []
    return stage


def instances(count: int) -> Variant:
    return replace(INSTANCE, instances=InstanceConfig("ml.t2.medium", count))


def concurrency(most: int, provisioned: int) -> Variant:
    return replace(SERVERLESS, serverless=ServerlessConfig(2048, most, provisioned))


def serverless() -> Policy:
    return ServerlessPolicy(ServerlessRules(4))


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_resize_returns_when_the_new_instances_are_up_and_bills_them_from_then_on() -> None:
    async def story() -> None:
        stage = await in_service()
        resize = asyncio.create_task(stage.live.resize(instances(3)))
        await settle()
        assert stage.gates is not None
        first, second = stage.gates
        served = stage.ask(0)
        await settle()
        stage.answer(0)
        first.set_result(None)
        await settle()
        assert served.result().error is None
        assert not resize.done()
        assert stage.held == [1]
        second.set_result(None)
        await resize
        assert stage.held == [1, 3]
        assert stage.live.variant == instances(3)
        await stage.live.close()
        assert stage.held == [1, 3, 0]

    run(story)


def test_an_instance_that_does_not_come_up_fails_the_resize_in_its_own_words() -> None:
    async def story() -> None:
        stage = await in_service()
        resize = asyncio.create_task(stage.live.resize(instances(3)))
        await settle()
        assert stage.gates is not None
        stage.gates[1].set_exception(EnvironmentFailed(Cause.LOAD_FAILED, "No such layer."))
        with pytest.raises(EnvironmentFailed, match=r"No such layer\."):
            await resize
        await stage.live.resize(instances(1))
        assert stage.live.variant == INSTANCE
        assert stage.states == [("idle", False)]
        assert stage.held == [1]
        await stage.live.close()

    run(story)


def test_instances_that_fail_in_the_same_moment_are_all_tried_again() -> None:
    async def story() -> None:
        stage = await in_service()
        resize = asyncio.create_task(stage.live.resize(instances(3)))
        await settle()
        assert stage.gates is not None
        for gate in stage.gates:
            gate.set_exception(EnvironmentFailed(Cause.LOAD_FAILED, "No such layer."))
        with pytest.raises(EnvironmentFailed, match=r"No such layer\."):
            await resize
        await settle()
        stage.clock.advance(5 * SECOND)
        await settle()
        assert len(stage.gates) == 4
        await stage.live.close()

    run(story)


def test_fewer_instances_are_billed_at_once_and_the_surplus_one_answers_first() -> None:
    async def story() -> None:
        policy = RealTimePolicy(RealTimeRules(2, routing=Routing.LEAST_OUTSTANDING_REQUESTS))
        stage = await in_service(INSTANCE, policy)
        asked = [stage.ask(number) for number in range(4)]
        await settle()
        await stage.live.resize(instances(1))
        assert stage.held == [2, 1]
        assert len(stage.live.lives) == 2
        for environment in (1, 1, 0, 0):
            stage.answer(environment)
            await settle()
        assert [one.result().error for one in asked] == [None] * 4
        assert len(stage.live.lives) == 1
        await stage.live.close()

    run(story)


def test_a_resize_waits_for_the_floor_and_for_no_cold_start() -> None:
    async def story() -> None:
        stage = await in_service(SERVERLESS, serverless())
        asked = [stage.ask(number) for number in (0, 1)]
        await settle()
        assert stage.states == [("busy", False), ("starting", False)]
        assert stage.gates is not None
        stage.answer(0)
        await settle()
        resize = asyncio.create_task(stage.live.resize(concurrency(5, 2)))
        await settle()
        assert stage.states == [("idle", True), ("starting", False), ("starting", True)]
        stage.gates[0].set_exception(EnvironmentFailed(Cause.LOAD_FAILED, "Out of luck."))
        await settle()
        assert isinstance(asked[1].result().error, ModelError)
        assert not resize.done()
        stage.gates[1].set_result(None)
        await resize
        assert stage.held == [2]
        assert stage.live.variant == concurrency(5, 2)
        await stage.live.resize(concurrency(1, 0))
        assert stage.states == [("idle", False)]
        assert stage.held == [2, 0]
        await stage.live.close()

    run(story)


def test_a_floor_that_is_warm_already_is_not_waited_for() -> None:
    async def story() -> None:
        stage = await in_service(SERVERLESS, serverless())
        await stage.live.resize(concurrency(4, 1))
        assert stage.states == [("idle", True)]
        await stage.live.close()

    run(story)


@pytest.mark.parametrize("before", [INSTANCE, concurrency(4, 1)], ids=["realtime", "serverless"])
def test_another_weight_does_not_wait_for_what_is_being_replaced(before: Variant) -> None:
    async def story() -> None:
        policy = None if before.instances else ServerlessPolicy(ServerlessRules(4, 1))
        stage = await in_service(before, policy)
        stage.environments[0].ended.set_result(EnvironmentFailed(Cause.DIED, "It died."))
        await settle()
        replacement = [("starting", before.serverless is not None)]
        assert stage.states == replacement
        resize = asyncio.create_task(stage.live.resize(replace(before, weight=3.0)))
        await settle()
        assert resize.done()
        assert stage.live.variant.weight == 3.0
        assert stage.states == replacement
        assert stage.held == [1]
        await stage.live.close()

    run(story)


def test_a_close_ends_the_wait_for_a_resize() -> None:
    async def story() -> None:
        stage = await in_service()
        resize = asyncio.create_task(stage.live.resize(instances(2)))
        await settle()
        await stage.live.close()
        with pytest.raises(EnvironmentFailed) as failed:
            await resize
        assert failed.value.cause is Cause.CLOSED
        assert stage.held == [1, 0]

    run(story)


def test_a_resize_that_is_taken_back_has_nothing_to_wait_for() -> None:
    async def story() -> None:
        stage = await in_service()
        resize = asyncio.create_task(stage.live.resize(instances(2)))
        await settle()
        await stage.live.resize(instances(1))
        await resize
        assert stage.states == [("idle", False)]
        assert stage.held == [1]
        await stage.live.close()

    run(story)


def test_a_retired_variant_bills_nothing_and_answers_all_that_reaches_it() -> None:
    async def story() -> None:
        stage = await in_service()
        first = stage.ask(0)
        await settle()
        retired = stage.live.retire()
        assert stage.held == [1, 0]
        late = stage.ask(1)  # its body was still being read
        await settle()
        stage.answer(0)
        await settle()
        assert first.result().error is None
        assert not retired.done()
        assert not stage.live.closed
        stage.answer(0)
        await retired
        assert stage.live.closed  # whoever comes now has to look for another
        assert (await late).error is None
        await stage.live.close()
        assert stage.held == [1, 0]

    run(story)


def test_a_variant_that_retires_idle_is_done_with_at_once() -> None:
    async def story() -> None:
        stage = await in_service(SERVERLESS, serverless())
        assert stage.live.retire().done()
        assert stage.live.closed
        await stage.live.close()
        assert stage.held == []

    run(story)


def test_a_resize_of_a_retired_variant_is_not_billed() -> None:
    async def story() -> None:
        stage = await in_service()
        stage.ask(0)
        retired = stage.live.retire()
        resize = asyncio.create_task(stage.live.resize(instances(2)))
        await settle()
        assert stage.gates is not None
        stage.gates[0].set_result(None)
        await resize
        assert stage.held == [1, 0]
        await stage.live.close()
        await retired

    run(story)


@pytest.mark.parametrize("how", ["dies", "closes"])
def test_a_retired_variant_waits_for_nobody_who_gets_no_answer(how: str) -> None:
    async def story() -> None:
        stage = await in_service()
        asked = stage.ask(0)
        await settle()
        retired = stage.live.retire()
        if how == "dies":
            stage.environments[0].ended.set_result(EnvironmentFailed(Cause.DIED, "It died."))
        else:
            await stage.live.close()
        await retired
        assert (await asked).error is not None
        await stage.live.close()
        assert stage.held == [1, 0]

    run(story)
