"""Warm calls through the whole server, one client and one connection at a time, and its memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import httpx

from benchmarks.measure import JSON, SNEAKER, Figure, percentile, server

CALLS = 2000


def figures() -> list[Figure]:
    with server() as running:
        running.wait("/ping")
        client = running.client
        found = []
        for persona in ("realtime", "serverless"):
            taken, model_us = _calls(client, f"fashion-mnist-{persona}")
            found += [
                Figure(f"warm {persona} call, p50", median(taken) * 1e3, "ms"),
                Figure(f"warm {persona} call, p99", percentile(taken, 0.99) * 1e3, "ms"),
                Figure("  of it ModelLatency, p50", median(model_us) / 1e3, "ms"),
            ]
        resident = int(
            Path(f"/proc/{running.process.pid}/statm").read_text().split()[1]
        ) * os.sysconf("SC_PAGE_SIZE")
        return [*found, Figure("resident memory of the server's process", resident / 1e6, "MB")]


def _calls(client: httpx.Client, endpoint: str) -> tuple[list[float], list[float]]:
    taken, model_us = [], []
    for _ in range(CALLS):
        begin = time.perf_counter()
        answer = client.post(
            f"/endpoints/{endpoint}/invocations",
            content=SNEAKER,
            headers=JSON,
        )
        taken.append(time.perf_counter() - begin)
        answer.raise_for_status()
        model_us.append(float(answer.headers["x-emulator-model-latency-us"]))
    return taken[100:], model_us[100:]
