"""How many connections there may be, how long each may take, and what a client is told that goes
too far. Keeps count and time; the connections themselves are `connections.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from emulator.config import Config

log = logging.getLogger("lukewarm.door")


class Watched(Protocol):
    """What is swept over: `coming` bytes of a body are here, `since` when the client is at it."""

    coming: int
    since: float

    def refuse(self, refusal: Refusal) -> None:
        """Take nothing more from the client, and tell it why."""

    def check(self) -> None:
        """End the connection if its client has been at something for too long."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is ended: the answer's status and the sentence that is its body."""

    status: int
    text: str


class Refused(Exception):
    """Raised out of the parser's callbacks, which stops it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


MALFORMED = Refusal(400, "The request is not valid HTTP/1.1.")
UPGRADE = Refusal(400, "The server speaks HTTP/1.1 only: leave the header Upgrade out.")


class Door:
    """All connections of one server. Sweeps over them, so that none needs a timer of its own."""

    def __init__(self, config: Config, most: int, end: Callable[[], None]) -> None:
        """`end` is told when the server begins to end, as often as there are connections."""
        self.end = end
        self.config, self.most = config, most
        self.open: set[Watched] = set()
        self.leaving: set[Watched] = set()
        limits = (config.head_s, config.body_s, config.delivery_s)
        self.period_s = min(1.0, *(limit / 2 for limit in limits))
        self.coming = 0  # bytes of all bodies that are not complete
        self.now = asyncio.get_running_loop().time()  # as of the last sweep
        self._counts: Counter[str] = Counter()
        self.crowded = Refusal(
            503, f"The server has {most} connections, its limit (EMULATOR_CONNECTIONS)."
        )
        self.large = Refusal(
            431,
            f"The request's head has more than {config.head_bytes} bytes, the limit "
            "(EMULATOR_HEAD_BYTES).",
        )
        self.many = Refusal(
            431,
            f"The request has more than {config.head_fields} headers, the limit "
            "(EMULATOR_HEAD_FIELDS).",
        )
        self.slow_head = Refusal(
            408,
            f"The request's head was not complete after {config.head_s:g} s (EMULATOR_HEAD_S).",
        )
        self.slow_body = Refusal(
            408,
            f"The request's body was not complete after {config.body_s:g} s (EMULATOR_BODY_S).",
        )
        self.heavy = Refusal(
            503,
            f"More than {config.bodies_bytes} bytes of bodies are on their way to the server "
            "(EMULATOR_BODIES_BYTES), and this one was the oldest.",
        )
        self.slow_reader = (
            f"An answer was not taken within {config.delivery_s:g} s (EMULATOR_DELIVERY_S)."
        )

    async def run(self) -> None:
        """Sweep until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.period_s)
            self.now = loop.time()
            for connection in tuple(self.open):
                connection.check()
            for reason, count in self._counts.items():
                log.warning("Connections ended: %d. %s", count, reason)
            self._counts.clear()

    def relieve(self) -> None:
        """Refuse the oldest of the bodies on their way, until there is room for a tenth more."""
        for connection in sorted(self.open, key=lambda one: one.since):
            if self.coming <= self.config.bodies_bytes * 9 // 10:
                break
            if connection.coming:
                connection.refuse(self.heavy)

    def note(self, reason: str) -> None:
        """Count a connection that is ended; the log has one line a reason and sweep."""
        self._counts[reason] += 1

    def past(self, since: float, limit_s: float) -> bool:
        """Whether `limit_s` have surely passed, `since` being as old as a sweep."""
        return self.now - since > limit_s + self.period_s
