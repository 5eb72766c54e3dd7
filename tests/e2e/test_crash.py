"""kill -9 of the server under load: every answer that a client got is in the ledger, once."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.servers import Server, alive, serving, until

ROUNDS = int(os.environ.get("LUKEWARM_CRASH_ROUNDS", "3"))
REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"


def load(server: Server, endpoint: str, answered: list[str], killed: threading.Event) -> None:
    """Invoke until the server is gone; ids of the answers that arrived whole."""
    while not killed.is_set():
        try:
            answer = server.invoke(endpoint)
        except httpx.TransportError:
            return
        answered.append(answer.headers["x-amzn-requestid"])


def reached(answered: list[str], target: int) -> bool:
    return len(answered) >= target


def gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))


def all_ids(server: Server) -> Iterator[str]:
    cursor: str | None = None
    while True:
        query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
        page = server.client.get("/_emulator/invocations", params=query).json()
        yield from (row["request_id"] for row in page["invocations"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_no_answer_is_lost_or_counted_twice_when_the_server_is_killed(tmp_path: Path) -> None:
    chance, answered = random.Random(7), list[str]()
    with serving(tmp_path) as server:
        for _ in range(ROUNDS):
            killed = threading.Event()
            endpoints = [REALTIME, SERVERLESS, SERVERLESS]
            before = len(answered)
            with ThreadPoolExecutor(len(endpoints)) as pool:
                for endpoint in endpoints:
                    pool.submit(load, server, endpoint, answered, killed)
                target = before + chance.randrange(20, 200)
                until(partial(reached, answered, target), "some answers")
                pids = server.pids()
                server.process.send_signal(signal.SIGKILL)
                server.process.wait(10)
                killed.set()
            until(partial(gone, pids), "no child outlives it", 2)
            server.client.close()
            server.start()
            counts = Counter(all_ids(server))
            assert max(counts.values()) == 1
            assert not set(answered) - set(counts)
            states = {server.endpoint(one)["status"] for one in (REALTIME, SERVERLESS)}
            assert states == {"InService"}
        bill = server.client.get("/billing").json()["endpoints"]
        assert sum(one["invocations"] for one in bill) == len(list(all_ids(server)))
