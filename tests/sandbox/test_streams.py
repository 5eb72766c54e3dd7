"""Answers that are yielded: part by part, at the client's pace, and ended when nobody wants
more."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.core import Cause
from emulator.sandbox.backends import create
from emulator.sandbox.frames import Kind, send
from emulator.sandbox.parts import Incoming
from emulator.sandbox.protocol import (
    Environment,
    EnvironmentFailed,
    Invocation,
    Reply,
    Sandbox,
    Spec,
)
from emulator.sandbox.stream import HIGH_BYTES, Stream
from tests.sandbox.conftest import Run, ask, told, until

SCRIPT = """
import json, os, sys, threading

said = []

def model_fn(model_dir): return None
def input_fn(body, content_type): return body.decode()
def output_fn(prediction, accept): return prediction, "text/x-parts"

def predict_fn(data, model):
    command, _, argument = data.partition(" ")
    return globals()["do_" + command](argument)

def do_count(last):
    for number in range(int(last)): yield f"{number};"
def do_plain(text): return text
def do_said(_): return json.dumps(said)
def do_large(size): yield bytes(int(size))
def do_nothing(_): return iter(["", b""])
def do_first(text): raise ValueError(text)
def do_late(text):
    yield "begun;"
    raise ValueError(text)
def do_before(text):
    if text: raise ValueError(text)
    yield ""
def do_wrong(_):
    yield "begun;"
    yield 5
def do_leave(_):
    yield "begun;"
    sys.exit("left")
def do_exit(code):
    yield "begun;"
    os._exit(int(code))
def do_flood(_):
    try:
        while True:
            said.append(len(said))
            yield bytes(10_000)
    finally:
        said.append("closed")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(SCRIPT)
    return folder


@pytest.fixture(scope="module", params=["spawn", "inline"])
def backend(request: pytest.FixtureRequest, run: Run) -> Iterator[Sandbox]:
    sandbox = create(request.param)
    yield sandbox
    run(sandbox.close())


@pytest.fixture
def environment(run: Run, backend: Sandbox, model: Path) -> Iterator[Environment]:
    started = run(backend.start(Spec("e/v/1", model, program="inference.py")))
    yield started
    run(started.stop())


def begun(environment: Environment, body: str) -> tuple[Stream, asyncio.Future[Reply]]:
    stream = Stream()
    stream.limit = 1 << 40
    invocation = Invocation(body.encode(), "text/plain", "", stream=stream)
    reply = asyncio.ensure_future(only(environment.invoke([invocation]), stream))
    return stream, reply


async def only(replies: asyncio.Future[list[Reply]], stream: Stream) -> Reply:
    try:
        (reply,) = await replies
    finally:
        stream.end()
    return reply


async def taken(stream: Stream) -> list[bytes]:
    found = []
    while (part := await stream.take()) is not None:
        found.append(part)
    return found


def test_parts_come_as_they_are_yielded(run: Run, environment: Environment) -> None:
    async def life() -> None:
        stream, reply = begun(environment, "count 3")
        assert await taken(stream) == [b"0;", b"1;", b"2;"]
        assert stream.opened.done()
        assert stream.content_type == "text/x-parts"
        assert stream.size == 6
        end = await reply
        assert (end.status, end.body) == (200, b"")
        assert end.model_ns > 0
        whole = await ask(environment, "count 3")  # not asked for in parts
        assert (whole.body, whole.content_type) == (b"0;1;2;", "text/x-parts")

    run(life())


def test_what_is_not_yielded_is_a_reply(run: Run, environment: Environment) -> None:
    async def life() -> None:
        for body in ("plain text", "plain "):
            stream, reply = begun(environment, body)
            assert await taken(stream) == []
            assert (await reply).body == body.removeprefix("plain ").encode()
            assert not stream.opened.done()
        stream, reply = begun(environment, "nothing")
        assert await taken(stream) == []
        assert (await reply).status == 200

    run(life())


def test_a_large_part_comes_in_pieces(run: Run, environment: Environment) -> None:
    async def life() -> None:
        stream, reply = begun(environment, f"large {5 << 20}")
        parts = await taken(stream)
        assert sum(map(len, parts)) == 5 << 20
        assert max(map(len, parts)) <= HIGH_BYTES
        assert (await reply).status == 200

    run(life())


@pytest.mark.parametrize("command", ["first", "before"])
def test_an_error_before_the_first_part_is_a_reply(
    run: Run, environment: Environment, command: str
) -> None:
    async def life() -> None:
        stream, reply = begun(environment, f"{command} no such luck")
        assert await taken(stream) == []
        assert not stream.opened.done()
        end = await reply
        assert (end.status, json.loads(end.body)) == (500, {"error": "no such luck"})
        whole = await ask(environment, f"{command} no such luck")
        assert (whole.status, whole.body) == (end.status, end.body)

    run(life())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("late no such luck", "no such luck"),
        ("wrong", "output_fn gave int as the body; str or bytes is due."),
        ("leave", "left"),
    ],
)
def test_an_error_later_ends_the_stream(
    run: Run, environment: Environment, command: str, said: str
) -> None:
    async def life() -> None:
        stream, reply = begun(environment, command)
        assert await taken(stream) == [b"begun;"]
        end = await reply
        assert (end.status, json.loads(end.body)) == (500, {"error": said})
        assert (await ask(environment, "plain on")).body == b"on"

    run(life())


def test_a_slow_client_makes_the_environment_wait_and_nothing_grow(
    run: Run, environment: Environment
) -> None:
    async def life() -> None:
        stream, reply = begun(environment, "flood")
        await stream.opened
        size = -1

        async def still() -> bool:
            nonlocal size
            before, size = size, stream.size
            await asyncio.sleep(0.05)
            return before == size == stream.size

        for _ in range(200):
            if await still():
                break
        else:
            raise AssertionError("it goes on though nobody takes anything")
        held = stream.size
        assert held < HIGH_BYTES + (1 << 18)
        for _ in range(100):
            assert await stream.take() is not None
        await until(lambda: stream.size > held)  # it goes on
        stream.abandon()
        assert (await reply).status == 200

    run(life())


def test_a_client_that_leaves_frees_the_environment(run: Run, environment: Environment) -> None:
    async def life() -> None:
        stream, reply = begun(environment, "flood")
        await stream.opened
        stream.abandon()
        assert (await reply).status == 200
        said = await told(environment, "said")
        assert said[-1] == "closed"
        before = await told(environment, "said")
        other, second = begun(environment, "count 2")  # a late word for the first is not for it
        stream.abandon()
        assert await taken(other) == [b"0;", b"1;"]
        assert (await second).status == 200
        assert await told(environment, "said") == before

    run(life())


def test_requests_behind_a_stream_are_not_lost(run: Run, environment: Environment) -> None:
    async def life() -> None:
        stream, reply = begun(environment, "flood")
        behind = [ask(environment, f"plain {number}") for number in range(3)]
        await stream.opened
        stream.abandon()
        await reply
        assert [(await one).body for one in behind] == [b"0", b"1", b"2"]

    run(life())


def test_what_is_over_the_limit_is_not_passed_on(run: Run, environment: Environment) -> None:
    async def life() -> None:
        stream, reply = begun(environment, "flood")
        stream.limit = 35_000
        assert await taken(stream) == [bytes(10_000)] * 3
        await reply
        assert stream.size > 35_000

    run(life())


class Tap:
    """A source that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def cancel(self) -> None:
        self.told.append("cancel")


def test_who_is_told_what(run: Run) -> None:
    async def life() -> None:
        tap, stream = Tap(), Stream()
        stream.limit = 1 << 40
        stream.begin(tap)
        stream.put(bytes(HIGH_BYTES))
        assert tap.told == []
        stream.put(b"x")
        stream.put(b"x")
        assert tap.told == ["pause"]
        stream.release()  # the environment has ended: it may not be kept from its next request
        assert tap.told == ["pause", "resume"]
        stream.end()
        stream.abandon()
        assert tap.told == ["pause", "resume"]
        assert len(b"".join(await taken(stream))) == HIGH_BYTES + 2

        tap, stream = Tap(), Stream()
        stream.abandon()  # before it was asked for
        stream.begin(tap)
        stream.put(b"x")
        assert tap.told == ["cancel"]
        assert await stream.take() is None

    run(life())


def test_the_end_of_one_stream_is_not_that_of_another() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        incoming = Incoming(theirs)
        send(ours, Kind.CANCEL, {"stream": 1})
        send(ours, Kind.INVOKE, {"requests": []})
        assert not incoming.cancelled(2)
        send(ours, Kind.CANCEL, {"stream": 2})
        assert incoming.cancelled(2)
        send(ours, Kind.CANCEL, {"stream": 2})
        frame = incoming.next()
        assert frame is not None
        assert frame.kind is Kind.INVOKE
        ours.close()
        assert incoming.next() is None


def test_a_death_in_the_middle(run: Run, spawn: Sandbox, model: Path) -> None:
    async def life() -> None:
        environment = await spawn.start(Spec("e/v/1", model, program="inference.py"))
        stream, reply = begun(environment, "exit 3")
        assert await taken(stream) == [b"begun;"]
        with pytest.raises(EnvironmentFailed, match="exit code 3") as failed:
            await reply
        assert failed.value.cause is Cause.DIED

    run(life())
