"""Warm calls through the whole server, one client and one connection at a time, and its memory."""

from __future__ import annotations

import io
from statistics import median

import numpy as np

from benchmarks.calls import Call, caller
from benchmarks.measure import JSON, SNEAKER, Figure, Running, percentile, server
from benchmarks.processes import held

CALLS, BATCHES = 2000, 300
NPY = {"content-type": "application/x-npy", "accept": "application/x-npy"}
BATCH_BYTES = 1_000_000


def figures() -> list[Figure]:
    with server() as running:
        running.wait("/ping")
        found = []
        for persona in ("realtime", "serverless"):
            calls = _calls(running, persona, SNEAKER, JSON, CALLS)
            taken = [one.seconds * 1e3 for one in calls]
            beyond = median(one.overhead_s * 1e3 for one in calls)
            bound = 1.0 if persona == "serverless" else None
            found += [
                Figure(f"warm {persona} call, p50", median(taken), "ms"),
                Figure(f"warm {persona} call, p99", percentile(taken, 0.99), "ms"),
                Figure("  of it ModelLatency, p50", _model_ms(calls), "ms"),
                Figure("  beyond ModelLatency, p50", beyond, "ms", bound),
            ]
        calls = _calls(running, "realtime", _batch(), NPY, BATCHES)
        taken_ms, model_ms = median(one.seconds * 1e3 for one in calls), _model_ms(calls)
        return [
            *found,
            Figure("1 MB of images as x-npy, p50", taken_ms, "ms"),
            Figure("  over ModelLatency", taken_ms / model_ms, "times", 1.3),
            Figure("resident memory of the server", held(running.process.pid).resident_mb, "MB"),
        ]


def _calls(
    running: Running, persona: str, body: bytes, headers: dict[str, str], number: int
) -> list[Call]:
    with caller(running.invocations(f"fashion-mnist-{persona}")) as one:
        for _ in range(number // 20):
            one.call(body, headers)
        return [one.call(body, headers) for _ in range(number)]


def _model_ms(calls: list[Call]) -> float:
    return median(one.model_s * 1e3 for one in calls)


def _batch() -> bytes:
    """Float32 images, (n, 28, 28), of one megabyte in all."""
    images = np.random.default_rng(0).random((BATCH_BYTES // (28 * 28 * 4), 28, 28), np.float32)
    file = io.BytesIO()
    np.save(file, images)
    return file.getvalue()
