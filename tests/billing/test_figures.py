"""CloudWatch's metrics from rows that are known: every row of the table, and the percentiles."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.address import Home, Key
from emulator.billing import UsageKind
from emulator.core import GIB, MIB, SECOND
from emulator.figures import INVOCATIONS, MINUTE, TABLE, UTILIZATION, Capacity, Figures, metric
from emulator.ledger import InvocationRow, Ledger

HOME = Home("123456789012", "eu-west-3")
START = 1_700_000_040 * SECOND  # a whole minute
REACH = 240 * SECOND
FOUR = Capacity(4)
PERCENTS = (0.0, 10.0, 50.0, 90.0, 99.0, 99.9, 100.0)


def row(at_s: float, **changes: Any) -> InvocationRow:
    plain = InvocationRow(
        request_id="r",
        at_ns=START + round(at_s * SECOND),
        endpoint="e",
        variant="v",
        persona="serverless",
        account=HOME.account,
        region=HOME.region,
        environment="one",
        status=200,
        error_code="",
        cold_start=False,
        provisioned=False,
        memory_mb=2048,
        instance_type="",
        request_bytes=1,
        response_bytes=1,
        bytes_billed=True,
        queue_ns=0,
        provision_ns=0,
        runtime_ns=0,
        load_ns=0,
        model_ns=SECOND,
        overhead_ns=SECOND // 2,
        cpu_ns=0,
        peak_bytes=0,
        billed_ms=1,
        billed_startup_ms=1,
        inference_id="",
    )
    return plain._replace(**changes)


def instance(at_s: float, **changes: Any) -> InvocationRow:
    same = {"persona": "realtime", "memory_mb": 0, "instance_type": "ml.m5.large"}
    return row(at_s, **{**same, **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def figures(ledger: Ledger, capacity: Capacity | None = FOUR) -> Figures:
    return Figures(ledger, lambda: START, REACH, lambda *_: capacity)


def hold(ledger: Ledger, kind: UsageKind, sku: str, *steps: tuple[float, int]) -> None:
    for at_s, units in steps:
        at_ns = START + round(at_s * SECOND)
        ledger.beat(at_ns)
        ledger.hold(Key(HOME, "e"), "v", kind, sku, units, at_ns)


Found = list[tuple[float, float, float, float, float]]


def found(ledger: Ledger, name: str, minutes: int = 1, **more: object) -> Found:
    """Minute, number of samples, sum, least and most of each bucket of ten minutes."""
    namespace = UTILIZATION if name in ("MemoryUtilization", "DiskUtilization") else INVOCATIONS
    known = metric(UTILIZATION if name == "CPUUtilization" else namespace, name)
    assert known
    period = START, START + 10 * MINUTE, minutes * MINUTE
    buckets = figures(ledger, **more).series(HOME, known, ("e", "v"), period)  # type: ignore[arg-type]
    return [
        ((one.start_ns - START) / MINUTE, one.count, one.total, one.least, one.most)
        for one in buckets
    ]


def test_counts_and_errors(ledger: Ledger) -> None:
    throttled = {"status": 400, "error_code": "ThrottlingException", "environment": ""}
    ledger.append(
        [
            row(1),
            row(2, status=424, error_code="ModelError"),
            row(3, **throttled, model_ns=0, overhead_ns=1),
            row(61, status=503, error_code="ServiceUnavailable"),
            row(4, endpoint="another"),
            row(4, region="us-east-1"),
            row(600),  # after the end
            row(-1),
        ]
    )
    assert found(ledger, "Invocations") == [(0, 3, 3, 1, 1), (1, 1, 1, 1, 1)]
    assert found(ledger, "Invocations", 5) == [(0, 4, 4, 1, 1)]
    assert found(ledger, "Invocation4XXErrors") == [(0, 3, 2, 0, 1), (1, 1, 0, 0, 0)]
    assert found(ledger, "Invocation5XXErrors") == [(0, 3, 0, 0, 0), (1, 1, 1, 1, 1)]
    assert found(ledger, "InvocationModelErrors") == []  # of instances only
    assert found(ledger, "OverheadLatency")[0] == (0, 2, 1e6, 5e5, 5e5)
    assert found(ledger, "ModelLatency")[0] == (0, 2, 2e6, 1e6, 1e6)
    other = figures(ledger).series(
        Home("999988887777", HOME.region), TABLE[0], ("e", "v"), (START, START + MINUTE, MINUTE)
    )
    assert other == []


def test_a_cold_start_has_a_setup_time(ledger: Ledger) -> None:
    parts = {"provision_ns": 1000, "runtime_ns": 2000, "load_ns": 3000}
    ledger.append([row(0), row(1, cold_start=True, **parts), row(2, cold_start=True)])
    assert found(ledger, "ModelSetupTime") == [(0, 1, 6, 6, 6)]


def test_instances_share_requests_and_the_processor(ledger: Ledger) -> None:
    hold(ledger, UsageKind.INSTANCE, "ml.m5.large", (0, 1), (60, 2), (180, 0))
    busy = {"cpu_ns": 30 * SECOND, "peak_bytes": 4 * GIB}
    ledger.append(
        [instance(1, **busy), instance(61, **busy), instance(62), instance(63, status=424)]
    )
    assert found(ledger, "InvocationsPerInstance") == [(0, 1, 1, 1, 1), (1, 3, 1.5, 0.5, 0.5)]
    assert found(ledger, "CPUUtilization") == [
        (0, 1, 50, 50, 50),
        (1, 1, 25, 25, 25),
        (2, 1, 0, 0, 0),
    ]
    assert found(ledger, "MemoryUtilization") == [(0, 1, 50, 50, 50), (1, 1, 50, 50, 50)]
    assert found(ledger, "ModelSetupTime") == []


def test_the_disk_holds_the_model(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(bytes(3 * MIB))
    hold(ledger, UsageKind.INSTANCE, "ml.m5.large", (0, 1), (60, 0))
    capacity = Capacity(0, str(tmp_path / "model"))
    ((minute, count, total, _, _),) = found(ledger, "DiskUtilization", capacity=capacity)
    assert (minute, count) == (0, 1)
    assert total == pytest.approx(100 * 3 / (30 * 1024))


def test_memory_is_a_share_of_what_was_configured(ledger: Ledger) -> None:
    ledger.append([row(0, peak_bytes=512 * MIB), row(1, peak_bytes=1024 * MIB), row(2)])
    assert found(ledger, "MemoryUtilization") == [(0, 2, 75, 25, 50)]


def test_concurrency_is_counted_at_each_arrival(ledger: Ledger) -> None:
    long = {"model_ns": 90 * SECOND, "overhead_ns": 0}
    ledger.append(
        [
            row(-60, environment="one", **long),  # still runs when the period begins
            row(10, environment="two"),
            row(20, environment="two"),
            row(40, environment="two"),
            row(41, environment="three"),
            row(41.5, environment="", status=400, error_code="ThrottlingException"),
        ]
    )
    name = "ServerlessConcurrentExecutionsUtilization"
    assert found(ledger, name) == [(0, 4, 0.5 + 0.5 + 0.25 + 0.5, 0.25, 0.5)]
    assert found(ledger, name, capacity=None) == []


def test_under_a_clock_that_stands_still_one_environment_is_one(ledger: Ledger) -> None:
    ledger.append([row(5) for _ in range(3)])
    name = "ServerlessConcurrentExecutionsUtilization"
    assert found(ledger, name) == [(0, 3, 0.75, 0.25, 0.25)]


def test_provisioned_concurrency_and_what_spills_over(ledger: Ledger) -> None:
    hold(ledger, UsageKind.PROVISIONED_USAGE, "2048", (0, 2), (120, 0))
    ledger.append(
        [
            row(1, provisioned=True, environment="one"),
            row(1.1, provisioned=True, environment="two"),
            row(1.2, environment="three"),
            row(130, environment="four"),  # there is none any more
        ]
    )
    prefix = "ServerlessProvisionedConcurrency"
    assert found(ledger, f"{prefix}Invocations") == [(0, 2, 2, 1, 1)]
    assert found(ledger, f"{prefix}Executions") == [(0, 2, 3, 1, 2)]
    assert found(ledger, f"{prefix}Utilization") == [(0, 2, 1.5, 0.5, 1)]
    assert found(ledger, f"{prefix}SpilloverInvocations") == [(0, 1, 1, 1, 1)]


def test_what_is_listed_is_what_had_samples(ledger: Ledger) -> None:
    ledger.append([row(0), instance(0, endpoint="i"), row(-15 * 24 * 3600, endpoint="old")])
    listed = [(one.endpoint, one.metric.name) for one in figures(ledger).listed(HOME)]
    names = {name for endpoint, name in listed if endpoint == "e"}
    assert {endpoint for endpoint, _ in listed} == {"e", "i"}
    assert "Invocations" in names
    assert not names & {"ModelSetupTime", "CPUUtilization", "InvocationsPerInstance"}
    assert ("i", "CPUUtilization") in listed
    assert not list(figures(ledger).listed(Home("999988887777", HOME.region)))


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1001])
@pytest.mark.parametrize("name", ["ModelLatency", "MemoryUtilization"])
def test_percentiles_are_numpys(ledger: Ledger, size: int, name: str) -> None:
    draw = random.Random(size)
    rows = [
        row(
            draw.uniform(0, 299),
            model_ns=draw.randrange(1, SECOND),
            peak_bytes=draw.randrange(1, GIB),
        )
        for _ in range(size)
    ]
    ledger.append(rows)
    known = metric(UTILIZATION if name == "MemoryUtilization" else INVOCATIONS, name)
    assert known
    period = START, START + 5 * MINUTE, MINUTE
    for bucket in figures(ledger).series(HOME, known, ("e", "v"), period, PERCENTS):
        inside = [one for one in rows if 0 <= one.at_ns - bucket.start_ns < MINUTE]
        values = [
            one.model_ns / 1000 if name == "ModelLatency" else 100 * one.peak_bytes / 2 / GIB
            for one in inside
        ]
        assert bucket.count == len(values)
        expected = np.percentile(values, PERCENTS)
        assert list(bucket.percentiles.values()) == pytest.approx(list(expected))


def test_percentiles_of_gauges_are_numpys(ledger: Ledger) -> None:
    ends = [row(at, environment=str(at % 3), model_ns=2 * SECOND) for at in range(50)]
    ledger.append(ends)
    known = metric(INVOCATIONS, "ServerlessConcurrentExecutionsUtilization")
    assert known
    period = START, START + MINUTE, MINUTE
    (bucket,) = figures(ledger).series(HOME, known, ("e", "v"), period, PERCENTS)
    values = [1 / 4, 2 / 4] + [3 / 4] * 48
    assert bucket.percentiles == pytest.approx(
        dict(zip(PERCENTS, np.percentile(values, PERCENTS), strict=True))
    )
