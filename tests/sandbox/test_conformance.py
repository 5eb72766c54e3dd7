"""What every backend has to do, run over every backend."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import orjson
import pytest

from emulator.core import Cause
from emulator.sandbox.backends import BACKENDS, create, default_backend
from emulator.sandbox.protocol import EnvironmentFailed, Invocation, Sandbox, Spec
from tests.sandbox.conftest import FASHION, Run, Script, alone, ask, told, until

IMAGE = orjson.dumps({"instances": [[[0.5] * 28] * 28]})


def test_a_model_starts_answers_and_stops(run: Run, sandbox: Sandbox) -> None:
    async def life() -> None:
        environment = await sandbox.start(Spec("e/v/1", FASHION, warm_up=True))
        assert environment.pid > 0
        assert environment.setup.runtime_ns > 0
        assert environment.setup.load_ns > 0
        assert not environment.ended.done()
        stats = environment.stats()
        assert 0 < stats.private_bytes <= stats.footprint_bytes

        reply = await alone(environment, Invocation(IMAGE, "application/json", "application/json"))
        assert (reply.status, reply.content_type) == (200, "application/json")
        (probabilities,) = orjson.loads(reply.body)["predictions"]
        assert len(probabilities) == 10
        assert sum(probabilities) == pytest.approx(1, abs=1e-3)
        assert reply.model_ns > 0
        assert reply.cpu_ns > 0
        assert reply.peak_bytes >= stats.footprint_bytes // 2

        await environment.stop()
        await environment.stop()
        assert environment.ended.result().cause is Cause.CLOSED
        assert environment.stats().footprint_bytes == 0
        with pytest.raises(EnvironmentFailed) as failed:
            await alone(environment, Invocation(IMAGE, "application/json", ""))
        assert failed.value.cause is Cause.CLOSED

    run(life())


def test_requests_share_a_call_and_each_gets_its_own_answer(run: Run, sandbox: Sandbox) -> None:
    two = orjson.dumps({"instances": np.zeros((2, 28, 28)).tolist()})
    bodies = [IMAGE, two, b'{"instances": [[1, 2]]}', IMAGE]

    async def life() -> None:
        environment = await sandbox.start(
            Spec("e/v/1", FASHION, warm_up=True, batch=8, compiled=True)
        )
        assert environment.together == 8
        batch = [Invocation(body, "application/json", "") for body in bodies]
        replies = await environment.invoke(batch)
        each = [await alone(environment, one) for one in batch]
        assert [reply.status for reply in replies] == [200, 200, 400, 200]
        assert replies[2].body == each[2].body
        for together, single in zip(replies, each, strict=True):
            if together.status == 200:
                rows, row = (orjson.loads(r.body)["predictions"] for r in (together, single))
                np.testing.assert_allclose(rows, row, rtol=1e-4, atol=1e-5)
        assert len({reply.model_ns for reply in replies}) == 1  # of the call that they shared
        await environment.stop()

    run(life())


def test_it_answers_what_the_model_code_says(run: Run, sandbox: Sandbox, commands: Path) -> None:
    async def life() -> None:
        variables = {"GREETING": "grüezi", "SAGEMAKER_PROGRAM": "x.py"}
        environment = await sandbox.start(Spec("e/v/1", commands, variables=variables))
        assert await told(environment, "env GREETING") == "grüezi"

        failure = await ask(environment, "fail no such luck")
        assert (failure.status, orjson.loads(failure.body)) == (500, {"error": "no such luck"})
        left = await ask(environment, "leave")
        assert (left.status, orjson.loads(left.body)) == (500, {"error": "left"})

        for size in (0, 1, 65_535, 65_536, 5 << 20):
            payload = (os.urandom(1024) * (size // 1024 + 1))[:size]
            body = b"echo " + payload
            reply = await alone(environment, Invocation(body, "application/x-npy", ""))
            assert (reply.status, reply.content_type) == (200, "application/x-npy")
            assert reply.body == payload

        several = await asyncio.gather(*(ask(environment, f"echo {i}") for i in range(20)))
        assert [reply.body for reply in several] == [str(i).encode() for i in range(20)]

        dropped = ask(environment, "echo dropped")
        dropped.cancel()
        assert (await ask(environment, "echo kept")).body == b"kept"
        await environment.stop()

    run(life())


def test_a_model_that_does_not_load_says_why(run: Run, sandbox: Sandbox, script: Script) -> None:
    broken = script("raise ValueError('this model is not for you')")

    async def life() -> None:
        with pytest.raises(EnvironmentFailed, match="this model is not for you") as failed:
            await sandbox.start(Spec("e/v/1", broken))
        assert failed.value.cause is Cause.LOAD_FAILED

    run(life())


def test_starts_run_side_by_side_and_can_be_cancelled(run: Run, sandbox: Sandbox) -> None:
    async def life() -> None:
        tasks = [asyncio.create_task(sandbox.start(Spec(f"e/v/{i}", FASHION))) for i in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(second, asyncio.CancelledError)
        for environment in (first, third):
            assert not isinstance(environment, BaseException)
            reply = await alone(environment, Invocation(IMAGE, "application/json", ""))
            assert reply.status == 200
            await environment.stop()

    run(life())


@pytest.mark.parametrize("name", BACKENDS)
def test_a_closed_sandbox_starts_nothing(run: Run, name: str) -> None:
    async def life() -> None:
        sandbox = create(name)
        await sandbox.close()
        with pytest.raises(EnvironmentFailed, match="closed") as failed:
            await sandbox.start(Spec("e/v/1", FASHION))
        assert failed.value.cause is Cause.CLOSED

    run(life())


def test_lines_of_output_reach_the_log(run: Run, processes: Sandbox, commands: Path) -> None:
    async def life() -> None:
        lines: list[str] = []
        environment = await processes.start(Spec("e/v/1", commands, log=lines.append))
        await told(environment, "say ein Wort")
        await until(lambda: "ein Wort" in lines)
        await told(environment, "say " + "x" * 100_000)
        await until(lambda: sum(line.count("x") for line in lines) >= 100_000)
        assert max(map(len, lines)) <= 1 << 14
        await told(environment, "say the end")
        await environment.stop()
        assert lines[-1] == "the end"

    run(life())


def test_an_unknown_backend_is_named() -> None:
    assert default_backend() in BACKENDS
    with pytest.raises(ValueError, match="There is no sandbox 'docker': choose one of fork, spawn"):
        create("docker")
