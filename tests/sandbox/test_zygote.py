"""The zygote's death, the server's death, and a runtime that cannot be imported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from emulator.core import Cause
from emulator.sandbox.backends import create
from emulator.sandbox.protocol import EnvironmentFailed, Spec
from tests.sandbox.conftest import FASHION, Run, alive, told, until


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_zygote_takes_its_environments_along_and_is_replaced(
    run: Run, commands: Path
) -> None:
    async def heal() -> None:
        sandbox = create("fork")
        try:
            old = await sandbox.start(Spec("e/v/1", commands))
            in_flight = asyncio.create_task(sandbox.start(Spec("e/v/2", commands)))
            await asyncio.sleep(0)
            os.kill(parent(old.pid), signal.SIGKILL)
            failed = await old.ended
            assert failed.cause is Cause.DIED
            assert "zygote" in failed.message
            await until(lambda: not alive(old.pid))
            new = await in_flight  # tried again on the new zygote
            assert await told(new, "session")
            assert parent(new.pid) != parent(os.getpid())
        finally:
            await sandbox.close()

    run(heal())


SERVER = """
    import asyncio, sys
    from pathlib import Path
    from emulator.sandbox.backends import create
    from emulator.sandbox.protocol import Invocation, Spec

    async def serve():
        kind, model = sys.argv[1:]
        sandbox = create(kind)
        environments = [await sandbox.start(Spec("e", Path(model))) for _ in range(2)]
        assert "tensorflow" not in sys.modules and "model.inference" not in sys.modules
        busy = environments[0].invoke([Invocation(b"hang", "", "")])
        print(*(environment.pid for environment in environments), flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())
"""


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_nothing_outlives_a_killed_server(run: Run, commands: Path, kind: str) -> None:
    """Neither an idle environment nor a busy one, which does not look at its socket."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER), kind, str(commands)]
    variables = os.environ | {"TMPDIR": str(commands)}  # a killed server cannot tidy up
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables, text=True) as server:
        assert server.stdout is not None
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) == 2
        if kind == "fork":
            pids.append(parent(pids[0]))
            assert parent(pids[-1]) == server.pid
        assert all(map(alive, pids))
        server.kill()
    run(until(lambda: not any(map(alive, pids))))


def test_a_runtime_that_cannot_be_imported_is_explained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('a library is missing')")
    (tmp_path / "keras.py").write_text("raise ImportError('a library is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def fail() -> None:
        sandbox = create("fork")
        for attempt in (sandbox.open, sandbox.open):
            with pytest.raises(EnvironmentFailed, match="a library is missing") as failed:
                await attempt()
            assert failed.value.cause is Cause.LOAD_FAILED
        await sandbox.close()

    run(fail())


def test_closing_while_the_zygote_comes_up(run: Run) -> None:
    async def close() -> None:
        sandbox = create("fork")
        start = asyncio.create_task(sandbox.start(Spec("e/v/1", FASHION)))
        await asyncio.sleep(0)
        await sandbox.close()
        with pytest.raises(EnvironmentFailed) as failed:
            await start
        assert failed.value.cause is Cause.CLOSED

    run(close())


def forks() -> set[int]:
    """The zygotes of this process and what they have forked, whoever is their parent by now."""
    mine, found = str(os.getpid()).encode(), set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = path.read_bytes().split(b"\0")
            if b"emulator.sandbox.zygote" in words and mine in words:
                found.add(int(path.parent.name))
    return found


def test_closing_in_the_middle_of_a_fork_leaves_no_process(run: Run) -> None:
    """Not even one that nobody has been told of yet."""

    async def close() -> None:
        others = forks()
        sandbox = create("fork")
        await sandbox.open()
        known = forks() - others
        starts = [asyncio.create_task(sandbox.start(Spec("e/v/1", FASHION))) for _ in range(3)]
        await until(lambda: bool(forks() - others - known))
        for start in starts:
            start.cancel()
        await sandbox.close()
        assert forks() == others

    run(close())


def test_it_works_under_uvloop(commands: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def life() -> None:
        sandbox = create("fork")
        try:
            lines: list[str] = []
            environment = await sandbox.start(Spec("e/v/1", commands, log=lines.append))
            await told(environment, "say hello")
            await until(lambda: "hello" in lines)
            os.kill(environment.pid, signal.SIGKILL)
            assert "SIGKILL" in (await environment.ended).message
            other = await sandbox.start(Spec("e/v/2", commands))
            await other.stop()
        finally:
            await sandbox.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(life(), 100))
