"""Callers that keep a server busy while something happens to it, and the books it has to show."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import httpx

from tests.servers import Server, until

REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"


class Load:
    """What callers were answered, by request id; kept over several rounds of load."""

    def __init__(self) -> None:
        self.answers: dict[str, httpx.Response] = {}
        self._over = threading.Event()

    def statuses(self, after: int = 0) -> Counter[int]:
        """How often each status was answered, the first `after` answers left out."""
        return Counter(one.status_code for one in list(self.answers.values())[after:])

    def slowest_s(self, after: int = 0) -> float:
        """The longest wait for a warm answer: no turn of the server's loop took longer."""
        warm = [
            one.elapsed.total_seconds()
            for one in list(self.answers.values())[after:]
            if one.headers["x-emulator-cold-start"] == "false"
        ]
        return max(warm, default=0.0)

    def wait(self, status: int, count: int, what: str) -> None:
        """Until there are `count` more answers of that status."""
        begin = len(self.answers)
        until(lambda: self.statuses(begin)[status] >= count, what)

    def _call(self, server: Server, endpoint: str, may_end: bool) -> None:
        while not self._over.is_set():
            try:
                answer = server.invoke(endpoint)
            except httpx.TransportError:
                if may_end:
                    return
                raise
            self.answers[answer.headers["x-amzn-requestid"]] = answer

    @contextmanager
    def on(self, server: Server, endpoints: Sequence[str], may_end: bool = False) -> Iterator[None]:
        """One caller for each of the endpoints. With `may_end` one that finds nobody leaves."""
        self._over.clear()
        with ThreadPoolExecutor(len(endpoints)) as pool:
            calls = [pool.submit(self._call, server, one, may_end) for one in endpoints]
            try:
                yield
            finally:
                self._over.set()
            for call in calls:
                call.result()


def rows(server: Server, endpoint: str | None = None) -> list[dict[str, Any]]:
    """All rows of the ledger, page by page."""
    found: list[dict[str, Any]] = []
    query = {"limit": "1000"} | ({"endpoint": endpoint} if endpoint else {})
    while True:
        page = server.client.get("/_emulator/invocations", params=query).json()
        found += page["invocations"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def check_bill(server: Server) -> None:
    """The bill says what the rows add up to."""
    for name in (REALTIME, SERVERLESS):
        mine, bill = rows(server, name), server.bill(name)
        assert bill["invocations"] == len(mine)
        assert bill["cold_starts"] == sum(row["cold_start"] for row in mine)
        assert bill["throttles"] == sum(row["error_code"] == "ThrottlingException" for row in mine)
    billed_ms = sum(row["billed_ms"] for row in rows(server, SERVERLESS))
    line = server.bill(SERVERLESS)["lines"].get("EUW3-ServerlessInf:Mem-4GB")
    assert Decimal(line["quantity"] if line else 0) * 1000 == billed_ms


class Reading(NamedTuple):
    """Instance time on the bill, and the moments between which it was read. All in seconds."""

    asked: float
    held: float
    told: float


def read_meter(server: Server) -> Reading:
    """The instance time of the real-time endpoint that every server begins with."""
    asked = time.monotonic()
    line = server.bill(REALTIME)["lines"].get("EUW3-Host:ml.t2.medium")
    held = Decimal(line["quantity"]) * 3600 if line else 0
    return Reading(asked, float(held), time.monotonic())
