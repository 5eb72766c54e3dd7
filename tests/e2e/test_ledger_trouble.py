"""A ledger that is locked, or gone, under a running server: what is answered is recorded."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.servers import LIGHT, Server, alive, serving, until

SERVERLESS = "fashion-mnist-serverless"


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """Another process writes to the ledger, as the command sqlite3 might, and takes its time."""
    other = sqlite3.connect(server.state / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def refused(answer: httpx.Response, why: str) -> bool:
    """Whether it is the one answer that a call gets which cannot be recorded."""
    words = f"could not be recorded in the ledger and is not billed: {why}"
    return (
        answer.status_code == 530
        and answer.headers["x-amzn-errortype"] == "InternalDependencyException"
        and words in answer.json()["Message"]
    )


def test_a_locked_ledger_holds_answers_back_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server, ThreadPoolExecutor(1) as pool:
        before = server.bill(SERVERLESS)["invocations"]
        with locked(server):
            waiting = pool.submit(server.invoke, SERVERLESS)
            for _ in range(3):
                assert server.client.get("/ping").status_code == 200
                assert server.client.get("/metrics").status_code == 200
                assert server.client.get("/billing").status_code == 200
            refusal = server.client.delete(f"/_emulator/endpoints/{SERVERLESS}")
            assert refusal.status_code == 503
            assert "database is locked" in refusal.json()["detail"]
            assert not waiting.done()
        assert waiting.result(30).status_code == 200

        with locked(server):
            assert refused(server.invoke(SERVERLESS), "database is locked")
        until(lambda: server.invoke(SERVERLESS).status_code == 200, "the ledger is written again")

        reader = sqlite3.connect(server.state / "ledger.sqlite", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM invocations").fetchone()
        assert server.invoke(SERVERLESS).status_code == 200
        assert server.bill(SERVERLESS)["invocations"] == before + 3
        reader.close()


def test_a_state_directory_that_is_removed_is_noticed_and_can_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        assert server.invoke(SERVERLESS).status_code == 200
        away = server.state.rename(tmp_path / "away")
        assert refused(server.invoke(SERVERLESS), f"{server.state}/ledger.sqlite was removed")
        assert server.client.get("/ping").status_code == 200
        assert server.client.get("/billing").status_code == 503
        away.rename(server.state)
        assert server.invoke(SERVERLESS).status_code == 200
        assert len(server.rows(SERVERLESS)) == 2

        shutil.rmtree(server.state)
        assert refused(server.invoke(SERVERLESS), f"{server.state}/ledger.sqlite was removed")
        assert server.client.get("/metrics").status_code == 200
        pids = server.pids()
        server.stop()
        assert not any(map(alive, pids))
        assert "Traceback" not in server.log.read_text()
        server.start()  # a first start again
        assert server.rows(SERVERLESS) == []
