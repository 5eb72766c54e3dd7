"""Cold starts through the whole server, and what one more environment weighs."""

from __future__ import annotations

import time
from statistics import median

import httpx

from benchmarks.measure import JSON, SNEAKER, Figure, percentile, server

ENDPOINT = "fashion-mnist-serverless"
FORKS, SPAWNS = 40, 7


def figures() -> list[Figure]:
    """Each cold start is an eviction and then one request, timed by the client."""
    forked, parts, private_mb = _cold_starts("fork", FORKS)
    spawned, spawned_parts, _ = _cold_starts("spawn", SPAWNS)
    fork, spawn = median(forked), median(spawned)
    return [
        Figure("cold start with fork, p50", fork, "s", 0.5),
        Figure("cold start with fork, p95", percentile(forked, 0.95), "s"),
        *_split("fork", parts),
        Figure("cold start with spawn, p50", spawn, "s"),
        *_split("spawn", spawned_parts),
        Figure("cold start: spawn over fork", spawn / fork, "times", 15, "above"),
        Figure("private memory of one more warm environment", private_mb, "MB", 60),
    ]


def _split(backend: str, parts: list[tuple[float, float, float]]) -> list[Figure]:
    names = ("runtime start", "model load", "first answer")
    return [
        Figure(f"  of it with {backend}: {name}", median(values), "s")
        for name, values in zip(names, zip(*parts, strict=True), strict=True)
    ]


def _cold_starts(
    backend: str, runs: int
) -> tuple[list[float], list[tuple[float, float, float]], float]:
    """Seconds of each cold call; its parts; MB that one environment adds to the machine."""
    with server(EMULATOR_SANDBOX=backend) as running:
        running.wait("/ping")
        client = running.client
        calls = [_cold_start(client) for _ in range(runs)]
        parts = [_parts(client, request) for _, request in calls]
        private = _private_mb(client)
    return [took for took, _ in calls], parts, private


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
    """Of a warm environment that has answered, while another one of the model runs beside it."""
    listed = client.get(f"/_emulator/endpoints/{ENDPOINT}").json()["environments"]
    return max(float(one["private_bytes"]) for one in listed) / 1e6
