"""What only a process can do: die, take too much memory, be isolated from the server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.core import MIB, Cause
from emulator.sandbox.protocol import Environment, EnvironmentFailed, Sandbox, Spec
from tests.sandbox.conftest import FASHION, Run, Script, alive, ask, told, until

SECRET = "SECRET_OF_THE_SERVER"


@pytest.fixture
def environment(run: Run, fork: Sandbox, commands: Path) -> Iterator[Environment]:
    started = run(fork.start(Spec("e/v/1", commands)))
    yield started
    run(started.stop())


@pytest.mark.parametrize(
    ("command", "words"),
    [("exit 3", "exit code 3"), ("kill 9", r"signal 9 \(SIGKILL\)"), ("kill 11", "SIGSEGV")],
)
def test_death_while_serving(run: Run, environment: Environment, command: str, words: str) -> None:
    async def die() -> None:
        with pytest.raises(EnvironmentFailed, match=f"The process ended .*{words}") as failed:
            await ask(environment, command)
        assert failed.value.cause is Cause.DIED
        assert await environment.ended is failed.value
        assert not alive(environment.pid)

    run(die())


def test_death_while_idle(run: Run, environment: Environment) -> None:
    async def die() -> None:
        os.kill(environment.pid, signal.SIGTERM)
        assert "signal 15 (SIGTERM)" in (await environment.ended).message

    run(die())


def test_death_while_loading(run: Run, processes: Sandbox, script: Script) -> None:
    deadly = script("import os, sys; print('last words', file=sys.stderr); os._exit(7)")

    async def die() -> None:
        with pytest.raises(EnvironmentFailed, match=r"exit code 7 .*loading.*last words") as failed:
            await processes.start(Spec("e/v/1", deadly))
        assert failed.value.cause is Cause.DIED

    run(die())


def test_a_fresh_process_that_dies_is_noticed(run: Run, spawn: Sandbox, commands: Path) -> None:
    async def die() -> None:
        environment = await spawn.start(Spec("e/v/1", commands))
        assert (await told(environment, "session"))[0] == environment.pid
        with pytest.raises(EnvironmentFailed, match=r"signal 9 \(SIGKILL\)"):
            await ask(environment, "kill 9")

    run(die())


def test_stop_ends_what_hangs(run: Run, environment: Environment) -> None:
    async def stop() -> None:
        hanging = ask(environment, "hang")
        await environment.stop()
        with pytest.raises(EnvironmentFailed, match="stopped"):
            await hanging
        assert not alive(environment.pid)

    run(stop())


def test_subprocesses_go_with_their_environment(run: Run, environment: Environment) -> None:
    async def stop() -> None:
        other = await told(environment, "subprocess")
        assert alive(other)
        os.kill(environment.pid, signal.SIGKILL)
        assert (await environment.ended).cause is Cause.DIED  # though the socket is still open
        await until(lambda: not alive(other))

    run(stop())


def test_a_cancelled_start_leaves_no_process(run: Run, fork: Sandbox, script: Script) -> None:
    slow = script("import os, threading; print('pid', os.getpid()); threading.Event().wait()")

    async def cancel() -> None:
        lines: list[str] = []
        start = asyncio.create_task(fork.start(Spec("e/v/1", slow, log=lines.append)))
        await until(lambda: any(line.startswith("pid ") for line in lines))
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        (pid,) = (int(line[4:]) for line in lines if line.startswith("pid "))
        assert not alive(pid)

    run(cancel())


def test_too_much_memory_while_loading(run: Run, fork: Sandbox, script: Script) -> None:
    greedy = script("kept = [bytearray(b'x') * (20 << 20) for _ in range(100)]")

    async def load() -> None:
        with pytest.raises(EnvironmentFailed, match="more than its limit of 1024 MB") as failed:
            await fork.start(Spec("e/v/1", greedy, memory_bytes=1024 * MIB))
        assert failed.value.cause is Cause.OUT_OF_MEMORY

    run(load())


def test_a_model_larger_than_the_limit_does_not_come_up(run: Run, processes: Sandbox) -> None:
    async def load() -> None:
        with pytest.raises(EnvironmentFailed, match="more than its limit of 32 MB") as failed:
            await processes.start(Spec("e/v/1", FASHION, memory_bytes=32 * MIB))
        assert failed.value.cause is Cause.OUT_OF_MEMORY

    run(load())


@pytest.mark.parametrize("command", ["swallow", "spike 900", "leak 900"])
def test_too_much_memory_while_serving(
    run: Run, fork: Sandbox, commands: Path, command: str
) -> None:
    async def serve() -> None:
        environment = await fork.start(Spec("e/v/1", commands, memory_bytes=1024 * MIB))
        assert (await ask(environment, "spike 50")).status == 200
        with pytest.raises(EnvironmentFailed, match="limit of 1024 MB") as failed:
            await ask(environment, command)
        assert failed.value.cause is Cause.OUT_OF_MEMORY
        assert (await environment.ended).cause is Cause.OUT_OF_MEMORY
        await until(lambda: not alive(environment.pid))  # a gigabyte takes the kernel a moment

    run(serve())


def test_a_spike_too_short_to_be_watched(run: Run, fork: Sandbox, commands: Path) -> None:
    async def serve() -> None:
        other = await fork.start(Spec("e/v/1", commands))
        usual = (await ask(other, "echo")).peak_bytes
        await other.stop()
        limit = usual + 250 * MIB
        environment = await fork.start(Spec("e/v/2", commands, memory_bytes=limit))
        assert (await ask(environment, "spike 200")).status == 200
        with pytest.raises(EnvironmentFailed) as failed:
            await ask(environment, "spike 280")  # over the limit for some milliseconds
        assert failed.value.cause is Cause.OUT_OF_MEMORY

    run(serve())


def test_the_peak_counts_what_was_given_back(run: Run, environment: Environment) -> None:
    async def serve() -> None:
        before = (await ask(environment, "echo")).peak_bytes
        spike = (await ask(environment, "spike 200")).peak_bytes
        assert 190 * MIB < spike - before < 260 * MIB
        await until(lambda: environment.stats().footprint_bytes < spike - 150 * MIB)
        leak = (await ask(environment, "leak 600")).peak_bytes
        assert leak - spike > 350 * MIB
        await until(lambda: environment.stats().private_bytes > 600 * MIB)

    run(serve())


def test_no_secret_of_the_server_is_visible(
    run: Run, processes: Sandbox, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "EMULATOR_PORT", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, SECRET)

    async def look() -> None:
        spec = Spec("e/v/1", commands, variables={"MINE": "yes"})
        environment = await processes.start(spec)
        seen = await told(environment, "environ")
        first = Path(f"/proc/{environment.pid}/environ").read_text()
        await environment.stop()
        assert seen["MINE"] == "yes"
        assert SECRET not in str(seen) + first
        assert seen["HOME"] != os.environ.get("HOME")
        assert seen["PATH"] == os.environ["PATH"]

    run(look())


def test_a_zygote_is_born_without_secrets_and_files(
    run: Run, commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's zygote is older than what the other tests here hide; this one is not."""
    from emulator.sandbox.backends import create

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    async def look() -> None:
        sandbox = create("fork")
        try:
            with (tmp_path / "open").open("w") as marker:
                os.set_inheritable(marker.fileno(), True)
                environment = await sandbox.start(Spec("e/v/1", commands))
            assert SECRET not in str(await told(environment, "environ"))
            stat = Path(f"/proc/{environment.pid}/stat").read_text()
            zygote = Path("/proc", stat.rpartition(")")[2].split()[1])
            assert SECRET not in (zygote / "environ").read_text()
            opened = [str(one.readlink()) for one in (zygote / "fd").iterdir()]
            assert marker.name not in [*opened, *(await told(environment, "files")).values()]
        finally:
            await sandbox.close()
        assert not alive(environment.pid)
        assert environment.ended.result().cause is Cause.CLOSED

    run(look())


def test_nothing_of_the_server_is_inherited(
    run: Run, processes: Sandbox, commands: Path, tmp_path: Path
) -> None:
    async def look() -> None:
        with (tmp_path / "open").open("w") as marker:
            os.set_inheritable(marker.fileno(), True)
            both = [await processes.start(Spec(f"e/v/{i}", commands)) for i in (1, 2)]
        files, others = [await told(each, "files") for each in both]
        await asyncio.gather(*(each.stop() for each in both))
        targets = list(files.values())
        assert files["0"] == "/dev/null"
        assert files["1"] == files["2"]
        assert files["1"].startswith("pipe:")
        assert marker.name not in targets
        own = {target for target in targets if target.startswith(("socket:", "pipe:"))}
        assert own
        assert own.isdisjoint(others.values())

    run(look())


def test_it_is_alone_in_its_session(run: Run, processes: Sandbox, commands: Path) -> None:
    async def look() -> None:
        environment = await processes.start(Spec("e/v/1", commands))
        session, group, directory = await told(environment, "session")
        assert session == group == environment.pid
        assert directory not in ("/", str(Path.cwd()))
        assert await told(environment, "core") == [0, 0]
        assert await told(environment, "signals") == [True, True, True]
        await environment.stop()

    run(look())


def test_siblings_draw_different_numbers(run: Run, fork: Sandbox, commands: Path) -> None:
    async def draw() -> None:
        specs = [Spec(f"e/v/{i}", commands) for i in range(2)]
        one, two = await asyncio.gather(*map(fork.start, specs))
        drawn = [*await told(one, "draw"), *await told(two, "draw")]
        assert len(set(drawn)) == 4
        await asyncio.gather(one.stop(), two.stop())

    run(draw())
