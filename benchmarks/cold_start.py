"""Cold starts through the whole server, and what one more environment weighs."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import httpx

from benchmarks.measure import JSON, SNEAKER, Figure, knows, percentile, server

ENDPOINT = "fashion-mnist-serverless"
ROUNDS, FORKS_PER_ROUND = 7, 6


def figures() -> list[Figure]:
    """Each cold start is an eviction and then one request, timed by the client.

    Both servers run at once and take turns, so that a machine whose speed drifts is as slow for
    the one as for the other.
    """
    forked: list[tuple[float, str]] = []
    spawned: list[tuple[float, str]] = []
    with server(EMULATOR_SANDBOX="fork") as fork, server(EMULATOR_SANDBOX="spawn") as spawn:
        fork.wait("/ping")
        spawn.wait("/ping")
        for _ in range(ROUNDS):
            spawned.append(_cold_start(spawn.client))
            forked += [_cold_start(fork.client) for _ in range(FORKS_PER_ROUND)]
        fork_parts = [_parts(fork.client, request) for _, request in forked]
        spawn_parts = [_parts(spawn.client, request) for _, request in spawned]
        private_mb = _private_mb(fork.client)
    fork_s, spawn_s = ([took for took, _ in one] for one in (forked, spawned))
    return [
        Figure("cold start with fork, p50", median(fork_s), "s", 0.5),
        Figure("cold start with fork, p95", percentile(fork_s, 0.95), "s"),
        *_split("fork", fork_parts),
        Figure("cold start with spawn, p50", median(spawn_s), "s"),
        *_split("spawn", spawn_parts),
        Figure(
            "cold start: spawn over fork", median(spawn_s) / median(fork_s), "times", 15, "above"
        ),
        Figure("private memory of one more warm environment", private_mb, "MB", 60),
        *(_lighter() if knows("runtime") else []),
    ]


def _lighter() -> list[Figure]:
    """The other runtime, started from nothing."""
    with server(EMULATOR_SANDBOX="spawn", EMULATOR_RUNTIME="litert") as running:
        running.wait("/ping")
        taken = [_cold_start(running.client)[0] for _ in range(ROUNDS)]
        _answered_twenty(running.client)
        alone_mb = max(float(one["memory_bytes"]) for one in _listed(running.client)) / 1e6
    return [
        Figure("cold start with spawn and LiteRT, p50", median(taken), "s", 0.6),
        Figure("  memory of the environment", alone_mb, "MB", 120),
    ]


def _split(backend: str, parts: list[tuple[float, float, float]]) -> list[Figure]:
    names = ("runtime start", "model load", "first answer")
    return [
        Figure(f"  of it with {backend}: {name}", median(values), "s")
        for name, values in zip(names, zip(*parts, strict=True), strict=True)
    ]


def _cold_start(client: httpx.Client) -> tuple[float, str]:
    client.post(f"/_emulator/endpoints/{ENDPOINT}/evict").raise_for_status()
    begin = time.perf_counter()
    answer = client.post(
        f"/endpoints/{ENDPOINT}/invocations",
        content=SNEAKER,
        headers=JSON,
    )
    took = time.perf_counter() - begin
    answer.raise_for_status()
    if answer.headers["x-emulator-cold-start"] != "true":
        raise AssertionError("the evicted endpoint answered without a cold start")
    return took, answer.headers["x-amzn-requestid"]


def _parts(client: httpx.Client, request: str) -> tuple[float, float, float]:
    rows = client.get("/_emulator/invocations", params={"endpoint": ENDPOINT, "limit": 1000})
    row = next(one for one in rows.json()["invocations"] if one["request_id"] == request)
    return row["runtime_us"] / 1e6, row["load_us"] / 1e6, row["model_latency_us"] / 1e6


def _private_mb(client: httpx.Client) -> float:
    """Of a warm environment that has answered, beside the real-time one of the same model."""
    _answered_twenty(client)
    return max(float(one["private_bytes"]) for one in _listed(client)) / 1e6


def _answered_twenty(client: httpx.Client) -> None:
    for _ in range(20):
        client.post(f"/endpoints/{ENDPOINT}/invocations", content=SNEAKER, headers=JSON)
    time.sleep(0.5)  # it measures itself once it has a pause


def _listed(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/_emulator/endpoints/{ENDPOINT}").json()[
        "environments"
    ]
    return found
