"""uvicorn with several workers: each would be a decider of its own, so none starts.

uvicorn's supervisor, depending on its version, starts a worker that ends again, and again.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from contextlib import suppress
from typing import Any

PATIENCE_S = 5.0  # for the supervisor, which looks twice a second


def count(uvicorn: Any) -> int:
    """How many workers the configuration asks for, and gets."""
    workers = getattr(uvicorn, "workers", 1)
    return 1 if getattr(uvicorn, "should_reload", False) else workers or 1


async def give_up(workers: int) -> str:
    """Have the supervisor end all workers; returns once it does.

    What a person has to be told, in the first worker; nothing in the others.
    """
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    first = multiprocessing.current_process().name.endswith("-1")
    if first and multiprocessing.parent_process():
        os.kill(os.getppid(), signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
    if not first:
        return ""
    return (
        f"uvicorn was told to start {workers} workers, and each would count requests and bill for "
        "itself: start it without --workers and without WEB_CONCURRENCY."
    )
