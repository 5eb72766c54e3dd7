"""Environments without TensorFlow: what LiteRT does not load, and what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from emulator.core import MIB, Runtime
from emulator.sandbox.backends import create
from emulator.sandbox.protocol import Invocation, Sandbox, Spec
from tests.sandbox.conftest import CONVERSION, FASHION, Run

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

LIGHT = Spec("e/v/1", FASHION, CONVERSION)
ASKED = Invocation((FASHION.parent / "sneaker.json").read_bytes(), "application/json", "")


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(params=["fork", "spawn"])
def unused(request: pytest.FixtureRequest, run: Run) -> Iterator[Sandbox]:
    """A backend that has started nothing yet."""
    sandbox = create(request.param)
    yield sandbox
    run(sandbox.close())


def test_litert_alone_starts_nothing_of_tensorflow(run: Run, unused: Sandbox) -> None:
    async def life() -> None:
        await unused.open(Runtime.LITERT)
        environment = await unused.start(LIGHT)
        (reply,) = await environment.invoke([ASKED])
        (scores,) = orjson.loads(reply.body)["predictions"]
        assert scores.index(max(scores)) == 7
        for pid in {environment.pid, parent(environment.pid)} - {os.getpid()}:
            assert "ai_edge_litert" in maps(pid)
            assert "tensorflow" not in maps(pid)
        assert environment.stats().footprint_bytes < 120 * MIB
        assert reply.peak_bytes < 120 * MIB
        await environment.stop()

    run(life())


def test_both_runtimes_run_side_by_side(run: Run, fork: Sandbox) -> None:
    async def life() -> None:
        light = await fork.start(LIGHT)
        heavy = await fork.start(Spec("e/v/2", FASHION))
        assert "tensorflow" in maps(heavy.pid)
        assert parent(light.pid) != parent(heavy.pid)
        replies = [reply for one in (light, heavy) for reply in await one.invoke([ASKED])]
        (given,), (due,) = (orjson.loads(reply.body)["predictions"] for reply in replies)
        assert given == pytest.approx(due, abs=1e-6)
        await light.stop()
        await heavy.stop()

    run(life())
