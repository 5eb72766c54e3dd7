"""What a ledger hands to other programs, and takes from other ledgers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.billing import UsageKind
from emulator.errors import SetupError
from emulator.ledger import Ledger, exchange
from emulator.ledger.check import check
from emulator.ledger.exchange import export, take_in
from emulator.ledger.periods import END
from emulator.ledger.schema import HOUR
from emulator.ledger.tables import FORMATS
from tests.billing.rows import DIGITS, row, throttled

ROWS = [
    row(request_id="0b4e6d2a-9c1f-4a54-8f7b-3d2a1c0b9e8f", at_ns=5, inference_id='a,"b"\nc'),
    row(at_ns=HOUR, cold_start=True, load_ns=9, environment="é"),
    throttled(at_ns=2 * HOUR),
    row(at_ns=3 * HOUR, endpoint="other", provisioned=True),
]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    opened.append(ROWS)
    opened.hold(DIGITS, "v", UsageKind.INSTANCE, "ml.m5.large", 2, 0)
    opened.beat(3 * HOUR)
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "other.sqlite")
    opened.append([row(request_id="mine")])
    yield opened
    opened.close()


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_is_added_to_another_ledger(
    ledger: Ledger, other: Ledger, form: str, tmp_path: Path
) -> None:
    moved = export(ledger.path, tmp_path / "out", form, 0, END)
    assert (moved.invocations, moved.meters) == (4, 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"invocations.{form}", f"meters.{form}",
    ]  # fmt: skip
    took = take_in(other, tmp_path / "out")
    assert (took.invocations, took.meters) == (4, 1)
    assert other.invocations()[0] == [row(request_id="mine"), *ROWS]
    added = {(one.key, one.usage.kind, one.usage.sku): one.usage.quantity for one in other.usage()}
    for one in ledger.usage():
        place = (one.key, one.usage.kind, one.usage.sku)
        own = {UsageKind.SERVERLESS_DURATION: 45, UsageKind.DATA_IN: 512, UsageKind.DATA_OUT: 300}
        mine = own.get(one.usage.kind, 0) if one.endpoint == "digits" else 0
        assert added[place] == one.usage.quantity + mine
    assert check(other.path).faults == ()


@pytest.mark.parametrize("form", FORMATS)
def test_a_period_is_exported_with_its_part_of_what_was_held(
    ledger: Ledger, form: str, tmp_path: Path
) -> None:
    fresh = Ledger.open(tmp_path / "fresh.sqlite")
    for number, (start, end) in enumerate(((0, HOUR), (HOUR, 2 * HOUR + 1), (2 * HOUR + 1, END))):
        export(ledger.path, tmp_path / str(number), form, start, end)
        take_in(fresh, tmp_path / str(number))
    assert fresh.invocations()[0] == ROWS
    assert fresh.usage() == ledger.usage()
    fresh.close()


def test_the_same_file_is_taken_once_unless_asked_for(
    ledger: Ledger, other: Ledger, tmp_path: Path
) -> None:
    export(ledger.path, tmp_path / "out", "csv", 0, END)
    take_in(other, tmp_path / "out")
    with pytest.raises(SetupError, match="is in the ledger already; --again adds it once more"):
        take_in(other, tmp_path / "out")
    assert take_in(other, tmp_path / "out", again=True).invocations == 4
    assert other.counts()[DIGITS].invocations == 1 + 2 * 3


@pytest.mark.parametrize(
    ("form", "old", "new", "said"),
    [
        ("csv", ",45,45,", ",-45,45,", "in row 1 billed_ms is '-45', which is not a whole number"),
        (
            "csv",
            "false,false,4096",
            "false,maybe,4096",
            "provisioned is 'maybe', which is not true",
        ),
        ("csv", "billed_ms,", "billed,", "in row 1 the field billed_ms is missing"),
        ("jsonl", '"status":200', '"status":2.5', "status is '2.5', which is not a whole number"),
        ("jsonl", '"status":200', '"status":null', "the field status is missing"),
        ("jsonl", '{"request_id"', '["request_id"', "cannot be read behind row 0"),
    ],
)
def test_a_file_that_is_not_right_adds_nothing(
    ledger: Ledger, other: Ledger, tmp_path: Path, form: str, old: str, new: str, said: str
) -> None:
    export(ledger.path, tmp_path / "out", form, 0, END)
    path = tmp_path / "out" / f"invocations.{form}"
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))
    with pytest.raises(SetupError, match=said) as caught:
        take_in(other, tmp_path / "out")
    assert path.name in str(caught.value)
    assert other.invocations()[0] == [row(request_id="mine")]
    assert [one.usage.kind for one in other.usage()].count(UsageKind.INSTANCE) == 0
    other.append([row(request_id="next")])
    assert other.counts()[DIGITS].invocations == 2


def test_a_cut_off_file_adds_nothing(ledger: Ledger, other: Ledger, tmp_path: Path) -> None:
    for form in FORMATS:
        out = tmp_path / form
        export(ledger.path, out, form, 0, END)
        path = out / f"invocations.{form}"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(SetupError, match=path.name):
            take_in(other, out)
    assert other.counts()[DIGITS].invocations == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"instance"', '"instances"', "kind is 'instances', which is none of serverless-duration"),
        ('"units":2', '"units":0', "holds 0 from 0 to"),
        ('"started_ns":0', f'"started_ns":{9 * HOUR}', "and end after its start"),
    ],
)
def test_a_meter_that_is_none_is_refused(
    ledger: Ledger, other: Ledger, tmp_path: Path, old: str, new: str, said: str
) -> None:
    export(ledger.path, tmp_path / "out", "jsonl", 0, END)
    path = tmp_path / "out" / "meters.jsonl"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SetupError, match=said):
        take_in(other, tmp_path / "out")
    assert other.counts()[DIGITS].invocations == 1


def test_what_is_not_there_is_named(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"There is neither invocations nor meters in .*none"):
        take_in(ledger, tmp_path / "none")
    with pytest.raises(SetupError, match="There is no ledger"):
        export(tmp_path / "none", tmp_path, "csv", 0, END)
    for form in ("csv", "jsonl"):
        export(ledger.path, tmp_path / "out", form, 0, END)
    with pytest.raises(SetupError, match=r"invocations\.jsonl: leave one of them"):
        take_in(ledger, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written to: File exists"):
        export(ledger.path, tmp_path / "file", "csv", 0, END)


def test_two_exports_at_once_while_rows_are_written(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_PAGE", 7)
    ledger.append([row(at_ns=4 * HOUR)] * 500)
    moved = []

    def work() -> None:
        moved.append(export(ledger.path, tmp_path / "out", "csv", 0, END))

    both = [threading.Thread(target=work) for _ in range(2)]
    for one in both:
        one.start()
    while any(one.is_alive() for one in both):
        ledger.append([row(at_ns=5 * HOUR)])
    for one in both:
        one.join()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "invocations.csv", "meters.csv",
    ]  # fmt: skip
    fresh = Ledger.open(tmp_path / "fresh.sqlite")
    took = take_in(fresh, tmp_path / "out")
    fresh.close()
    assert took.invocations in [one.invocations for one in moved]
    assert all(one.invocations >= 504 for one in moved)
