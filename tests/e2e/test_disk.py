"""A disk that is full, read-only or failing under the ledger: calls fail and are not billed, the
server lives on, and goes on by itself when the disk does."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.load import REALTIME, SERVERLESS, Load, Reading, check_bill, read_meter, rows
from tests.servers import LEFT_S, LIGHT, ROOT, Server, failed_start, serverless, serving, until

INSIDE = "LUKEWARM_TEST_OWN_MOUNTS"
ROUNDING_S = 0.1


def with_own_mounts(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Run the test where it may mount, as any user: in namespaces of its own, where nothing that
    it mounts can stay behind. Skips where the machine allows neither root nor others to do so."""

    def run(tmp_path: Path) -> None:
        if os.environ.get(INSIDE):
            test(tmp_path)
            return
        ways = (["unshare", "-rm"], ["unshare", "-m"])
        allowed = [way for way in ways if shutil.which("unshare") and _mounts(way, tmp_path)]
        if not allowed:
            pytest.skip("needs a mount namespace: neither `unshare -rm` nor `unshare -m` mounts")
        name = os.environ["PYTEST_CURRENT_TEST"].split(" ")[0]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        variables = os.environ | {INSIDE: "yes"}
        done = subprocess.run([*allowed[0], *command], cwd=ROOT, env=variables, capture_output=True)
        assert done.returncode == 0, done.stdout.decode()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def _mounts(way: list[str], folder: Path) -> bool:
    command = [*way, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def remounted(folder: Path, how: str) -> bool:
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def check_failing(server: Server, load: Load, why: str) -> None:
    """What a ledger that cannot be written does, and does not do, to a server under load."""
    begin = len(load.answers)
    load.wait(530, 20, "calls fail")
    failed = [one for one in list(load.answers.values())[begin:] if one.status_code == 530]
    for one in failed:
        assert one.headers["x-amzn-errortype"] == "InternalDependencyException"
        words = f"The invocation could not be recorded in the ledger and is not billed: {why}"
        assert one.json()["Message"].startswith(words)
    for path in ("/ping", "/metrics", "/billing", "/_emulator/invocations"):
        assert server.client.get(path).status_code == 200, path
    refused = server.create("another", serverless())
    assert refused.status_code in (400, 503)  # a model, or a record, that finds no room
    assert refused.json()["detail"].endswith(".")
    assert server.client.get("/_emulator/endpoints/another").status_code == 404


def check_books(server: Server, load: Load) -> None:
    """Every call that was answered is recorded, billed and counted once, and none that failed."""
    assert load.statuses().keys() == {200, 530}
    good = {key for key, one in load.answers.items() if one.status_code == 200}
    assert Counter(row["request_id"] for row in rows(server)) == Counter(good)
    check_bill(server)
    counted = [
        float(line.rpartition(" ")[2])
        for line in server.client.get("/metrics").text.splitlines()
        if line.startswith("sagemaker_invocations_total{")
    ]
    assert sum(counted) == len(good)


def check_time(before: Reading, after: Reading) -> None:
    """The instance was held all the time: nothing of that is lost, nothing is invented."""
    grown = after.held - before.held
    assert after.asked - before.told - ROUNDING_S <= grown
    assert grown <= after.told - before.asked + ROUNDING_S


def check_ledger(server: Server) -> None:
    with sqlite3.connect(server.state / "ledger.sqlite") as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ledger.close()


@pytest.mark.timeout(300)
@with_own_mounts
def test_a_full_disk(tmp_path: Path) -> None:
    state, load = tmp_path / "state", Load()
    state.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(state))
    filler = fill(state)
    assert f"{state} cannot be used (No space left on device)" in failed_start(state)
    filler.unlink()
    with serving(tmp_path, **LIGHT) as server:
        before, pids = read_meter(server), server.pids()
        with load.on(server, [REALTIME, SERVERLESS]):
            load.wait(200, 20, "calls are answered")
            filler = fill(state)
            check_failing(server, load, "database or disk is full")
            filler.unlink()
            load.wait(200, 20, "it goes on by itself")
        check_books(server, load)
        check_time(before, read_meter(server))
        assert set(pids) <= set(server.pids())
        assert "Traceback" not in server.log.read_text()
        check_restarts(server)


def check_restarts(server: Server) -> None:
    """A crash and a restart on a full disk lose nothing, and neither does a read-only one."""
    known = rows(server)
    server.stop(signal.SIGKILL)  # so that there is a log to fold in
    filler = fill(server.state)
    with suppress(AssertionError):  # the log may have room left for what a start writes
        server.start()
    if server.process.poll() is None:
        server.stop(signal.SIGKILL)
    else:
        assert "cannot be used (database or disk is full): mend that" in server.log.read_text()
    filler.unlink()
    server.start()
    assert rows(server) == known
    server.stop()
    check_ledger(server)
    # No process is left, but the kernel forgets their Landlock rules, and with them the scratch
    # folders that they name, a few milliseconds later.
    until(lambda: remounted(server.state, "ro"), "nothing holds the state directory", LEFT_S)
    assert f"{server.state} cannot be used (Read-only file" in failed_start(server.state)
    assert remounted(server.state, "rw")
    server.start()
    assert rows(server) == known


@contextmanager
def no_file_can_be_written(pid: int, error: str) -> Iterator[None]:
    """As on a disk that the kernel has made read-only, or that fails; a mount cannot be made
    read-only while a server writes to it. SQLite writes with pwrite64, nothing else here does."""
    command = ["strace", "-f", "-qq", "-e", "trace=pwrite64", "-p", str(pid), "-o", "/dev/null"]
    tracer = subprocess.Popen([*command, "-e", f"inject=pwrite64:error={error}"])
    try:
        status = Path(f"/proc/{pid}/status")
        until(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text(), "the tracer is attached")
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)


def traceable() -> bool:
    command = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=pwrite64:error=EIO", "true"]
    return bool(shutil.which("strace")) and subprocess.run(command).returncode == 0


@pytest.mark.timeout(300)
@pytest.mark.skipif(not traceable(), reason="needs strace, and the permission to trace")
def test_a_disk_that_turns_read_only_or_fails(tmp_path: Path) -> None:
    load = Load()
    with serving(tmp_path, **LIGHT) as server:
        before, pids = read_meter(server), server.pids()
        with load.on(server, [REALTIME, SERVERLESS]):
            for error in ("EROFS", "EIO"):
                load.wait(200, 20, "calls are answered")
                with no_file_can_be_written(server.process.pid, error):
                    check_failing(server, load, "disk I/O error")
            load.wait(200, 20, "it goes on by itself")
        check_books(server, load)
        check_time(before, read_meter(server))
        assert server.pids() == pids
        assert "Traceback" not in server.log.read_text()
        known = rows(server)
        server.stop()
        check_ledger(server)
        server.start()
        assert rows(server) == known
