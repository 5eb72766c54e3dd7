"""A peer as a process: how each is started, with which settings, and where it answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx

from benchmarks.measure import ROOT, NotMeasured, free_port

Settings = Mapping[str, object]

HERE = Path(__file__).parent
BIN = ROOT / ".venv-peers" / "bin"
SAVED_MODEL = ROOT / "model" / "artifacts" / "fashion-mnist" / "1"
START_S = 120.0

# LitServe's documentation: as many workers as cores for a CPU, batches for throughput, the fast
# queue for many requests a second. MLServer's: a process per core or none, adaptive batches.
LITSERVE: tuple[Settings, ...] = (
    {"workers_per_device": 1},
    {"workers_per_device": 2},
    {"workers_per_device": 1, "fast_queue": True},
    {"workers_per_device": 1, "max_batch_size": 16, "batch_timeout": 0.002},
    {"workers_per_device": 1, "max_batch_size": 64, "batch_timeout": 0.01, "fast_queue": True},
)
_ADAPTIVE = {"MLSERVER_MODEL_MAX_BATCH_SIZE": "32", "MLSERVER_MODEL_MAX_BATCH_TIME": "0.002"}
MLSERVER: tuple[Settings, ...] = tuple(
    {"MLSERVER_PARALLEL_WORKERS": workers, **batching}
    for workers in ("0", "1", "2")
    for batching in ({}, _ADAPTIVE)
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer: where it takes which body, and with which settings it runs."""

    pid: int
    name: str
    url: str
    body: Path
    settings: str


@cache
def versions() -> dict[str, str]:
    """Of the peers and their TensorFlow; empty if they are not installed."""
    names = ["litserve", "mlserver", "tensorflow"]
    if not (BIN / "python").exists():
        return {}
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command = [str(BIN / "python"), "-c", code, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(zip(names, done.stdout.split(), strict=True)) if done.returncode == 0 else {}


@contextmanager
def serving(
    name: str, settings: Settings, body: Path, folder: Path
) -> Iterator[Callable[[], Peer]]:
    """Start a peer, and end it with the block; what is yielded waits until it answers `body`.

    `folder` takes its log and its temporary files. Raises NotMeasured if the peers are not
    installed, or if it does not answer.
    """
    if not versions():
        raise NotMeasured("run make peers")
    port, log = free_port(), folder / f"{name}-{free_port()}.log"
    command, variables, path = (_litserve if name == "LitServe" else _mlserver)(port, settings)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ
            | {"SAVED_MODEL": str(SAVED_MODEL), "TF_CPP_MIN_LOG_LEVEL": "3"}
            | {"CUDA_VISIBLE_DEVICES": "-1", **variables},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    words = ", ".join(f"{key.lower()} {value}" for key, value in settings.items())
    words = words.replace("mlserver_model_", "").replace("mlserver_", "")
    peer = Peer(process.pid, name, f"http://127.0.0.1:{port}{path}", body, words)
    try:
        yield lambda: _answering(peer, process, log)
    finally:
        _end(process)


def _litserve(port: int, settings: Settings) -> tuple[list[str], dict[str, str], str]:
    script = str(HERE / "litserve_peer.py")
    return [str(BIN / "python"), script, str(port), json.dumps(dict(settings))], {}, "/predict"


def _mlserver(port: int, settings: Settings) -> tuple[list[str], dict[str, str], str]:
    variables = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_DEBUG": "false",  # else it logs every request
    }
    variables |= {key: str(value) for key, value in settings.items()}
    return [str(BIN / "mlserver"), "start", str(HERE)], variables, "/v2/models/fashion-mnist/infer"


def _answering(peer: Peer, process: subprocess.Popen[bytes], log: Path) -> Peer:
    end, headers = time.monotonic() + START_S, {"content-type": "application/json"}
    content = peer.body.read_bytes()
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.TransportError):
            answer = httpx.post(peer.url, content=content, headers=headers, timeout=30)
            if answer.status_code == 200:
                return peer
        time.sleep(0.2)
    said = " ".join(log.read_text(errors="replace").split())[-300:]
    raise NotMeasured(f"{peer.name} ({peer.settings}) does not answer: {said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End its whole session, which is its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
