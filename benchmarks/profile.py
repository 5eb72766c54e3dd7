"""The latency profile of the published comparison: what a client in a loop sees of both endpoints,
by httpx and by boto3."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import boto3

from benchmarks.measure import JSON, SNEAKER, Figure, Running, server

CALLS = 300
PUBLISHED_MS = {"fashion-mnist-realtime": 15, "fashion-mnist-serverless": 45}
ALLOWED = 0.10


def figures() -> list[Figure]:
    with server(EMULATOR_PROFILE="paris-2022") as running:
        running.wait("/ping")
        return [
            _figure(f"{endpoint} by {name}", published_ms, call)
            for endpoint, published_ms in PUBLISHED_MS.items()
            for name, call in _clients(running, endpoint).items()
        ]


def _clients(running: Running, endpoint: str) -> dict[str, Callable[[], object]]:
    """One connection each."""
    url = running.invocations(endpoint)
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=running.url,
        region_name="eu-west-3",
        aws_access_key_id="123456789012",
        aws_secret_access_key="any",
    )
    given = {"EndpointName": endpoint, "Body": SNEAKER, "ContentType": "application/json"}
    return {
        "httpx": lambda: running.client.post(url, content=SNEAKER, headers=JSON).raise_for_status(),
        "boto3": lambda: runtime.invoke_endpoint(**given)["Body"].read(),
    }


def _figure(name: str, published_ms: int, call: Callable[[], object]) -> Figure:
    call()
    taken = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    off = abs(median(taken) / published_ms - 1)
    note = f"median of {CALLS} calls: {median(taken):.1f} ms, published: {published_ms} ms"
    title = f"paris-2022, {name}: off the published latency"
    return Figure(title, off, "", ALLOWED, note=note)
