"""Throughput beside that of other servers of the same model: one image of 6 KB as JSON a request.

Ours keeps its ledger. All servers are up at once and take turns at the load, so that a machine
whose speed drifts is as slow for the one as for the other; those whose turn it is not stand still.
A ratio is the median of those of the rounds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import wrk
from benchmarks.measure import ROOT, Figure, NotMeasured, Running, knows, server
from benchmarks.peers.serving import LITSERVE, MLSERVER, Peer, Settings, serving
from benchmarks.processes import paused

ENDPOINT = "fashion-mnist-realtime"
CONNECTIONS = {8: 3.0, 64: 10.0}  # and how many times the better peer ours should be
LITE_TIMES = 10.0
ROUNDS, ROUND_S, WARM_S, TRIAL_S = 3, 4, 1, 2


@dataclass(slots=True)
class Turns:
    """The runs of one server by number of connections."""

    pid: int
    url: str
    body: Path
    name: str
    settings: str = ""
    loads: dict[int, list[wrk.Load]] = field(default_factory=dict)

    def take(self, connections: int) -> None:
        wrk.post(self.url, [self.body], connections, WARM_S)
        load = wrk.post(self.url, [self.body], connections, ROUND_S)
        self.loads.setdefault(connections, []).append(load)

    def per_second(self, connections: int) -> list[float]:
        return [load.per_second for load in self.loads[connections]]


def figures() -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image, tensor = _bodies(folder)
        try:
            peers, missing = stack.enter_context(_fastest(image, tensor, folder)), ""
        except NotMeasured as reason:
            peers, missing = {}, str(reason)
        running = stack.enter_context(server())
        running.wait("/ping")
        ours = Turns(running.process.pid, running.invocations(ENDPOINT), image, "ours")
        lite = None
        if knows("runtime"):
            lighter = stack.enter_context(server(EMULATOR_RUNTIME="litert"))
            lighter.wait("/ping")
            url = lighter.invocations(ENDPOINT)
            lite = Turns(lighter.process.pid, url, image, "ours with LiteRT")
        _take_turns(ours, lite, peers)
        found = [*_alone(ours), *_beside(ours, peers, missing, CONNECTIONS)]
        if lite:
            found += _beside(lite, peers, missing, {8: LITE_TIMES})
        return [*found, *_faultless(ours, running)]


def _bodies(folder: Path) -> tuple[Path, Path]:
    """The same image as ours and LitServe take it, and as MLServer does."""
    with np.load(ROOT / "model" / "artifacts" / "sample.npz", allow_pickle=False) as held:
        image = np.round(held["images"][1] / 255, 6)
    flat = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32"}
    contents = (
        {"instances": [image.tolist()]},
        {"inputs": [flat | {"data": image.ravel().tolist()}]},
    )
    paths = folder / "image.json", folder / "tensor.json"
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    return paths


@contextmanager
def _fastest(image: Path, tensor: Path, folder: Path) -> Iterator[dict[int, list[Turns]]]:
    """By number of connections the peers with the settings that are the fastest for it. The
    others are ended again."""
    with ExitStack() as kept:
        best: dict[int, list[Turns]] = {number: [] for number in CONNECTIONS}
        for name, body, tried in (
            ("LitServe", image, LITSERVE), ("MLServer", tensor, MLSERVER)
        ):  # fmt: skip
            wanted = _tried(name, body, tried, folder)
            chosen: dict[str, Turns] = {}
            for number, settings in wanted.items():
                key = str(settings)
                if key not in chosen:
                    peer = kept.enter_context(serving(name, settings, body, folder))()
                    chosen[key] = Turns(peer.pid, peer.url, peer.body, name, peer.settings)
                best[number].append(chosen[key])
        yield best


def _tried(name: str, body: Path, tried: tuple[Settings, ...], folder: Path) -> dict[int, Settings]:
    """The fastest settings by number of connections."""
    with ExitStack() as stack:
        started = [stack.enter_context(serving(name, each, body, folder)) for each in tried]
        peers = [answering() for answering in started]
        return {
            number: tried[int(np.argmax([_trial(peer, peers, number) for peer in peers]))]
            for number in CONNECTIONS
        }


def _trial(peer: Peer, others: list[Peer], connections: int) -> float:
    with paused(other.pid for other in others if other is not peer):
        wrk.post(peer.url, [peer.body], connections, WARM_S)
        return wrk.post(peer.url, [peer.body], connections, TRIAL_S).per_second


def _take_turns(ours: Turns, lite: Turns | None, peers: Mapping[int, list[Turns]]) -> None:
    everyone = {one.pid for one in (ours, lite, *chain(*peers.values())) if one}
    for _ in range(ROUNDS):
        for number in CONNECTIONS:
            for one in (ours, lite, *peers.get(number, [])):
                if one:
                    with paused(everyone - {one.pid}):
                        one.take(number)
        with paused(everyone - {ours.pid}):
            ours.take(1)


def _alone(ours: Turns) -> list[Figure]:
    one = ours.loads[1]
    found = [Figure("1 connection, p50", median(load.p50_ms for load in one), "ms", 1.5)]
    for number, loads in sorted(ours.loads.items()):
        tail = median(load.p99_ms / load.p50_ms for load in loads)
        found.append(Figure(f"{_connections(number)}, p99 over p50", tail, "times", 10))
    return found


def _beside(
    ours: Turns, peers: Mapping[int, list[Turns]], missing: str, bounds: Mapping[int, float]
) -> list[Figure]:
    """Each of them, and how many times the better peer ours is."""
    found = []
    for number, bound in bounds.items():
        at, rivals = _connections(number), peers.get(number, [])
        found += [
            Figure(
                f"{at}, {one.name}", median(one.per_second(number)), "calls/s", note=one.settings
            )
            for one in (ours, *rivals)
        ]
        best = [max(turn) for turn in zip(*(one.per_second(number) for one in rivals), strict=True)]
        ratios = [
            mine / theirs for mine, theirs in zip(ours.per_second(number), best, strict=False)
        ]
        times = median(ratios) if ratios else None
        title = f"{at}, {ours.name} over the better peer"
        found.append(Figure(title, times, "times", bound, "above", missing))
    return found


def _faultless(ours: Turns, running: Running) -> list[Figure]:
    loads = [load for each in ours.loads.values() for load in each]
    listed = running.client.get("/billing").json()["endpoints"]
    recorded = next(one["invocations"] for one in listed if one["name"] == ENDPOINT)
    answers = sum(load.answers for load in loads)
    return [
        Figure("errors of ours", sum(load.errors for load in loads), "", 0),
        Figure("answers of ours that the ledger lacks", max(0, answers - recorded), "", 0),
    ]


def _connections(number: int) -> str:
    return f"{number} connection" + ("s" if number > 1 else "")
