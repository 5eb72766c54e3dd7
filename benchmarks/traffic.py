"""Mixed traffic for a soak: callers of both personas, and those who get it wrong or run away.

Every actor repeats one thing, and says which status it should be answered with; whatever else
comes is a fault of the server.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import tarfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.measure import JSON, ROOT, SNEAKER

MODEL = ROOT / "model" / "artifacts" / "fashion-mnist"
REALTIME, SERVERLESS, FRAGILE = "fashion-mnist-realtime", "fashion-mnist-serverless", "fragile"
CONCURRENCY = 10  # of the serverless endpoint of a first start
TOO_LARGE = b"x" * (5 << 20)
# A container that dies in the middle of a request when it is told to.
FRAGILE_CODE = """
import os

def handler(data, context):
    body = data.read()
    if body == b"die":
        os._exit(3)
    return body, "text/plain"
"""
# What a container or the service refuses: body, headers, endpoint, status.
MISTAKES: tuple[tuple[bytes, Mapping[str, str], str, int], ...] = (
    (b"{", JSON, REALTIME, 424),
    (b'{"instances": [[1, 2]]}', JSON, REALTIME, 424),
    (b'{"instances": [[1, 2]]}', JSON, SERVERLESS, 424),
    (SNEAKER, {"content-type": "image/png"}, REALTIME, 424),
    (SNEAKER, JSON, "nobody", 400),
    (SNEAKER, JSON | {"x-amzn-sagemaker-target-model": "m.tar.gz"}, REALTIME, 400),
    (SNEAKER, JSON | {"x-amzn-sagemaker-target-variant": "nobody"}, REALTIME, 400),
    (TOO_LARGE, JSON, SERVERLESS, 400),
)


@dataclass(slots=True)
class Tally:
    """What came of the traffic so far. `recorded` are the ids of answers that the ledger has."""

    statuses: Counter[int] = field(default_factory=Counter)
    throttled: int = 0
    cold: int = 0
    left: int = 0
    recorded: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)

    def count(self, answer: httpx.Response, expected: tuple[int, ...]) -> None:
        headers = answer.headers
        self.statuses[answer.status_code] += 1
        self.throttled += headers.get("x-amzn-errortype") == "ThrottlingException"
        self.cold += headers.get("x-emulator-cold-start") == "true"
        if "x-emulator-model-latency-us" in headers:  # it reached a variant
            self.recorded.add(headers["x-amzn-requestid"])
        if answer.status_code not in expected:
            text = " ".join(answer.text.split())[:160]
            self.faults[f"{answer.url.path} answered {answer.status_code}: {text}"] += 1


class Traffic:
    """All actors against one server, until `run` has gone on for long enough."""

    def __init__(self, url: str, tally: Tally) -> None:
        self._url, self._tally = url, tally
        self._draw = random.Random(1)
        self._client = httpx.AsyncClient(
            base_url=url, timeout=120, limits=httpx.Limits(max_connections=None)
        )
        self._bodies = _images()
        self._passing = 0

    async def run(self, seconds: float) -> None:
        """Every actor repeats itself until then, and ends what it is at."""
        end = time.monotonic() + seconds
        actors: list[tuple[Callable[[], Awaitable[None]], float]] = [
            *[(self._ask_realtime, 0.01)] * 6,
            *[(self._ask_serverless, 0.5)] * 3,
            (self._burst, 6.0),
            (self._mistake, 0.1),
            (self._leave, 0.1),
            (self._die, 3.0),
            (self._evict, 5.0),
            (self._pass_by, 10.0),
            (self._read, 1.0),
        ]
        await asyncio.gather(*(self._repeat(act, pause, end) for act, pause in actors))

    async def ask_much_at_once(self) -> None:
        """So that the server's pools of threads, which have a largest size, have it."""
        await asyncio.gather(*(self._read() for _ in range(40)))

    async def close(self) -> None:
        await self._client.aclose()

    async def deploy(self, name: str, model: Path, concurrency: int) -> None:
        """A serverless endpoint, once it is in service."""
        sizes = {"memory_mb": 2048, "max_concurrency": concurrency}
        body = {"variants": [{"model": str(model), "serverless": sizes}]}
        await self._rest("PUT", f"/_emulator/endpoints/{name}", 201, body=body)
        while True:
            answer = await self._client.get(f"/_emulator/endpoints/{name}")
            if (status := answer.json()["status"]) != "Creating":
                break
            await asyncio.sleep(0.05)
        if status != "InService":
            self._tally.faults[f"the endpoint {name} is {status}"] += 1

    async def _repeat(self, act: Callable[[], Awaitable[None]], pause: float, end: float) -> None:
        while time.monotonic() < end:
            try:
                await act()
            except httpx.HTTPError as error:
                name = getattr(act, "__name__", "").strip("_")
                self._tally.faults[f"{name} got no answer: {error!r}"] += 1
            await asyncio.sleep(self._draw.uniform(0, 2 * pause))

    async def _invoke(
        self, endpoint: str, body: bytes, headers: Mapping[str, str], *expected: int
    ) -> None:
        path = f"/endpoints/{endpoint}/invocations"
        answer = await self._client.post(path, content=body, headers=dict(headers))
        self._tally.count(answer, expected)

    async def _rest(self, method: str, path: str, *expected: int, body: object = None) -> None:
        answer = await self._client.request(method, path, json=body)
        if answer.status_code not in expected:
            self._tally.faults[f"{method} {path} answered {answer.status_code}"] += 1

    # -- actors -------------------------------------------------------------------------------

    async def _ask_realtime(self) -> None:
        await self._invoke(REALTIME, *self._draw.choice(self._bodies), 200)

    async def _ask_serverless(self) -> None:
        """Throttled now and then, while a burst takes all there is."""
        await self._invoke(SERVERLESS, *self._draw.choice(self._bodies), 200, 400)

    async def _burst(self) -> None:
        """More at once than there may be, and then long enough nothing to let some expire."""
        calls = [self._invoke(SERVERLESS, SNEAKER, JSON, 200, 400) for _ in range(3 * CONCURRENCY)]
        await asyncio.gather(*calls)

    async def _mistake(self) -> None:
        body, headers, endpoint, expected = self._draw.choice(MISTAKES)
        throttled = (400,) if endpoint == SERVERLESS else ()
        await self._invoke(endpoint, body, headers, expected, *throttled)

    async def _leave(self) -> None:
        """Send all or half of a request, and be gone before the answer."""
        host, port = self._url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        endpoint = self._draw.choice((REALTIME, SERVERLESS))
        head = f"POST /endpoints/{endpoint}/invocations HTTP/1.1\r\nhost: {host}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(SNEAKER)}\r\n\r\n"
        writer.write(head.encode() + SNEAKER[: self._draw.choice((len(SNEAKER), 1000))])
        await asyncio.sleep(self._draw.choice((0.0, 0.001, 0.02)))
        if self._draw.random() < 0.5:
            writer.transport.abort()
        writer.close()
        self._tally.left += 1

    async def _die(self) -> None:
        body, expected = self._draw.choice(((b"die", 424), (b"live", 200)))
        await self._invoke(FRAGILE, body, {"content-type": "text/plain"}, expected)

    async def _evict(self) -> None:
        await self._rest("POST", f"/_emulator/endpoints/{SERVERLESS}/evict", 200)

    async def _pass_by(self) -> None:
        """An endpoint that is created, called and deleted."""
        self._passing += 1
        name = f"passing-{self._passing}"
        await self.deploy(name, MODEL, 1)
        await self._invoke(name, SNEAKER, JSON, 200)
        await self._rest("DELETE", f"/_emulator/endpoints/{name}", 202)

    async def _read(self) -> None:
        for path in ("/billing", "/metrics", "/_emulator/endpoints", "/_emulator/invocations"):
            await self._rest("GET", path, 200)
        await self._rest("GET", "/ping", 200, 503)  # while one passes by


def fragile(folder: Path) -> Path:
    """A model archive of a container that dies when it is told to."""
    path = folder / "fragile.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(MODEL / "fashion-mnist.keras", "fashion-mnist.keras")
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(FRAGILE_CODE)
        tar.addfile(member, io.BytesIO(FRAGILE_CODE.encode()))
    return path


def _images() -> list[tuple[bytes, Mapping[str, str]]]:
    """Requests of one image to thirty, as JSON and as x-npy."""
    with np.load(ROOT / "model" / "artifacts" / "sample.npz", allow_pickle=False) as sample:
        images = (sample["images"] / 255).astype(np.float32)
    made: list[tuple[bytes, Mapping[str, str]]] = [(SNEAKER, JSON)]
    for size in (1, 2, 8, 30):
        made.append((json.dumps({"instances": images[:size].tolist()}).encode(), JSON))
        file = io.BytesIO()
        np.save(file, images[:size])
        made.append((file.getvalue(), {"content-type": "application/x-npy"}))
    return made
