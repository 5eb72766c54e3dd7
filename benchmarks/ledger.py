"""The ledger with 10 million invocations of 90 days: how fast they go in, how large the file is,
and how long the bill takes. `python -m benchmarks.ledger FILE` makes such a ledger to be kept.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, percentile, seconds, server
from emulator.address import Home, Key
from emulator.billing import UsageKind
from emulator.core import MIB
from emulator.ledger import InvocationRow, Ledger

INVOCATIONS, DAYS, ENDPOINTS, BATCH = 10_000_000, 90, 8, 1000
DAY_NS = 86_400 * 10**9
BEGIN_NS = 1_767_225_600 * 10**9  # 2026-01-01
HOME = Home("123456789012", "eu-west-3")
MEMORY_MB = (1024, 2048, 4096, 6144)
ASKED = 100
FOLDED = 100  # batches between two checkpoints: a server has one each second


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state" / "ledger.sqlite"
        taken = fill(path, INVOCATIONS)
        note = f"{INVOCATIONS:,} invocations of {DAYS} days, {ENDPOINTS} endpoints"
        size = path.stat().st_size
        found = [
            Figure("invocations into the ledger", INVOCATIONS / taken, "1/s", 20_000, "above",
                   f"batches of {BATCH}, checkpoints included"),
            Figure("size of the ledger", size / MIB, "MiB", 1_500_000_000 / MIB, note=note),
            Figure("bytes of an invocation", size / INVOCATIONS, "B", note="roll-ups included"),
        ]  # fmt: skip
        return [*found, *_answers(path.parent, note)]


def _answers(state: Path, note: str) -> Iterator[Figure]:
    with server(EMULATOR_STATE_DIR=str(state)) as running:
        running.wait("/ping")
        for name, accept, bound in (
            ("JSON", "application/json", 50.0),
            ("page", "text/html", None),
        ):
            headers = {"accept": accept}

            def ask(headers: dict[str, str] = headers) -> None:
                running.client.get("/billing", headers=headers).raise_for_status()

            ask()
            times = [1000 * seconds(ask) for _ in range(ASKED)]
            yield Figure(
                f"the bill as {name}, p95", percentile(times, 0.95), "ms", bound, note=note
            )


def fill(path: Path, invocations: int) -> float:
    """Make a ledger, or add to it; the seconds spent in it."""
    ledger = Ledger.open(path)
    taken = 0.0
    for number in range(ENDPOINTS // 2):
        ledger.hold(_realtime(number), "AllTraffic", UsageKind.INSTANCE, "ml.m5.large", 1, BEGIN_NS)
    for number, batch in enumerate(_batches(invocations)):
        taken += seconds(lambda batch=batch: ledger.append(batch))  # type: ignore[misc]
        if number % FOLDED == 0:
            taken += seconds(ledger.checkpoint)
    ledger.beat(BEGIN_NS + DAYS * DAY_NS)
    taken += seconds(ledger.checkpoint)
    ledger.close()
    return taken


def _realtime(number: int) -> Key:
    return Key(HOME, f"realtime-{number}")


def _batches(invocations: int) -> Iterator[list[InvocationRow]]:
    """Rows in the order of time, more of them by day than by night, and of some endpoints more than
    of others."""
    random = np.random.default_rng(7)
    clock = np.linspace(0, DAYS * DAY_NS, 200_000)
    rate = 1.0 - 0.8 * np.cos(2 * np.pi * clock / DAY_NS)
    share = np.cumsum(rate) / rate.sum()
    weights = 1 / np.arange(1, ENDPOINTS + 1)
    for first in range(0, invocations, BATCH):
        size = min(BATCH, invocations - first)
        arrivals = BEGIN_NS + np.interp((first + np.arange(size)) / invocations, share, clock)
        columns = zip(
            arrivals.astype(np.int64).tolist(),
            random.choice(ENDPOINTS, size, p=weights / weights.sum()).tolist(),
            random.lognormal(16.5, 0.5, size).astype(np.int64).tolist(),
            random.integers(300_000, 2_000_000, size).tolist(),
            random.random(size).tolist(),
            _ids(random, size),
            strict=True,
        )
        yield [_row(first + number, *values) for number, values in enumerate(columns)]


def _ids(random: np.random.Generator, size: int) -> list[str]:
    drawn = random.bytes(16 * size)
    return [str(uuid.UUID(bytes=drawn[i : i + 16])) for i in range(0, 16 * size, 16)]


def _row(
    number: int, at_ns: int, place: int, model_ns: int, overhead_ns: int, luck: float, name: str
) -> InvocationRow:
    serverless = place % 2 == 1
    cold, throttled, failed = luck < 0.002, luck > 0.999, luck > 0.998
    cold &= serverless
    load_ns = 900_000_000 if cold else 0
    billed_ms = -(-model_ns // 1_000_000) if serverless and not throttled else 0
    return InvocationRow(
        request_id=name,
        at_ns=at_ns,
        endpoint=f"serverless-{place // 2}" if serverless else f"realtime-{place // 2}",
        variant="AllTraffic",
        persona="serverless" if serverless else "realtime",
        region=HOME.region,
        environment="" if throttled else f"{place:02x}{number // 5000:08x}",
        status=400 if throttled else 424 if failed else 200,
        error_code="ThrottlingException" if throttled else "ModelError" if failed else "",
        cold_start=cold,
        provisioned=False,
        memory_mb=MEMORY_MB[place // 2] if serverless else 0,
        instance_type="" if serverless else "ml.m5.large",
        request_bytes=500 + place,
        response_bytes=180 + number % 40,
        bytes_billed=not throttled,
        queue_ns=0,
        provision_ns=0,
        runtime_ns=load_ns,
        load_ns=load_ns,
        model_ns=0 if throttled else model_ns,
        overhead_ns=overhead_ns + 2 * load_ns,
        cpu_ns=0 if throttled else model_ns - 1000,
        peak_bytes=0 if throttled else 310_000_000 + number % 100_000,
        billed_ms=billed_ms,
        billed_startup_ms=billed_ms + (1800 if cold else 0),
        inference_id="",
        account=HOME.account,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--invocations", type=int, default=INVOCATIONS)
    asked = parser.parse_args()
    begin = time.perf_counter()
    taken = fill(asked.file.absolute(), asked.invocations)
    size = asked.file.stat().st_size
    print(
        f"{asked.invocations:,} invocations: {size / MIB:,.0f} MiB, {size / asked.invocations:.0f} "
        f"bytes each, {asked.invocations / taken:,.0f} a second, "
        f"{time.perf_counter() - begin:.0f} s in all."
    )


if __name__ == "__main__":
    main()
