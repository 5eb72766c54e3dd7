"""The pool's columns: the same results on lists and on int64 arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emulator import pool
from emulator.core import NEVER, SECOND


def arrays(slots: int, provisioned: int) -> pool.Pool:
    columns = pool.create(slots, provisioned)
    return pool.Pool(*(np.array(column, dtype=np.int64) for column in columns))  # type: ignore[arg-type]


def play(one: pool.Pool, moves: list[tuple[int, int]]) -> list[int]:
    """A history of claims, rests, vacations and expiries, and what each said."""
    said: list[int] = []
    for now, (kind, slot) in enumerate(moves):
        slot %= len(one.state)
        if kind == 0:
            claimed = pool.claim(one)
            if claimed != pool.NONE:
                pool.serve(one, claimed, now + 50)
            said.append(int(claimed))
        elif kind == 1 and one.state[slot] == pool.BUSY:
            pool.rest(one, slot, now + 20)
        elif kind == 2:
            pool.vacate(one, slot)
        else:
            late = pool.due(one, now)
            said.append(int(late))
            if late != pool.NONE:
                pool.vacate(one, late)
        said.append(int(one.marks[pool.ALIVE]))
        assert one.marks[pool.ALIVE] == sum(state != pool.FREE for state in one.state)
    return said


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=80),
    st.integers(1, 8),
    st.integers(0, 3),
)
def test_lists_and_arrays_agree(moves: list[tuple[int, int]], slots: int, provisioned: int) -> None:
    provisioned = min(slots, provisioned)
    assert play(pool.create(slots, provisioned), moves) == play(arrays(slots, provisioned), moves)


def test_due_names_the_earliest_deadline_first() -> None:
    one = pool.create(3, 0)
    for slot, deadline in enumerate((30, 10, 20)):
        pool.begin(one, slot, pool.STARTING)
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
