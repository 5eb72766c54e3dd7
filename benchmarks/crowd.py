"""Many at once: a hundred cold starts in the same moment, and fifty endpoints beside one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from statistics import median

from benchmarks.calls import caller
from benchmarks.measure import (
    DEADLINE_S,
    JSON,
    ROOT,
    SNEAKER,
    Figure,
    Running,
    server,
)
from benchmarks.processes import proportional_mb

CROWD, ENDPOINTS = 100, 50
MODEL = str(ROOT / "model" / "artifacts" / "fashion-mnist")
POLL_S = 0.005
ROUNDS, CALLS = 8, 250


def figures() -> list[Figure]:
    return [*_cold_starts(), *_endpoints()]


def _cold_starts() -> list[Figure]:
    with server() as running:
        running.wait("/ping")
        _deploy(running, "crowd", CROWD)
        running.client.post("/_emulator/endpoints/crowd/evict").raise_for_status()
        with _clock_asked(running) as waits, ThreadPoolExecutor(CROWD) as pool:
            together = threading.Barrier(CROWD)
            begin = time.perf_counter()
            ends = list(pool.map(lambda _: _once(running, together), range(CROWD)))
            taken = time.perf_counter() - begin
        mb = proportional_mb(running.process.pid)
    unanswered = sum(status != 200 for status, _ in ends)
    warm = sum(not cold for _, cold in ends)
    return [
        Figure(f"{CROWD} cold starts at once, until all have answered", taken, "s"),
        Figure("  not answered with 200", unanswered, "", 0),
        Figure("  found an environment that was warm", warm, ""),
        Figure("  memory of everything, proportional set size", mb, "MB", 8000),
        Figure("  longest wait for /_emulator/clock meanwhile", max(waits) * 1e3, "ms", 50),
    ]


def _once(running: Running, together: threading.Barrier) -> tuple[int, bool]:
    """One call of its own connection, sent when all are connected: status, and if it was cold."""
    connection = HTTPConnection(running.url.removeprefix("http://"), timeout=DEADLINE_S)
    connection.connect()
    together.wait(DEADLINE_S)
    try:
        connection.request("POST", "/endpoints/crowd/invocations", SNEAKER, JSON)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["x-emulator-cold-start"] == "true"
    finally:
        connection.close()


@contextmanager
def _clock_asked(running: Running) -> Iterator[list[float]]:
    """How long each of the questions for the time took, asked all through the block."""
    waits: list[float] = []
    enough = threading.Event()

    def ask() -> None:
        connection = HTTPConnection(running.url.removeprefix("http://"), timeout=DEADLINE_S)
        while not enough.wait(POLL_S):
            begin = time.perf_counter()
            connection.request("GET", "/_emulator/clock")
            connection.getresponse().read()
            waits.append(time.perf_counter() - begin)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        enough.set()
        thread.join()


def _endpoints() -> list[Figure]:
    """Two servers take turns: one with the endpoints of a first start, one with fifty serverless
    ones, each with a warm environment."""
    with server() as few, server() as many:
        few.wait("/ping")
        many.wait("/ping")
        for number in range(ENDPOINTS - 1):
            _deploy(many, f"one-of-many-{number}", 2)
        alone: list[float] = []
        among: list[float] = []
        with (
            caller(few.invocations("fashion-mnist-serverless")) as one,
            caller(many.invocations(f"one-of-many-{ENDPOINTS // 2}")) as other,
        ):
            for turn in range(ROUNDS + 1):
                for each, taken in ((one, alone), (other, among)):
                    seconds = median(each.call(SNEAKER).seconds for _ in range(CALLS))
                    if turn:  # the first is to warm up
                        taken.append(seconds)
    ratios = [after / before for before, after in zip(alone, among, strict=True)]
    return [
        Figure("warm call with 1 serverless endpoint, p50", median(alone) * 1e3, "ms"),
        Figure(f"warm call with {ENDPOINTS}, p50", median(among) * 1e3, "ms"),
        Figure(f"{ENDPOINTS} endpoints over 1", median(ratios), "times", 1.1),
    ]


def _deploy(running: Running, name: str, concurrency: int) -> None:
    """Create a serverless endpoint of the model that comes along, and wait for it."""
    sizes = {"memory_mb": 2048, "max_concurrency": concurrency}
    body = {"variants": [{"model": MODEL, "serverless": sizes}]}
    running.client.put(f"/_emulator/endpoints/{name}", json=body).raise_for_status()
    end = time.monotonic() + DEADLINE_S
    while (status := _status(running, name)) == "Creating" and time.monotonic() < end:
        time.sleep(0.01)
    if status != "InService":
        raise AssertionError(f"the endpoint {name} is {status}")


def _status(running: Running, name: str) -> str:
    return str(running.client.get(f"/_emulator/endpoints/{name}").json()["status"])
