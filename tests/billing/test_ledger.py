"""The ledger: what it counts, what a query sees, and the pages of its rows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.address import Key
from emulator.billing import Usage, UsageKind
from emulator.ledger import Counts, InvocationRow, Ledger
from tests.billing.rows import DIGITS, HOME, row, throttled

SERVERLESS = UsageKind.SERVERLESS_DURATION
DATA_IN, DATA_OUT = UsageKind.DATA_IN, UsageKind.DATA_OUT


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def used(ledger: Ledger, **period: int | bool | None) -> list[Usage]:
    return [record.usage for record in ledger.usage(**period)]  # type: ignore[arg-type]


def test_an_invocation_is_usage_of_duration_and_data(ledger: Ledger) -> None:
    ledger.append([row(), row(request_bytes=10, response_bytes=7, billed_ms=5)])
    assert used(ledger) == [
        Usage(DATA_IN, "serverless", 522),
        Usage(DATA_OUT, "serverless", 307),
        Usage(SERVERLESS, "4096", 50),
    ]
    (record, *_) = ledger.usage()
    assert record[:4] == ("digits", "AllTraffic", "serverless", "eu-west-3")


def test_starting_is_billed_only_where_asked_for(ledger: Ledger) -> None:
    ledger.append([row(cold_start=True, billed_ms=45, billed_startup_ms=9045), row()])
    assert Usage(SERVERLESS, "4096", 90) in used(ledger)
    assert Usage(SERVERLESS, "4096", 9090) in used(ledger, include_startup=True)


def test_provisioned_calls_are_usage_of_their_own(ledger: Ledger) -> None:
    ledger.append([row(provisioned=True, billed_ms=3), row(billed_ms=4)])
    assert Usage(UsageKind.PROVISIONED_DURATION, "4096", 3) in used(ledger)
    assert Usage(SERVERLESS, "4096", 4) in used(ledger)


def test_memory_sizes_are_kept_apart(ledger: Ledger) -> None:
    ledger.append([row(memory_mb=1024, billed_ms=1), row(memory_mb=2048, billed_ms=2)])
    assert Usage(SERVERLESS, "1024", 1) in used(ledger)
    assert Usage(SERVERLESS, "2048", 2) in used(ledger)


def test_a_real_time_call_is_usage_of_data_only(ledger: Ledger) -> None:
    realtime = row(
        persona="realtime", memory_mb=0, instance_type="ml.m5.large", billed_ms=0, at_ns=5
    )
    ledger.append([realtime])
    assert used(ledger) == [Usage(DATA_IN, "realtime", 512), Usage(DATA_OUT, "realtime", 300)]


def test_throttled_calls_are_counted_and_never_billed(ledger: Ledger) -> None:
    ledger.append([throttled(), throttled()])
    assert ledger.usage() == []
    assert ledger.counts() == {DIGITS: Counts(invocations=2, throttles=2)}


def test_a_failing_model_is_billed_and_counted_as_an_error(ledger: Ledger) -> None:
    ledger.append([row(status=424, error_code="ModelError"), row(cold_start=True), throttled()])
    assert Usage(SERVERLESS, "4096", 90) in used(ledger)
    assert ledger.counts() == {DIGITS: Counts(3, cold_starts=1, throttles=1, errors=1)}


def test_large_sums_stay_exact(ledger: Ledger) -> None:
    ledger.append([row(billed_ms=2**53 + 1), row(billed_ms=2**53 + 2)])
    assert Usage(SERVERLESS, "4096", 2**54 + 3) in used(ledger)


def test_usage_of_years_of_volumes_exceeds_64_bits_unharmed(ledger: Ledger) -> None:
    year = 365 * 24 * 3600 * 10**9
    ledger.hold(Key(HOME, "e"), "v", UsageKind.VOLUME, "gp2", 512 * 8, 0)
    ledger.beat(10 * year)
    assert used(ledger) == [Usage(UsageKind.VOLUME, "gp2", 4096 * 10 * year)]


def test_a_period_counts_an_invocation_at_its_arrival(ledger: Ledger) -> None:
    ledger.append([row(at_ns=at, billed_ms=1) for at in (10, 20, 30)])
    assert Usage(SERVERLESS, "4096", 1) in used(ledger, from_ns=20, to_ns=30)
    assert Usage(SERVERLESS, "4096", 2) in used(ledger, to_ns=30)
    assert ledger.counts(from_ns=30) == {DIGITS: Counts(1)}
    assert ledger.counts(from_ns=31) == {}


def test_repeated_statements_see_every_new_row_once(ledger: Ledger) -> None:
    for count in range(1, 5):
        ledger.append([row(billed_ms=1), throttled(endpoint="other")])
        for _again in range(2):
            records, counts = ledger.statement()
            assert [r.usage.quantity for r in records if r.usage.kind is SERVERLESS] == [count]
            assert counts == {
                DIGITS: Counts(count),
                DIGITS._replace(name="other"): Counts(count, throttles=count),
            }


def test_a_statement_after_a_reset_knows_nothing_of_before(ledger: Ledger) -> None:
    ledger.append([row(billed_ms=7)] * 3)
    ledger.usage()
    ledger.reset()
    assert ledger.statement() == ([], {})
    ledger.append([row(billed_ms=1)] * 5)
    assert Usage(SERVERLESS, "4096", 5) in used(ledger)


def test_rows_come_back_as_they_were_given(ledger: Ledger) -> None:
    given = [row(cold_start=True, request_id="é", inference_id="i"), throttled(provisioned=True)]
    ledger.append(given)
    rows, following = ledger.invocations()
    assert rows == given
    assert following is None
    assert [type(value) for value in rows[0]] == [type(value) for value in given[0]]


def test_columns_are_the_fields_of_a_row(ledger: Ledger) -> None:
    with sqlite3.connect(ledger.path) as connection:
        columns = [column[1] for column in connection.execute("PRAGMA table_info (invocations)")]
    connection.close()
    assert columns == ["seq", *InvocationRow._fields]


def test_pages_together_are_all_rows_in_order(ledger: Ledger) -> None:
    given = [row(request_id=f"r-{i}", at_ns=i, endpoint=f"e{i % 2}") for i in range(25)]
    ledger.append(given)
    for endpoint, since in ((None, None), ("e1", None), (None, 7), ("e0", 9), ("none", None)):
        wanted = [
            r
            for r in given
            if endpoint in (None, r.endpoint) and (since is None or r.at_ns >= since)
        ]
        assert list(pages(ledger, endpoint, since, 4)) == wanted


def pages(
    ledger: Ledger, endpoint: str | None, since: int | None, limit: int
) -> Iterator[InvocationRow]:
    cursor: int | None = None
    while True:
        rows, cursor = ledger.invocations(endpoint, since, limit, cursor)
        assert len(rows) <= limit
        yield from rows
        if cursor is None:
            return


def test_a_full_last_page_has_no_next_one(ledger: Ledger) -> None:
    ledger.append([row()] * 4)
    assert ledger.invocations(limit=4)[1] is None


def test_a_bad_row_takes_its_whole_batch_with_it(ledger: Ledger) -> None:
    ledger.append([row()])
    with pytest.raises(sqlite3.IntegrityError):
        ledger.append([row(), row(billed_ms=-1)])
    ledger.append([row()])
    assert ledger.counts() == {DIGITS: Counts(2)}


def test_documents_are_kept_replaced_and_dropped(ledger: Ledger) -> None:
    ledger.put(("model", "b", b'{"n":1}'))
    ledger.put(("model", "a", b'{"n":2}'))
    ledger.put(("endpoint", "a", b"\x00\xff"))
    ledger.put(("model", "b", b'{"n":3}'))
    assert ledger.all("model") == [b'{"n":3}', b'{"n":2}']
    assert ledger.get("endpoint", "a") == b"\x00\xff"
    ledger.delete(("model", "b"))
    ledger.delete(("model", "b"))
    assert ledger.get("model", "b") is None
    assert ledger.all("model") == [b'{"n":2}']


def test_meta_is_remembered(ledger: Ledger) -> None:
    assert ledger.get_meta("now") is None
    ledger.put_meta("now", "1")
    ledger.put_meta("now", "2")
    assert ledger.get_meta("now") == "2"


def test_deleting_an_endpoint_keeps_its_usage(ledger: Ledger) -> None:
    ledger.put(("endpoint", "digits", b"{}"))
    ledger.append([row()])
    ledger.delete(("endpoint", "digits"))
    assert len(ledger.usage()) == 3


def test_reset_empties_everything(ledger: Ledger) -> None:
    ledger.append([row()])
    ledger.hold(Key(HOME, "e"), "v", UsageKind.INSTANCE, "ml.m5.large", 1, 0)
    ledger.put(("model", "m", b"{}"))
    ledger.put_meta("now", "1")
    ledger.reset()
    ledger.beat(100)
    assert (ledger.usage(), ledger.invocations(), ledger.all("model")) == ([], ([], None), [])
    assert ledger.get_meta("now") is None


def test_queries_and_checkpoints_run_while_rows_are_written(ledger: Ledger) -> None:
    """Every query sees whole batches, and never fewer than the one before."""
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        seen = 0
        try:
            while not done.is_set():
                count = ledger.counts().get(DIGITS, Counts()).invocations
                assert count % 32 == 0
                assert count >= seen
                seen = count
                ledger.checkpoint()
        except BaseException as fault:  # noqa: BLE001 - handed to the test's own thread
            faults.append(fault)

    reader = threading.Thread(target=read)
    reader.start()
    for _batch in range(150):
        ledger.append([row()] * 32)
    done.set()
    reader.join()
    assert faults == []
    assert ledger.counts()[DIGITS].invocations == 150 * 32


def test_the_log_is_used_again_after_a_checkpoint(ledger: Ledger) -> None:
    def round_of_writing() -> int:
        for _batch in range(40):
            ledger.append([row()] * 32)
        ledger.checkpoint()
        return ledger.path.with_name("ledger.sqlite-wal").stat().st_size

    first = round_of_writing()
    # Without checkpoints the log of eight rounds would be some eight times that of one.
    assert max(round_of_writing() for _round in range(8)) < 3 * first


def test_an_overgrown_log_is_cut_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.ledger.book.WAL_LIMIT", 1000)
    ledger.append([row()] * 100)
    ledger.checkpoint()
    assert ledger.path.with_name("ledger.sqlite-wal").stat().st_size == 0
    assert ledger.counts() == {DIGITS: Counts(100)}
