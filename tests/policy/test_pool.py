"""The pool's columns: the same results on lists and on int64 arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emulator import pool
from emulator.core import NEVER, SECOND


def lists(one: pool.Pool) -> pool.Pool:
    return one


def arrays(one: pool.Pool) -> pool.Pool:
    """The same columns as int64, which a resize has to be followed by."""
    return pool.Pool(*(np.array(column, dtype=np.int64) for column in one))  # type: ignore[arg-type]


def fit(one: pool.Pool, now: int) -> list[int]:
    """What its owner does after a resize, without any starts."""
    said = []
    while (slot := pool.superfluous(one)) != pool.NONE:
        pool.vacate(one, slot)
        said.append(int(slot))
    while (slot := pool.misplaced(one)) != pool.NONE:
        pool.convert(one, slot, now + 20)
        said.append(int(slot))
    if pool.crowded(one) and one.marks[pool.ALIVE_PROVISIONED] < one.marks[pool.FLOOR]:
        said.append(int(pool.substitute(one)))
        pool.convert(one, said[-1], now + 20)
    return said


def play(
    one: pool.Pool, moves: list[tuple[int, int]], form: Callable[[pool.Pool], pool.Pool]
) -> list[int]:
    """A history of claims, rests, vacations, starts, expiries and resizes, and what each said."""
    said: list[int] = []
    for now, (kind, slot) in enumerate(moves):
        size, slot = slot, slot % len(one.state)
        if kind == 0:
            claimed = pool.claim(one)
            if claimed != pool.NONE:
                pool.serve(one, claimed, now + 50)
            said.append(int(claimed))
        elif kind == 1 and one.state[slot] == pool.BUSY and not pool.crowded(one):
            pool.rest(one, slot, now + 20)
        elif kind == 2:
            pool.vacate(one, slot)
        elif kind == 3 and one.marks[pool.ALIVE] < one.marks[pool.LIMIT]:
            said.append(int(pool.begin(one, pool.WARMING, pool.ON_DEMAND)))
        elif kind == 4:
            one = form(pool.resize(one, size + 1, size // 2))
            said.extend(fit(one, now))
        else:
            late = pool.due(one, now)
            said.append(int(late))
            if late != pool.NONE:
                pool.vacate(one, late)
        said.extend(int(mark) for mark in one.marks)
        check(one)
    return said


def check(one: pool.Pool) -> None:
    alive = [kind for kind, state in zip(one.kind, one.state, strict=True) if state != pool.FREE]
    assert one.marks[pool.ALIVE] == len(alive)
    assert one.marks[pool.ALIVE_PROVISIONED] == sum(alive) <= one.marks[pool.FLOOR]
    assert not pool.crowded(one) or not {pool.IDLE, pool.WARMING} & set(one.state)
    for newest, kind in (
        (pool.NEWEST_ON_DEMAND, pool.ON_DEMAND),
        (pool.NEWEST_PROVISIONED, pool.PROVISIONED),
    ):
        slot, stack = one.marks[newest], set()
        while slot != pool.NONE:
            stack.add(int(slot))
            slot = one.older[slot]
        assert stack == {
            slot
            for slot, state in enumerate(one.state)
            if state == pool.IDLE and one.kind[slot] == kind
        }


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=80),
    st.integers(1, 8),
    st.integers(0, 3),
)
def test_lists_and_arrays_agree(moves: list[tuple[int, int]], limit: int, floor: int) -> None:
    floor = min(limit, floor)
    said = play(pool.create(limit, floor), moves, lists)
    assert said == play(arrays(pool.create(limit, floor)), moves, arrays)


def test_a_resize_makes_room_and_never_less() -> None:
    one = pool.resize(pool.create(2, 0), 5, 3)
    assert {len(column) for column in one[:5]} == {5}
    assert len(pool.resize(one, 1, 1).state) == 5
    assert (one.marks[pool.LIMIT], one.marks[pool.FLOOR]) == (1, 1)


def test_due_names_the_earliest_deadline_first() -> None:
    one = pool.create(3, 0)
    for slot, deadline in enumerate((30, 10, 20)):
        assert pool.begin(one, pool.STARTING, pool.ON_DEMAND) == slot
        pool.serve(one, slot, deadline)
    found = []
    while (slot := pool.due(one, 25)) != pool.NONE:
        found.append(slot)
        pool.vacate(one, slot)
    assert found == [1, 2]
    assert one.marks[pool.EARLIEST] == 30


@given(
    st.integers(0, 900),
    st.integers(0, 900),
    st.sampled_from([1, SECOND]),
    st.integers(0, 2**31 - 2),
    st.integers(1, 10**9),
)
def test_keep_warm_stays_within_its_bounds(
    low: int, high: int, unit: int, seed: int, serial: int
) -> None:
    low, high = min(low, high) * unit, max(low, high) * unit
    assert low <= pool.keep_warm_ns(low, high, seed, serial) <= high
    for length in range(3):  # where a step too far is likely
        assert low <= pool.keep_warm_ns(low, low + length, seed, serial) <= low + length


def test_never_fits_an_int64() -> None:
    assert np.int64(NEVER) == NEVER
