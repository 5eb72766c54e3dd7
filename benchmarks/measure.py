"""What a benchmark hands over, and the few ways to take a time."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import httpx

from emulator import config

ROOT = Path(__file__).resolve().parent.parent
SNEAKER = (ROOT / "model" / "artifacts" / "sneaker.json").read_bytes()
JSON = {"content-type": "application/json"}
DEADLINE_S = 120.0


class NotMeasured(Exception):
    """Something that the measurement needs is not there; the text says what and how to get it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number (None: it could not be measured, `note` says why), and the bound it is
    held against (None: only reported).

    `better` says on which side of the bound the number should be; `note` under what settings it
    was measured.
    """

    name: str
    value: float | None
    unit: str
    bound: float | None = None
    better: str = "below"
    note: str = ""

    @property
    def held(self) -> bool | None:
        if self.bound is None or self.value is None:
            return None
        return self.value <= self.bound if self.better == "below" else self.value >= self.bound


def machine() -> dict[str, str]:
    """What this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tensorflow": version("tensorflow"),
    }


def knows(setting: str) -> bool:
    """Whether there is a setting of that name."""
    return any(one.name == setting for one in config.TABLE)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def typical(work: Callable[[], object], runs: int) -> float:
    """The median seconds of `runs` runs."""
    return median(seconds(work) for _ in range(runs))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def python(code: str) -> str:
    """What a fresh interpreter prints for `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout


@dataclass(frozen=True, slots=True)
class Running:
    """A server, a client of it, its state directory, and when it was started by
    `time.perf_counter`."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    begin: float
    state: Path

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def invocations(self, endpoint: str) -> str:
        """The URL to post to."""
        return f"{self.url}/endpoints/{endpoint}/invocations"

    def boto3(self, service: str) -> Any:
        """A client as boto3 has it, of eu-west-3."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="eu-west-3",
            aws_access_key_id="123456789012",
            aws_secret_access_key="any",
        )

    def wait(self, path: str) -> float:
        """Seconds from the start until `path` answers 200. Raises TimeoutError."""
        while (taken := time.perf_counter() - self.begin) < DEADLINE_S:
            try:
                if self.client.get(path).status_code == 200:
                    return time.perf_counter() - self.begin
            except httpx.TransportError:
                pass
            time.sleep(0.005)
        raise TimeoutError(f"{path} did not answer within {taken:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(log: Path | None = None, **settings: str) -> Iterator[Running]:
    """A server as a user starts it, with a state of its own, ended at the end of the block.

    What it says goes to `log`, or where this process's output goes.
    """
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as state,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client,
    ):
        begin = time.perf_counter()
        running = _start(Path(state), port, settings, log)
        try:
            yield Running(running, client, begin, Path(state))
        finally:
            running.terminate()
            running.wait(60)


def _start(
    state: Path, port: int, settings: Mapping[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMULATOR_")}
    command = [sys.executable, "-m", "uvicorn", "emulator.app:app", "--port", str(port)]
    with log.open("ab") if log else nullcontext() as out:
        return subprocess.Popen(
            [*command, "--log-level", "warning"],
            cwd=ROOT,
            env=kept
            | {"EMULATOR_STATE_DIR": str(state), "EMULATOR_LOG_LEVEL": "warning", **settings},
            stdout=out,
            stderr=out,
        )
