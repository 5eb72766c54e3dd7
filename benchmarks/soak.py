"""Minutes of mixed traffic, and whether anything has leaked: `make soak`.

A rehearsal comes first, so that what is made once and kept is there when the counting starts.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Running, server
from benchmarks.processes import Held, alive, descendants, held
from benchmarks.traffic import FRAGILE, Tally, Traffic, fragile

REHEARSAL_S, REPORT_S, SETTLE_S = 20.0, 30.0, 60.0
GROWTH_MB = 30.0
SETTINGS = {"EMULATOR_KEEP_WARM_S": "1-3", "EMULATOR_LOG_LEVEL": "warning"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        faults = _soak(minutes * 60, Path(scratch), log)
        said = log.read_text(errors="replace").splitlines()
        if tracebacks := sum(line.startswith("Traceback") for line in said):
            faults.append(f"The server's log has {tracebacks} tracebacks.")
        if faults:
            print("\n".join(["", "The end of the server's log:", *said[-25:], ""]))
    for fault in faults:
        print(f"FAULT: {fault}")
    print(f"{len(faults)} faults." if faults else "No fault.")
    return int(bool(faults))


def _soak(seconds: float, scratch: Path, log: Path) -> list[str]:
    with server(log, **SETTINGS) as running:
        running.wait("/ping")
        tally = Tally()
        before, after = asyncio.run(_traffic(running, seconds, fragile(scratch), tally))
        faults = [f"{text} ({times} times)" for text, times in tally.faults.most_common(20)]
        faults += _grown(before, after)
        running.client.close()
        return faults + _ended(running) + _unrecorded(running.state, tally)


async def _traffic(
    running: Running, seconds: float, model: Path, tally: Tally
) -> tuple[Held, Held]:
    """What the server held before and after, with nothing in flight."""
    traffic, pid = Traffic(running.url, tally), running.process.pid
    await traffic.deploy(FRAGILE, model, 2)
    await traffic.run(REHEARSAL_S)
    await traffic.ask_much_at_once()
    await traffic.close()
    before = await _settled(pid)
    print(f"{'start':>6}  {_line(tally, before)}", flush=True)
    traffic = Traffic(running.url, tally)
    reporting = asyncio.create_task(_report(pid, tally))
    await traffic.run(seconds)
    await traffic.close()
    reporting.cancel()
    after = await _settled(pid, before)
    print(f"{'end':>6}  {_line(tally, after)}", flush=True)
    return before, after


async def _report(pid: int, tally: Tally) -> None:
    begin = time.monotonic()
    while True:
        await asyncio.sleep(REPORT_S)
        print(f"{time.monotonic() - begin:4.0f} s  {_line(tally, held(pid))}", flush=True)


async def _settled(pid: int, like: Held | None = None) -> Held:
    """Once the environments have expired and nothing is more than it was before, or does not
    become less any more."""
    end, least = time.monotonic() + SETTLE_S, held(pid)
    calm_since = time.monotonic()
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        now = held(pid)
        if like and _same(now, like):
            return now
        if (now.children, now.descriptors) < (least.children, least.descriptors):
            least, calm_since = now, time.monotonic()
        if like is None and time.monotonic() - calm_since > 8:
            return now
    return held(pid)


def _same(now: Held, like: Held) -> bool:
    """Whether nothing is more than it was."""
    counts = (now.descriptors, now.threads, now.children)
    return all(
        a <= b for a, b in zip(counts, (like.descriptors, like.threads, like.children), strict=True)
    )


def _line(tally: Tally, now: Held) -> str:
    statuses = "  ".join(f"{one}: {many:,}" for one, many in sorted(tally.statuses.items()))
    return (
        f"{tally.statuses.total():,} answers ({statuses})  {tally.throttled:,} throttled  "
        f"{tally.cold:,} cold  {tally.left:,} left  {now.resident_mb:.1f} MB  "
        f"{now.descriptors} descriptors  {now.threads} threads  {now.children} processes"
    )


def _grown(before: Held, after: Held) -> list[str]:
    faults = []
    if (growth := after.resident_mb - before.resident_mb) > GROWTH_MB:
        faults.append(f"The server's memory grew by {growth:.1f} MB; it may by {GROWTH_MB:g}.")
    for what in ("descriptors", "threads", "children"):
        was, became = getattr(before, what), getattr(after, what)
        if became > was:
            faults.append(f"The server has {became} {what} with nothing to do, after {was}.")
    return faults


def _ended(running: Running) -> list[str]:
    """Stop the server: how it ended, and which of its processes did not."""
    pids = descendants(running.process.pid)
    running.process.terminate()
    code = running.process.wait(60)
    ended = code in (0, -signal.SIGTERM)  # uvicorn passes the signal on when it is done
    faults = [] if ended else [f"The server ended with {code}, not 0."]
    end = time.monotonic() + 10
    while (left := alive(pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return faults + ([f"Processes outlived the server: {left}."] if left else [])


def _unrecorded(state: Path, tally: Tally) -> list[str]:
    """Whether every answer that a client got is in the ledger, and no row is twice."""
    with closing(sqlite3.connect(state / "ledger.sqlite")) as ledger:
        rows = Counter(one for (one,) in ledger.execute("SELECT request_id FROM invocations"))
    lacking = [one for one in tally.recorded if one not in rows]
    twice = [one for one, times in rows.items() if times > 1]
    print(f"{len(tally.recorded):,} answers compared with {rows.total():,} rows of the ledger.")
    faults = []
    if lacking:
        faults.append(f"The ledger lacks {len(lacking)} answers that clients got: {lacking[:3]}.")
    if twice:
        faults.append(f"The ledger has {len(twice)} answers more than once: {twice[:3]}.")
    return faults


if __name__ == "__main__":
    sys.exit(main())
