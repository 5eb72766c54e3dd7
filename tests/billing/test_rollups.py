"""Roll-ups: whatever is asked of them is what the rows say, also when these are gone."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.address import Home
from emulator.billing import Usage, UsageKind
from emulator.ledger import Counts, InvocationRow, Ledger
from emulator.ledger.check import check
from emulator.ledger.schema import DAY, HOUR, MINUTE
from tests.billing.rows import DIGITS, HOME, row, throttled

SECOND = 10**9
INSTANTS = st.integers(0, 3 * DAY) | st.sampled_from(
    [0, MINUTE, MINUTE - 1, HOUR, HOUR + 1, DAY, DAY - 1, 2 * DAY, 3 * DAY]
)
CHANGES: list[dict[str, Any]] = [
    {},
    {"endpoint": "other", "memory_mb": 1024, "billed_ms": 7},
    {"cold_start": True, "load_ns": 5, "billed_startup_ms": 99},
    {"provisioned": True, "variant": "b"},
    {"status": 500, "error_code": "InternalFailure", "model_ns": 0},
    {"status": 424, "error_code": "ModelError"},
    {"region": "us-east-1", "bytes_billed": False},
    throttled()._asdict(),
]
ROWS = st.lists(
    st.builds(
        lambda at, change: row(**{**change, "at_ns": at}),
        INSTANTS,
        st.sampled_from(CHANGES),
    ),
    max_size=30,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def expected(rows: Sequence[InvocationRow], start: int, end: int, startup: bool) -> dict[str, int]:
    """What the rows of a period add up to, without a ledger."""
    found = [one for one in rows if start <= one.at_ns < end]
    billed = [one.billed_startup_ms if startup else one.billed_ms for one in found]
    return {
        "invocations": len(found),
        "cold": sum(one.cold_start for one in found),
        "throttles": sum(one.error_code == "ThrottlingException" for one in found),
        "errors": sum(
            one.status >= 400 and one.error_code != "ThrottlingException" for one in found
        ),
        "ms": sum(billed),
        "in": sum(one.request_bytes * one.bytes_billed for one in found),
        "out": sum(one.response_bytes * one.bytes_billed for one in found),
    }


def told(ledger: Ledger, start: int | None, end: int | None, startup: bool) -> dict[str, int]:
    usages, counts = ledger.statement(startup, start, end)
    durations = (UsageKind.SERVERLESS_DURATION, UsageKind.PROVISIONED_DURATION)

    def total(*kinds: UsageKind) -> int:
        return sum(one.usage.quantity for one in usages if one.usage.kind in kinds)

    return {
        "invocations": sum(one.invocations for one in counts.values()),
        "cold": sum(one.cold_starts for one in counts.values()),
        "throttles": sum(one.throttles for one in counts.values()),
        "errors": sum(one.errors for one in counts.values()),
        "ms": total(*durations),
        "in": total(UsageKind.DATA_IN),
        "out": total(UsageKind.DATA_OUT),
    }


@settings(deadline=None, max_examples=60)
@given(st.lists(ROWS, max_size=3), INSTANTS, INSTANTS, INSTANTS, st.booleans())
def test_a_period_is_what_its_rows_say_and_the_sum_of_its_parts(
    batches: list[list[InvocationRow]], one: int, two: int, three: int, startup: bool
) -> None:
    start, middle, end = sorted((one, two, three))
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "ledger.sqlite")
        for batch in batches:
            ledger.append(batch)
        rows = [one for batch in batches for one in batch]
        whole = told(ledger, start, end, startup)
        assert whole == expected(rows, start, end, startup)
        left, right = told(ledger, start, middle, startup), told(ledger, middle, end, startup)
        assert whole == {name: left[name] + right[name] for name in whole}
        assert told(ledger, None, None, startup) == expected(rows, 0, 4 * DAY, startup)
        ledger.close()
        checked = check(ledger.path)
        assert (checked.rows, checked.faults) == (len(rows), ())


@settings(deadline=None, max_examples=30)
@given(ROWS, INSTANTS, INSTANTS, INSTANTS)
def test_what_is_dropped_stays_in_the_sums(
    rows: list[InvocationRow], before: int, cut: int, late: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "ledger.sqlite")
        ledger.append(rows)
        whole = told(ledger, None, None, True)
        gone = ledger.drop(before)
        first_kept = before - before % MINUTE
        assert gone == sum(one.at_ns < first_kept for one in rows)
        kept = [one for one in rows if one.at_ns >= first_kept]
        assert ledger.invocations(limit=100)[0] == kept
        assert told(ledger, None, None, True) == whole
        minute = cut - cut % MINUTE  # a minute is the smallest period there
        assert told(ledger, 0, minute, True) == expected(rows, 0, minute, True)
        left, right = told(ledger, 0, cut, True), told(ledger, cut, 4 * DAY, True)
        assert whole == {name: left[name] + right[name] for name in whole}
        ledger.append([row(at_ns=late)])  # a clock that was set back
        assert told(ledger, None, None, True)["ms"] == whole["ms"] + 45
        ledger.close()
        assert check(ledger.path).rows == len(kept) + 1


def test_numbers_of_rows_go_on_when_all_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger.open(path)
    ledger.append([row(at_ns=n) for n in range(3)])
    cursor = ledger.invocations(limit=2)[1]
    assert ledger.drop(HOUR) == 3
    ledger.close()
    ledger = Ledger.open(path)
    ledger.append([row(at_ns=2 * HOUR, request_id="new")])
    (found,), _ = ledger.invocations(cursor=cursor)
    assert found.request_id == "new"
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT seq FROM invocations").fetchall() == [(4,)]
    reader.close()
    ledger.close()


def test_rolls_hold_all_that_is_shown_of_a_place(ledger: Ledger) -> None:
    ledger.append([
        row(at_ns=DAY, model_ns=20_000_000, overhead_ns=0, peak_bytes=7),
        row(at_ns=DAY + 1, cold_start=True, provision_ns=1, runtime_ns=2, load_ns=3, peak_bytes=9),
        throttled(at_ns=DAY + MINUTE, peak_bytes=0),
        row(at_ns=DAY + HOUR, endpoint="other", status=500, error_code="InternalFailure"),
    ])  # fmt: skip
    (hour,) = ledger.rolls("hours", 24, 25)
    assert hour.place[:5] == (HOME.account, HOME.region, "digits", "AllTraffic", "serverless")
    assert (hour.place.provisioned, hour.place.memory_mb) == (False, 4096)
    assert (hour.start, hour.invocations, hour.cold_starts, hour.throttles) == (24, 3, 1, 1)
    assert (hour.errors, hour.startup_ns, hour.peak_bytes) == (0, 6, 9)
    assert (hour.model_ms, hour.model_ns) == (20 + 45, 65_000_000)
    assert [one.start for one in ledger.rolls("minutes", 0, 10**6, HOME, "digits")] == [1440, 1441]
    (other,) = ledger.rolls("days", 1, 2, endpoint="other")
    assert (other.errors, other.faults) == (1, 1)
    assert ledger.rolls("days", 1, 2, Home("9" * 12, HOME.region)) == []


@pytest.mark.parametrize(
    ("tampering", "table", "column"),
    [
        ("UPDATE minutes SET billed_ms = billed_ms + 1", "minutes", "billed_ms"),
        ("UPDATE hours SET latencies = x'00'", "hours", "latencies"),
        ("DELETE FROM days", "days", ""),
        ("DELETE FROM calls WHERE seq = 1", "minutes", "invocations"),
        ("INSERT INTO days SELECT place, 9, 1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,'',1,1 FROM days",
         "days", ""),
    ],
)  # fmt: skip
def test_a_roll_that_was_tampered_with_is_found(
    ledger: Ledger, tampering: str, table: str, column: str
) -> None:
    ledger.append([row(at_ns=DAY + SECOND), row(at_ns=DAY + 2 * SECOND)])
    assert not check(ledger.path).faults
    with sqlite3.connect(ledger.path) as writer:
        writer.execute(tampering)
    writer.close()
    fault = next(one for one in check(ledger.path).faults if one.table == table)
    assert (fault.endpoint, fault.variant, fault.column) == ("digits", "AllTraffic", column)


def test_other_programs_read_the_rows_as_they_were_given(ledger: Ledger) -> None:
    named = "0b4e6d2a-9c1f-4a54-8f7b-3d2a1c0b9e8f"
    ledger.append([row(request_id=named), row(request_id=named.upper()), row(request_id="any")])
    with sqlite3.connect(ledger.path) as reader:
        found = reader.execute("SELECT request_id, environment FROM invocations").fetchall()
    reader.close()
    assert found == [(named, "env-1"), (named.upper(), "env-1"), ("any", "env-1")]
    assert [one.request_id for one in ledger.invocations()[0]] == [named, named.upper(), "any"]


def test_a_refused_batch_leaves_no_trace_of_its_names(ledger: Ledger) -> None:
    ledger.append([row()])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.append([row(endpoint="never", environment="e"), row(billed_ms=-1)])
    ledger.append([row(endpoint="later", environment="f")])
    ledger.append([row(endpoint="never", environment="e")])
    found = [(one.endpoint, one.environment) for one in ledger.invocations()[0]]
    assert found == [("digits", "env-1"), ("later", "f"), ("never", "e")]
    assert not check(ledger.path).faults


def test_more_names_than_are_remembered(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.ledger.intake.KNOWN", 3)
    for number in range(20):
        ledger.append([row(environment=f"e{number % 7}", endpoint=f"n{number % 5}")])
    found = [one.environment for one in ledger.invocations()[0]]
    assert found == [f"e{number % 7}" for number in range(20)]
    assert Usage(UsageKind.SERVERLESS_DURATION, "4096", 4 * 45) in [
        one.usage for one in ledger.usage()
    ]


def test_a_check_goes_on_while_rows_are_written(ledger: Ledger) -> None:
    for number in range(50):
        ledger.append([row(at_ns=number * SECOND)])
        if number % 10 == 0:
            checked = check(ledger.path)
            assert (checked.rows, checked.faults) == (number + 1, ())
    assert ledger.counts() == {DIGITS: Counts(50)}
