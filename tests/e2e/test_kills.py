"""Processes that are killed, stopped, flood their output or leak: told in words, and replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import (
    LIGHT,
    Server,
    alive,
    archive,
    descendants,
    realtime,
    serverless,
    serving,
    until,
)

SERVERLESS = "fashion-mnist-serverless"
OK = "    return b'{}', 'application/json'\n"
GATED = "import os, time\nwhile os.path.exists({gate!r}):\n    time.sleep(0.01)\n"
HANG = (
    "import time\ndef handler(data, context):\n    if data.read() == b'hang':\n"
    "        time.sleep(3600)\n" + OK
)
LEAK = "kept = []\ndef handler(data, context):\n    kept.append(b'x' * (40 << 20))\n" + OK
FLOOD = """
import threading
def flood():
    while True:
        print('flood ' * 20)
def handler(data, context):
    if data.read() == b'flood':
        threading.Thread(target=flood, daemon=True).start()
    return b'{}', 'application/json'
"""
LIMIT_S = 4
LOGGED = 10 << 20  # bytes of a flood that are waited for
GROWTH = 8 << 20  # of the server meanwhile: some for the allocator, none for the flood


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server under the wall clock that does not give an answer a minute."""
    limit = {"EMULATOR_ANSWER_LIMIT_S": str(LIMIT_S)}
    with serving(tmp_path_factory.mktemp("brisk"), **limit, **LIGHT) as running:
        yield running


def newcomer(server: Server, known: set[int]) -> int:
    """The process that the server has started since."""

    def found() -> int:
        return max(set(descendants(server.process.pid)) - known, default=0)

    return until(found, "a process starts")


def idle_pid(server: Server, name: str) -> int:
    def found() -> int:
        return next((e["pid"] for e in server.environments(name) if e["state"] == "idle"), 0)

    return until(found, f"an environment of {name} is up")


def test_killed_while_loading_for_a_request(server: Server, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "closed"
    script = GATED.format(gate=str(gate)) + "def handler(data, context):\n" + OK
    server.deploy(name, serverless(archive(tmp_path, script)))
    server.evict(name)
    gate.touch()
    known = set(descendants(server.process.pid))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.invoke, name)
        pid = newcomer(server, known)
        os.kill(pid, signal.SIGKILL)
        answer = waiting.result(30)
    assert answer.status_code == 424
    assert "The process ended by signal 9 (SIGKILL) while it was" in answer.json()["Message"]
    assert answer.headers["x-emulator-billed-ms"] == "0"
    gate.unlink()
    assert server.invoke(name).headers["x-emulator-cold-start"] == "true"


def test_killed_while_loading_for_a_creation(server: Server, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "closed"
    gate.touch()
    script = GATED.format(gate=str(gate)) + "def handler(data, context):\n" + OK
    known = set(descendants(server.process.pid))
    server.create(name, realtime(archive(tmp_path, script)))
    os.kill(newcomer(server, known), signal.SIGKILL)
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "signal 9 (SIGKILL) while it was loading the model" in endpoint["failure_reason"]


def test_killed_while_loading_as_a_replacement(server: Server, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "closed"
    script = GATED.format(gate=str(gate)) + "def handler(data, context):\n" + OK
    server.deploy(name, realtime(archive(tmp_path, script)))
    gate.touch()
    known = set(descendants(server.process.pid))
    os.kill(idle_pid(server, name), signal.SIGKILL)
    os.kill(newcomer(server, known), signal.SIGKILL)
    until(lambda: not server.environments(name), "it waits before it tries again")
    gate.unlink()
    server.advance(5)
    assert server.invoke(name).status_code == 200


def test_killed_while_serving(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, serverless(archive(tmp_path, HANG)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.invoke, name, b"hang")
        until(lambda: server.endpoint(name)["in_flight"], "the request is being served")
        os.kill(server.environments(name)[0]["pid"], signal.SIGKILL)
        answer = waiting.result(30)
    assert answer.status_code == 424
    assert "The process ended by signal 9 (SIGKILL)." in answer.json()["Message"]
    assert int(answer.headers["x-emulator-billed-ms"]) > 0
    assert server.invoke(name, b"go").headers["x-emulator-cold-start"] == "true"


def test_the_zygote_killed_while_one_of_its_forks_serves(brisk: Server, tmp_path: Path) -> None:
    brisk.deploy("orphan", serverless(archive(tmp_path, HANG)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(brisk.invoke, "orphan", b"hang")
        until(lambda: brisk.endpoint("orphan")["in_flight"], "the request is being served")
        pids = descendants(brisk.process.pid)
        children = Path(f"/proc/{brisk.process.pid}/task/{brisk.process.pid}/children")
        (zygote,) = children.read_text().split()
        os.kill(int(zygote), signal.SIGKILL)
        answer = waiting.result(30)
    assert answer.status_code == 424
    assert "The process ended because the zygote did." in answer.json()["Message"]
    until(lambda: not any(map(alive, pids)), "none of the old processes is left")
    replaced = "the instance is replaced"  # until then a call may meet the one that has died
    until(lambda: idle_pid(brisk, "fashion-mnist-realtime") not in pids, replaced)
    assert brisk.invoke("fashion-mnist-realtime").status_code == 200
    assert brisk.invoke("orphan", b"go").status_code == 200


def test_a_stopped_process_times_out_and_is_replaced(brisk: Server) -> None:
    brisk.deploy("stopped", serverless())
    pid = idle_pid(brisk, "stopped")
    os.kill(pid, signal.SIGSTOP)
    answer = brisk.invoke("stopped")
    assert answer.status_code == 424
    assert "Your invocation timed out" in answer.json()["Message"]
    assert brisk.rows("stopped")[-1]["model_latency_us"] >= LIMIT_S * 1_000_000
    until(lambda: not alive(pid), "the stopped process is gone")
    healed = brisk.invoke("stopped")
    assert (healed.status_code, healed.headers["x-emulator-cold-start"]) == (200, "true")


def test_a_stopped_instance_times_out_and_is_replaced(server: Server, name: str) -> None:
    server.deploy(name, realtime())
    pid = idle_pid(server, name)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.invoke, name)
        until(lambda: server.endpoint(name)["in_flight"], "the request is being served")
        server.advance(60)
        answer = waiting.result(30)
    assert answer.status_code == 424
    assert "Your invocation timed out" in answer.json()["Message"]
    until(lambda: not alive(pid), "the stopped process is gone")
    assert server.invoke(name).status_code == 200


def test_a_flood_of_output_delays_nobody_and_is_not_kept(brisk: Server, tmp_path: Path) -> None:
    name = "flooding"
    brisk.deploy(name, serverless(archive(tmp_path, FLOOD)))
    statm = Path(f"/proc/{brisk.process.pid}/statm")
    for endpoint in (name, SERVERLESS):
        assert brisk.invoke(endpoint).status_code in (200, 424)
    before = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    logged = brisk.log.stat().st_size
    assert brisk.invoke(name, b"flood").status_code == 200
    while brisk.log.stat().st_size < logged + LOGGED:
        assert brisk.invoke(SERVERLESS).status_code == 200
        assert brisk.invoke(name).status_code == 200
        assert brisk.client.get("/ping").status_code == 200
    after = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert after - before < GROWTH
    assert brisk.evict(name) == 1
    until(lambda: not brisk.environments(name), "the flood has ended")


def test_a_slow_leak_ends_at_the_limit_and_not_before(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy(name, serverless(archive(tmp_path, LEAK), memory_mb=1024))
    (first,) = server.environments(name)
    room = (1024 << 20) - first["memory_bytes"]
    answers = [server.invoke(name)]
    while answers[-1].status_code == 200 and len(answers) < 30:
        (one,) = server.environments(name)
        assert one["pid"] == first["pid"]
        answers.append(server.invoke(name))
    assert answers[-1].status_code == 424
    assert "insufficient memory" in answers[-1].json()["Message"]
    assert abs(len(answers) - room / (40 << 20)) < 3
    assert not alive(first["pid"])
    assert server.invoke(name).headers["x-emulator-cold-start"] == "true"
