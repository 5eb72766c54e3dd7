"""Group commit: every row of one event-loop turn goes into the ledger in one transaction.

A row's answer may leave once `written` has resolved; a ledger that cannot write fails the answers
of that turn and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from emulator.errors import InternalFailure
from emulator.ledger import InvocationRow, Ledger

log = logging.getLogger("lukewarm.ledger")


class Journal:
    """The one writer of invocation rows. `observe` is told each row that was written."""

    def __init__(self, ledger: Ledger, observe: Callable[[InvocationRow], None]) -> None:
        self._ledger = ledger
        self._observe = observe
        self._rows: list[InvocationRow] = []
        self._written: asyncio.Future[None] | None = None

    def write(self, row: InvocationRow) -> asyncio.Future[None]:
        """A future, shared by all rows of this turn, that resolves when they are committed.

        It raises InternalFailure if they cannot be; none of them is recorded then.
        """
        self._rows.append(row)
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self.flush)
        return self._written

    def flush(self) -> None:
        """Commit what has gathered; called once per turn, and once more before closing."""
        rows, written = self._rows, self._written
        self._rows, self._written = [], None
        if written is None:
            return
        try:
            self._ledger.append(rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, callers must not wait for ever
            log.error("The ledger cannot record %d invocations: %s.", len(rows), error)
            failure = InternalFailure(
                f"The invocation could not be recorded in the ledger and is not billed: {error}."
            )
            written.set_exception(failure)
            written.exception()  # a caller that has gone is not a fault
            return
        written.set_result(None)
        for row in rows:
            self._observe(row)
