"""Group commit: every row of one event-loop turn goes into the ledger in one transaction.

A row's answer may leave once `written` has resolved; a ledger that cannot write fails the answers
of that turn and nothing else. One that another process has locked is tried again for a while, and
the event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from emulator.errors import InternalDependencyException
from emulator.ledger import InvocationRow, Ledger, busy

log = logging.getLogger("lukewarm.ledger")

PATIENCE_S = 5.0  # with another process that has the ledger locked
AGAIN_S = 0.02


class Journal:
    """The one writer of invocation rows. `observe` is told each row that was written."""

    def __init__(self, ledger: Ledger, observe: Callable[[InvocationRow], None]) -> None:
        self._ledger = ledger
        self._observe = observe
        self._rows: list[InvocationRow] = []
        self._written: asyncio.Future[None] | None = None
        self._busy_since: float | None = None
        self._failing = False

    def write(self, row: InvocationRow) -> asyncio.Future[None]:
        """A future, shared by all rows of this turn, that resolves when they are committed.

        It raises InternalDependencyException if they cannot be; none of them is recorded then.
        While the ledger is locked the rows of later turns join them.
        """
        self._rows.append(row)
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._flush)
        return self._written

    async def drain(self) -> None:
        """Wait until what was given to `write` is committed, or has failed."""
        while self._written is not None:
            await asyncio.wait((self._written,))

    def _flush(self) -> None:
        """Commit what has gathered, or come back if somebody else is writing."""
        try:
            self._ledger.append(self._rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, callers must not wait for ever
            if busy(error) and self._patient():
                asyncio.get_running_loop().call_later(AGAIN_S, self._flush)
            else:
                self._fail(error)
            return
        rows, written = self._taken()
        if self._failing:
            self._failing = False
            log.info("The ledger records invocations again.")
        written.set_result(None)
        for row in rows:
            self._observe(row)

    def _patient(self) -> bool:
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        return now - self._busy_since < PATIENCE_S

    def _fail(self, error: Exception) -> None:
        _, written = self._taken()
        if not self._failing:  # one line, not one a turn: the log may be on the same full disk
            log.error("The ledger cannot record invocations, which fail: %s.", error)
        self._failing = True
        failure = InternalDependencyException(
            f"The invocation could not be recorded in the ledger and is not billed: {error}."
        )
        written.set_exception(failure)
        written.exception()  # a caller that has gone is not a fault

    def _taken(self) -> tuple[list[InvocationRow], asyncio.Future[None]]:
        rows, written = self._rows, self._written
        assert written is not None  # there is one as long as there are rows
        self._rows, self._written, self._busy_since = [], None, None
        return rows, written
