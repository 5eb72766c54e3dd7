"""The latency profile of the published comparison: what a client in a loop sees of both endpoints,
by httpx and by boto3."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from benchmarks.measure import JSON, SNEAKER, Figure, Running, server
from emulator import profiles
from emulator.core import MILLISECOND

CALLS = 300
NAME = "paris-2022"
ALLOWED = 0.10


def figures() -> list[Figure]:
    """The totals of the file are the bound: what was published, within a tenth."""
    profile = profiles.load(NAME)
    assert profile is not None
    found = []
    with server(EMULATOR_PROFILE=NAME) as running:
        running.wait("/ping")
        for persona, way in profile.ways.items():
            assert way.total is not None
            endpoint, published_ms = f"fashion-mnist-{persona}", way.total.median_ns / MILLISECOND
            for name, call in _clients(running, endpoint).items():
                found.append(_figure(f"{endpoint} by {name}", published_ms, call))
    return found


def _clients(running: Running, endpoint: str) -> dict[str, Callable[[], object]]:
    """One connection each."""
    url = running.invocations(endpoint)
    runtime = running.boto3("sagemaker-runtime")
    given = {"EndpointName": endpoint, "Body": SNEAKER, "ContentType": "application/json"}
    return {
        "httpx": lambda: running.client.post(url, content=SNEAKER, headers=JSON).raise_for_status(),
        "boto3": lambda: runtime.invoke_endpoint(**given)["Body"].read(),
    }


def _figure(name: str, published_ms: float, call: Callable[[], object]) -> Figure:
    call()
    taken = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    off = abs(median(taken) / published_ms - 1)
    note = f"median of {CALLS} calls: {median(taken):.1f} ms, published: {published_ms:g} ms"
    title = f"{NAME}, {name}: off the published latency"
    return Figure(title, off, "", ALLOWED, note=note)
