"""Many calls in a row: what the server holds before and after."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import wrk
from benchmarks.measure import ROOT, Figure, Running, server
from benchmarks.processes import Held, held

CALLS, WARM_CALLS, CONNECTIONS, STRETCH_S = 200_000, 10_000, 64, 5
ENDPOINT = "fashion-mnist-realtime"
SETTLE_S = 15.0


def figures() -> list[Figure]:
    """Images of several sizes, and one body in ten that the model refuses."""
    with tempfile.TemporaryDirectory() as folder, server() as running:
        running.wait("/ping")
        bodies = _bodies(Path(folder))
        _post(running, bodies, WARM_CALLS)
        before = _settled(running)
        begin = time.monotonic()
        answers, broken = _post(running, bodies, CALLS)
        taken = time.monotonic() - begin
        after = _settled(running, before)
    title = f"after {CALLS:,} calls"
    return [
        Figure("calls in a row", answers, "", CALLS, "above", f"{taken:.0f} s"),
        Figure("  without an answer", broken, "", 0),
        Figure(f"{title}, memory more", after.resident_mb - before.resident_mb, "MB", 30),
        Figure(f"{title}, descriptors more", after.descriptors - before.descriptors, "", 0),
        Figure(f"{title}, threads more", after.threads - before.threads, "", 0),
        Figure(f"{title}, processes more", after.children - before.children, "", 0),
    ]


def _bodies(folder: Path) -> list[Path]:
    with np.load(ROOT / "model" / "artifacts" / "sample.npz", allow_pickle=False) as sample:
        images = np.round(sample["images"] / 255, 4).tolist()
    sizes = (1, 1, 1, 1, 2, 1, 1, 4, 1)
    contents = [json.dumps({"instances": images[:size]}) for size in sizes]
    paths = [folder / f"{number}.json" for number in range(len(contents) + 1)]
    for path, content in zip(paths, [*contents, '{"instances": [[0.5]]}'], strict=True):
        path.write_text(content)
    return paths


def _post(running: Running, bodies: list[Path], calls: int) -> tuple[int, int]:
    """Until so many have been answered: answers, and requests without one."""
    answers = broken = 0
    while answers < calls:
        load = wrk.post(running.invocations(ENDPOINT), bodies, CONNECTIONS, STRETCH_S)
        answers, broken = answers + load.answers, broken + load.broken
    return answers, broken


def _settled(running: Running, like: Held | None = None) -> Held:
    """What is held when nothing is in flight any more, at the latest after SETTLE_S.

    The rest of the server is asked much at once first, so that its pools of threads, which have a
    largest size, have it from the start.
    """
    paths = ("/billing", "/metrics", "/_emulator/invocations", "/_emulator/endpoints") * 20
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(running.client.get, paths))
    end = time.monotonic() + SETTLE_S
    while True:
        now = held(running.process.pid)
        done = like and now.descriptors <= like.descriptors and now.threads <= like.threads
        if time.monotonic() > end or done:
            return now
        time.sleep(0.2)
