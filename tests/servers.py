"""Real servers for tests: started as a user starts them, on a free port, and always ended."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "model" / "artifacts"
KERAS = ARTIFACTS / "fashion-mnist" / "fashion-mnist.keras"
SNEAKER = (ARTIFACTS / "sneaker.json").read_bytes()
JSON = {"content-type": "application/json"}
DEADLINE_S = 60.0
LEFT_S = 2.0  # the longest that a process may outlive its server, however that ended
# For servers of a test's own that is not about TensorFlow: they start in 1 s instead of 5 s, with
# real models in real environments all the same.
LIGHT = {"EMULATOR_RUNTIME": "litert"}
T = TypeVar("T")


def until(found: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Poll until `found()` is true and return it; AssertionError past the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def alive(pid: int) -> bool:
    """Whether the process runs: gone and zombie are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """The process's children, and theirs."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def environment(state: Path, **settings: str) -> dict[str, str]:
    """The test's environment variables with these settings and no others. Nothing is held back
    until an endpoint is in service: what it is on the way there can be seen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMULATOR_")}
    return kept | {"EMULATOR_STATE_DIR": str(state), "EMULATOR_SETTLE_S": "0"} | settings


def uvicorn(port: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "emulator.app:app", "--port", str(port), *more]


def failed_start(state: Path, port: int | None = None, **settings: str) -> str:
    """What a start that must fail prints; it must end by itself, without a traceback."""
    done = subprocess.run(
        uvicorn(port or free_port()),
        cwd=ROOT,
        env=environment(state, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


class Server:
    """A running server and what tests ask of it."""

    def __init__(self, state: Path, log: Path, settings: Mapping[str, str]) -> None:
        self.state, self.log, self.settings = state, log, dict(settings)
        self.start()

    def start(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                uvicorn(self.port),
                cwd=ROOT,
                env=environment(self.state, **self.settings),
                stdout=out,
                stderr=out,
            )
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE_S)
        until(self._answers, f"the server answers; its log: {self.log.read_text()}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/ping").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the server, and see that whatever it started ends with it; the exit code."""
        pids = descendants(self.process.pid)
        self.process.send_signal(how)
        code = self.process.wait(DEADLINE_S)
        self.client.close()
        until(lambda: not any(map(alive, pids)), f"no process of {pids} is left", LEFT_S)
        return code

    def invoke(
        self, endpoint: str, body: bytes = SNEAKER, headers: Mapping[str, str] = JSON
    ) -> httpx.Response:
        return self.client.post(
            f"/endpoints/{endpoint}/invocations", content=body, headers=dict(headers)
        )

    def endpoint(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/_emulator/endpoints/{name}").json()
        return found

    def environments(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.endpoint(name)["environments"]
        return found

    def pids(self) -> list[int]:
        listed = self.client.get("/_emulator/endpoints").json()["endpoints"]
        return [one["pid"] for each in listed for one in each["environments"] if one["pid"]]

    def create(self, name: str, *variants: Mapping[str, Any]) -> httpx.Response:
        body = {"variants": list(variants)}
        return self.client.put(f"/_emulator/endpoints/{name}", json=body)

    def settled(self, name: str) -> dict[str, Any]:
        """The endpoint once it is no longer Creating."""

        def found() -> dict[str, Any] | None:
            one = self.endpoint(name)
            return one if one["status"] != "Creating" else None

        return until(found, f"{name} is created")

    def deploy(self, name: str, *variants: Mapping[str, Any]) -> dict[str, Any]:
        """Create and wait for InService."""
        answer = self.create(name, *variants)
        assert answer.status_code == 201, answer.text
        endpoint = self.settled(name)
        assert endpoint["status"] == "InService", endpoint["failure_reason"]
        return endpoint

    def delete(self, name: str) -> None:
        answer = self.client.delete(f"/_emulator/endpoints/{name}")
        assert answer.status_code == 202, answer.text
        until(
            lambda: self.client.get(f"/_emulator/endpoints/{name}").status_code == 404,
            f"{name} is gone",
        )

    def advance(self, seconds: float) -> None:
        answer = self.client.post("/_emulator/clock/advance", json={"seconds": seconds})
        assert answer.status_code == 200, answer.text

    def evict(self, name: str) -> int:
        answer = self.client.post(f"/_emulator/endpoints/{name}/evict")
        assert answer.status_code == 200, answer.text
        evicted: int = answer.json()["evicted"]
        return evicted

    def bill(self, name: str) -> dict[str, Any]:
        """The endpoint's entry of /billing, its lines by usage type."""
        listed = self.client.get("/billing").json()["endpoints"]
        entry: dict[str, Any] = next(one for one in listed if one["name"] == name)
        entry["lines"] = {line["usage_type"]: line for line in entry["lines"]}
        return entry

    def rows(self, name: str) -> list[dict[str, Any]]:
        answer = self.client.get("/_emulator/invocations", params={"endpoint": name, "limit": 1000})
        rows: list[dict[str, Any]] = answer.json()["invocations"]
        return rows


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Server]:
    """A server with its state and log in `folder`, ended whatever happens."""
    server = Server(folder / "state", folder / "server.log", settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def archive(folder: Path, script: str) -> Path:
    """A model archive with the shipped model and this `code/inference.py`."""
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(KERAS, "fashion-mnist.keras")
        content = script.encode()
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


def serverless(
    model: Path | str = KERAS, memory_mb: int = 2048, concurrency: int = 2, **more: Any
) -> dict[str, Any]:
    variant = {"model": str(model), **{k: v for k, v in more.items() if k == "variables"}}
    config = {"memory_mb": memory_mb, "max_concurrency": concurrency}
    config |= {key: value for key, value in more.items() if key != "variables"}
    return variant | {"serverless": config}


def realtime(model: Path | str = KERAS, count: int = 1, **more: Any) -> dict[str, Any]:
    top = {key: value for key, value in more.items() if key in ("name", "weight", "variables")}
    config = {"instance_type": "ml.m5.large", "instance_count": count}
    config |= {key: value for key, value in more.items() if key not in top}
    return {"model": str(model), **top, "realtime": config}


def sample() -> tuple[Any, Any]:
    """Real test images as the model takes them, float32 (100, 28, 28), and their labels."""
    with np.load(ARTIFACTS / "sample.npz", allow_pickle=False) as held:
        return (held["images"] / 255).astype(np.float32), held["labels"]


def predictions(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array(json.loads(answer.content)["predictions"])
