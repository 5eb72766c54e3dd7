"""One call after the other over one kept connection, timed by a client that adds little itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

from benchmarks.measure import DEADLINE_S, JSON


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was answered with 200: how long it took, and how long the model did."""

    seconds: float
    model_s: float

    @property
    def overhead_s(self) -> float:
        return self.seconds - self.model_s


class Caller:
    """Posts to one URL."""

    def __init__(self, connection: HTTPConnection, path: str) -> None:
        self._connection, self._path = connection, path

    def call(self, body: bytes, headers: Mapping[str, str] = JSON) -> Call:
        begin = time.perf_counter()
        self._connection.request("POST", self._path, body, dict(headers))
        answer = self._connection.getresponse()
        content = answer.read()
        taken = time.perf_counter() - begin
        if answer.status != 200:
            raise AssertionError(f"{self._path} answered {answer.status}: {content[:200]!r}")
        return Call(taken, int(answer.headers["x-emulator-model-latency-us"]) / 1e6)


@contextmanager
def caller(url: str) -> Iterator[Caller]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=DEADLINE_S)
    try:
        yield Caller(connection, parts.path)
    finally:
        connection.close()
