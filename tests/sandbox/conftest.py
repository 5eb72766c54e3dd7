"""One event loop and one opened sandbox of each kind for the whole session (importing TensorFlow
takes seconds), and models whose code misbehaves on request."""

from __future__ import annotations

import asyncio
import shutil
import textwrap
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

import model
from emulator.sandbox.backends import create
from emulator.sandbox.protocol import Environment, Invocation, Reply, Sandbox, Spec

T = TypeVar("T")
DEADLINE_S = 100.0
FASHION = Path(model.__file__).parent / "artifacts" / "fashion-mnist"
CONVERSION = FASHION.with_name("fashion-mnist-litert")


class Run(Protocol):
    """Runs a coroutine on the session's loop, with a deadline."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], seconds: float = ...) -> T: ...


Script = Callable[[str], Path]


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:

        def within(coroutine: Coroutine[Any, Any, T], seconds: float = DEADLINE_S) -> T:
            return runner.run(asyncio.wait_for(coroutine, seconds))

        yield within


def opened(run: Run, name: str) -> Iterator[Sandbox]:
    sandbox = create(name)
    run(sandbox.open())
    yield sandbox
    run(sandbox.close())


@pytest.fixture(scope="session")
def fork(run: Run) -> Iterator[Sandbox]:
    yield from opened(run, "fork")


@pytest.fixture(scope="session")
def spawn(run: Run) -> Iterator[Sandbox]:
    yield from opened(run, "spawn")


@pytest.fixture(scope="session")
def inline(run: Run) -> Iterator[Sandbox]:
    yield from opened(run, "inline")


class Light:
    """A backend whose environments run LiteRT, whatever is asked for."""

    def __init__(self, backend: Sandbox) -> None:
        self._backend = backend
        self.name = backend.name
        self.open, self.close = backend.open, backend.close

    async def start(self, spec: Spec) -> Environment:
        return await self._backend.start(replace(spec, conversion=CONVERSION))


def chosen(request: pytest.FixtureRequest) -> Sandbox:
    name, _, runtime = request.param.partition("-")
    backend: Sandbox = request.getfixturevalue(name)
    if runtime:
        pytest.importorskip("ai_edge_litert")
    return Light(backend) if runtime else backend


@pytest.fixture(params=["fork", "spawn", "inline", "fork-litert", "spawn-litert", "inline-litert"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Every backend in turn, and every runtime."""
    return chosen(request)


@pytest.fixture(params=["fork", "spawn", "fork-litert", "spawn-litert"])
def processes(request: pytest.FixtureRequest) -> Sandbox:
    """The backends that run processes."""
    return chosen(request)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes a model directory around a `code/inference.py` with the given source."""

    def directory(source: str) -> Path:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "inference.py").write_text(textwrap.dedent(source))
        shutil.copy(FASHION / "fashion-mnist.keras", tmp_path / "model.keras")
        return tmp_path

    return directory


COMMANDS = """
    import json, os, resource, signal, sys, threading, time

    kept = []

    def handler(data, context):
        command, _, argument = data.read().decode("latin-1").partition(" ")
        if command == "echo":
            return argument.encode("latin-1"), context.request_content_type
        return json.dumps(globals()["do_" + command](argument)), "application/json"

    def do_env(name): return os.environ.get(name)
    def do_environ(_): return dict(os.environ)
    def do_write(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file: file.write("written")
    def do_say(text): print(text)
    def do_exit(code): os._exit(int(code))
    def do_kill(number): os.kill(os.getpid(), int(number))
    def do_hang(_): threading.Event().wait()
    def do_leave(_): sys.exit("left")
    def do_fail(text): raise RuntimeError(text)
    def do_draw(_): import random, numpy; return [random.random(), numpy.random.random()]
    def do_files(_):
        links = [(n, f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
        return {n: os.readlink(link) for n, link in links if os.path.lexists(link)}
    def do_folders(_):
        import tempfile
        names = [os.environ["HOME"], os.environ["TMPDIR"], os.getcwd(), tempfile.gettempdir()]
        return [os.path.realpath(name) for name in names]
    def do_session(_): return [os.getsid(0), os.getpgid(0), os.getcwd()]
    def do_core(_): return resource.getrlimit(resource.RLIMIT_CORE)
    def do_signals(_): return [signal.getsignal(s) == h for s, h in (
        (signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL))]
    def do_spike(megabytes): len(bytearray(b"x") * (int(megabytes) << 20))
    def do_leak(megabytes): kept.append(bytearray(b"x") * (int(megabytes) << 20))
    def do_swallow(_):
        while len(kept) < 100: do_leak(20); time.sleep(0.005)
        do_hang(_)
    def do_subprocess(_):
        pid = os.fork()
        if pid == 0: threading.Event().wait()
        return pid
"""


@pytest.fixture
def commands(script: Script) -> Path:
    """A model whose handler does what the body says: a command, a space, an argument."""
    return script(COMMANDS)


def ask(environment: Environment, body: str, content_type: str = "text/plain") -> Any:
    """The future of one invocation of the `commands` model."""
    return alone(environment, Invocation(body.encode("latin-1"), content_type, "*/*"))


def alone(environment: Environment, invocation: Invocation) -> asyncio.Future[Reply]:
    """One request in a call of its own."""
    return asyncio.ensure_future(_only(environment.invoke([invocation])))


async def _only(replies: asyncio.Future[list[Reply]]) -> Reply:
    (reply,) = await replies
    return reply


async def told(environment: Environment, body: str) -> Any:
    """What the `commands` model answered, out of its JSON."""
    import orjson

    reply: Reply = await ask(environment, body)
    assert reply.status == 200, reply.body
    return orjson.loads(reply.body)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for `condition`, and fail if it does not come true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
