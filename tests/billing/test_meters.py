"""Meters: what is held is neither lost nor invented."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.address import Home, Key
from emulator.billing import Usage, UsageKind
from emulator.ledger import Ledger

E = Key(Home("1", "r"), "e")
INSTANCE, PROVISIONED = UsageKind.INSTANCE, UsageKind.PROVISIONED_USAGE


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def hold(ledger: Ledger, units: int, now: int, sku: str = "ml.m5.large") -> None:
    ledger.hold(E, "v", INSTANCE, sku, units, now)


def held(ledger: Ledger, from_ns: int | None = None, to_ns: int | None = None) -> int:
    return sum(record.usage.quantity for record in ledger.usage(from_ns, to_ns))


def test_usage_is_units_times_time(ledger: Ledger) -> None:
    hold(ledger, 2, 100)
    hold(ledger, 5, 110)
    hold(ledger, 0, 200)
    ledger.beat(1_000)
    assert ledger.usage()[0].usage == Usage(INSTANCE, "ml.m5.large", 2 * 10 + 5 * 90)


def test_a_running_meter_counts_up_to_the_last_beat(ledger: Ledger) -> None:
    hold(ledger, 3, 100)
    assert held(ledger) == 0
    ledger.beat(150)
    assert held(ledger) == 150


def test_provisioned_concurrency_belongs_to_the_serverless_persona(ledger: Ledger) -> None:
    ledger.hold(E, "v", PROVISIONED, "2048", 4, 0)
    hold(ledger, 1, 0)
    ledger.beat(10)
    assert [(record.persona, record.usage) for record in ledger.usage()] == [
        ("realtime", Usage(INSTANCE, "ml.m5.large", 10)),
        ("serverless", Usage(PROVISIONED, "2048", 40)),
    ]


def test_equal_names_in_two_regions_are_two_meters(ledger: Ledger) -> None:
    for region in ("eu-west-1", "eu-west-3"):
        ledger.hold(Key(Home("1", region), "e"), "v", INSTANCE, "ml.m5.large", 1, 0)
    ledger.beat(10)
    assert [record.region for record in ledger.usage()] == ["eu-west-1", "eu-west-3"]


def test_equal_names_in_two_accounts_are_two_meters(ledger: Ledger) -> None:
    for account, units in (("1", 1), ("2", 5)):
        ledger.hold(Key(Home(account, "r"), "e"), "v", INSTANCE, "ml.m5.large", units, 0)
    ledger.beat(10)
    assert [(one.account, one.usage.quantity) for one in ledger.usage()] == [("1", 10), ("2", 50)]


def test_time_before_what_is_counted_changes_nothing(ledger: Ledger) -> None:
    hold(ledger, 1, 100)
    ledger.beat(150)
    ledger.beat(120)
    hold(ledger, 2, 50)  # counts from 150, as the first 50 ns are counted already
    ledger.beat(160)
    assert held(ledger) == 50 + 2 * 10


def test_holding_less_than_nothing_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match=r"e/v cannot hold -1 of instance 'ml\.m5\.large'"):
        hold(ledger, -1, 0)


def test_a_period_takes_its_part_of_a_meter(ledger: Ledger) -> None:
    hold(ledger, 2, 100)
    ledger.beat(200)
    assert held(ledger, 0, 100) == 0
    assert held(ledger, 120, 130) == 20
    assert held(ledger, 190, 999) == 20
    assert held(ledger, 200, 300) == 0


def test_time_that_the_server_was_down_is_not_billed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first = Ledger.open(path)
    hold(first, 2, 100)
    first.beat(150)
    first.close()
    second = Ledger.open(path)
    second.beat(10_000)
    assert held(second) == 100
    hold(second, 2, 20_000)
    second.beat(20_010)
    assert held(second) == 120
    second.close()


def test_beats_and_unchanged_holds_do_not_grow_the_ledger(ledger: Ledger) -> None:
    hold(ledger, 1, 0)
    ledger.checkpoint()
    before = ledger.path.stat().st_size
    for now in range(2_000):
        ledger.beat(now)
        hold(ledger, 1, now)
    ledger.checkpoint()
    assert ledger.path.stat().st_size == before
    assert held(ledger) == 1_999


# What happens after a pause: a hold of some units of one of two skus, a beat, or a restart.
holds = st.tuples(st.sampled_from(["a", "b"]), st.integers(min_value=0, max_value=200))
marks = st.tuples(st.sampled_from(["beat", "restart"]), st.just(0))
steps = st.lists(
    st.tuples(st.integers(min_value=0, max_value=10**12), st.one_of(holds, marks)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(min_value=0, max_value=10**13))
def test_what_is_held_is_neither_lost_nor_invented(
    history: list[tuple[int, tuple[str, int]]], cut: int
) -> None:
    holding: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    now = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = Ledger.open(path)
        for pause, (event, units) in history:
            now += pause
            for sku, count in holding.items():
                expected[sku] += count * pause
            if event == "beat":
                ledger.beat(now)
            elif event == "restart":
                ledger.beat(now)
                ledger.close()
                ledger = Ledger.open(path)
                holding.clear()
            else:
                holding[event] = units
                hold(ledger, units, now, event)
        ledger.beat(now)
        found = {record.usage.sku: record.usage.quantity for record in ledger.usage()}
        parts = held(ledger, None, cut) + held(ledger, cut, None)
        ledger.close()
    assert found == {sku: quantity for sku, quantity in expected.items() if quantity}
    assert parts == sum(expected.values())
