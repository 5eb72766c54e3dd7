"""The parts of one answer, on their way from an environment to a client that may be slow."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

HIGH_BYTES, LOW_BYTES = 1 << 18, 1 << 16  # held for a client: above, the environment has to wait


class Source(Protocol):
    """Where parts come from."""

    def pause(self) -> None:
        """Give no more for now; the environment waits as soon as its socket is full."""

    def resume(self) -> None: ...

    def cancel(self) -> None:
        """Nobody wants what is still to come."""


class Stream:
    """One streamed answer. An environment puts parts, a client takes them.

    `opened` resolves with the first part. What is held is bounded: whatever the environment yields,
    and however slowly it is taken, it is little more than HIGH_BYTES.
    """

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.content_type, self.custom_attributes = "", ""
        self.variant = ""  # which one answers, for the host
        self.limit = 0  # the most bytes that are passed on
        self.size = 0  # bytes that have come
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._source: Source | None = None
        self._paused = False
        self._over = False  # nothing more is passed on
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, source: Source) -> None:
        """The environment has been asked."""
        self._source = source
        if self._over:
            source.cancel()

    def open(self, content_type: str, custom_attributes: str) -> None:
        """The answer's head is known; its first part follows."""
        self.content_type, self.custom_attributes = content_type, custom_attributes
        if not self.opened.done():
            self.opened.set_result(None)

    def put(self, part: bytes) -> None:
        """The next part. What comes after an end, or beyond the limit, is counted and dropped."""
        self.size += len(part)
        if self._over:
            return
        if self.size > self.limit:
            self.abandon()
            return
        self._parts.append(part)
        self._held += len(part)
        if self._held > HIGH_BYTES and not self._paused and self._source:
            self._paused = True
            self._source.pause()
        self._wake()

    def release(self) -> None:
        """The environment has given all; it waits for this client no more."""
        self._let_go()
        self._source = None

    def end(self) -> None:
        """Nothing more comes; what is held can still be taken."""
        self._over = True
        self._wake()

    def abandon(self) -> None:
        """Nothing more is wanted: the environment is told, and waits for nobody."""
        if self._over:
            return
        self._over = True
        if self._source:
            self._source.cancel()
        self._let_go()
        self._wake()

    async def take(self) -> bytes | None:
        """The next part, or None at the end."""
        while not self._parts:
            if self._over:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        part = self._parts.popleft()
        self._held -= len(part)
        if self._held < LOW_BYTES:
            self._let_go()
        return part

    def _let_go(self) -> None:
        if self._paused and self._source:
            self._paused = False
            self._source.resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
