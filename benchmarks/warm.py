"""Warm calls through the whole server, one client and one connection at a time, and its memory."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import wrk
from benchmarks.calls import Call, caller
from benchmarks.measure import JSON, SNEAKER, Figure, NotMeasured, Running, percentile, server
from benchmarks.processes import held

CALLS, BATCHES = 2000, 300
BUSY, BUSY_S = 2, 4  # connections: one is on its way while the other is worked on
X_NPY = "application/x-npy"
NPY = {"content-type": X_NPY, "accept": X_NPY}
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
        found += _large(running)
        memory = Figure(
            "resident memory of the server", held(running.process.pid).resident_mb, "MB"
        )
        return [*found, memory]


def _large(running: Running) -> list[Figure]:
    """A megabyte a request: how long one takes, and at what pace they go when there is always
    another one."""
    calls = _calls(running, "realtime", _batch(), NPY, BATCHES)
    taken_ms, model_ms = median(one.seconds * 1e3 for one in calls), _model_ms(calls)
    found = [
        Figure("1 MB of images as x-npy, p50", taken_ms, "ms"),
        Figure("  over ModelLatency", taken_ms / model_ms, "times", 1.3),
    ]
    title = f"  {BUSY} connections, time for each over ModelLatency of one alone"
    try:
        pace_ms = _pace_ms(running)
    except NotMeasured as reason:
        return [*found, Figure(title, None, "times", 1.3, note=str(reason))]
    return [*found, Figure(title, pace_ms / model_ms, "times", 1.3)]


def _pace_ms(running: Running) -> float:
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "batch.npy"
        body.write_bytes(_batch())
        url = running.invocations("fashion-mnist-realtime")
        return 1e3 / wrk.post(url, [body], BUSY, BUSY_S, X_NPY).per_second


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
