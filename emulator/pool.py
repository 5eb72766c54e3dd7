"""The execution environments of one serverless variant, as plain integer columns.

Every function works on lists (the live host) and on int64 arrays (the compiled simulator): they
only index, compare and assign. The pool knows slots, states and deadlines; which request is where
and what an environment is called is its owner's business.

A slot is FREE, WARMING (its environment loads the model, for no request yet), STARTING (the same,
with a request waiting for it), IDLE (warm) or BUSY (with a request). The slots below `provisioned`
are the provisioned floor: they never expire.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import NamedTuple

from emulator.core import NEVER

FREE, WARMING, STARTING, IDLE, BUSY = range(5)
NONE = -1

# Rows of `marks`, the pool's scalars.
NEWEST_PROVISIONED, NEWEST_ON_DEMAND, ALIVE, EARLIEST, PROVISIONED = range(5)


class Pool(NamedTuple):
    """Columns by slot, and `marks` for what there is once."""

    state: MutableSequence[int]
    deadline: MutableSequence[int]  # NEVER unless something ends by itself at that instant
    older: MutableSequence[int]  # the idle environments as a stack: the next older one, or NONE
    newer: MutableSequence[int]
    marks: MutableSequence[int]


def create(slots: int, provisioned: int) -> Pool:
    """An empty pool of `slots` environments, the first `provisioned` of them the floor."""
    marks = [NONE, NONE, 0, NEVER, provisioned]
    return Pool([FREE] * slots, [NEVER] * slots, [NONE] * slots, [NONE] * slots, marks)


def claim(pool: Pool) -> int:
    """The slot that takes the next request, or NONE when all are taken: throttle.

    In order: the newest idle provisioned environment, the newest idle on-demand one, a new one
    on demand, a vacant provisioned slot, one that is warming up anyway. The slot is BUSY if its
    environment is warm and STARTING otherwise. Requests never exceed the number of slots, which
    is MaxConcurrency, and below it none is refused.
    """
    slot = pool.marks[NEWEST_PROVISIONED]
    if slot == NONE:
        slot = pool.marks[NEWEST_ON_DEMAND]
    if slot != NONE:
        _unlink(pool, slot)
        pool.state[slot] = BUSY
        return slot
    slot = vacant(pool, pool.marks[PROVISIONED], len(pool.state))
    if slot == NONE:
        slot = vacant(pool, 0, pool.marks[PROVISIONED])
    if slot != NONE:
        begin(pool, slot, STARTING)
        return slot
    for other in range(len(pool.state)):
        if pool.state[other] == WARMING:
            pool.state[other] = STARTING
            return other
    return NONE


def vacant(pool: Pool, first: int, last: int) -> int:
    """The lowest FREE slot of [first, last), or NONE."""
    for slot in range(first, last):
        if pool.state[slot] == FREE:
            return slot
    return NONE


def begin(pool: Pool, slot: int, state: int) -> None:
    """The slot's environment starts, WARMING or STARTING."""
    pool.state[slot] = state
    pool.marks[ALIVE] += 1


def serve(pool: Pool, slot: int, deadline: int) -> None:
    """The slot's environment works on a request, until `deadline` at the latest."""
    pool.state[slot] = BUSY
    limit(pool, slot, deadline)


def rest(pool: Pool, slot: int, deadline: int) -> None:
    """The slot's environment is warm and idle, the newest of its kind."""
    kind = NEWEST_PROVISIONED if slot < pool.marks[PROVISIONED] else NEWEST_ON_DEMAND
    newest = pool.marks[kind]
    pool.state[slot] = IDLE
    pool.older[slot] = newest
    pool.newer[slot] = NONE
    if newest != NONE:
        pool.newer[newest] = slot
    pool.marks[kind] = slot
    limit(pool, slot, NEVER if slot < pool.marks[PROVISIONED] else deadline)


def vacate(pool: Pool, slot: int) -> None:
    """The slot's environment is gone, whatever it was doing."""
    if pool.state[slot] == FREE:
        return
    if pool.state[slot] == IDLE:
        _unlink(pool, slot)
    pool.state[slot] = FREE
    pool.deadline[slot] = NEVER
    pool.marks[ALIVE] -= 1


def limit(pool: Pool, slot: int, deadline: int) -> None:
    """What the slot does now ends at `deadline` unless something happens before."""
    pool.deadline[slot] = deadline
    if deadline < pool.marks[EARLIEST]:
        pool.marks[EARLIEST] = deadline


def due(pool: Pool, now: int) -> int:
    """The slot whose deadline is the earliest at or before `now`, or NONE.

    EARLIEST is a lower bound: it is made exact only when it has been reached, so the scan over
    all slots runs about once per deadline and not on every event.
    """
    if pool.marks[EARLIEST] > now:
        return NONE
    earliest, slot = NEVER, NONE
    for other in range(len(pool.state)):
        if pool.deadline[other] < earliest:
            earliest, slot = pool.deadline[other], other
    pool.marks[EARLIEST] = earliest
    return slot if earliest <= now else NONE


def keep_warm_ns(shortest: int, longest: int, seed: int, serial: int) -> int:
    """How long environment number `serial` stays warm, between the two bounds inclusive.

    The draw is the Lehmer generator (a = 48271, m = 2^31 - 1) run three times from seed and
    serial: the same integers in Python and in compiled code, with no state to carry along.
    """
    if shortest >= longest:
        return shortest
    draw = (seed % 2147483646 + 1) * 69621 % 2147483647
    draw = (draw + serial) % 2147483646 + 1
    for _ in range(3):
        draw = draw * 48271 % 2147483647
    step = (longest - shortest) // 2147483646
    return shortest + draw * step + draw % ((longest - shortest) % 2147483646 + 1)


def _unlink(pool: Pool, slot: int) -> None:
    older, newer = pool.older[slot], pool.newer[slot]
    if older != NONE:
        pool.newer[older] = newer
    if newer != NONE:
        pool.older[newer] = older
    elif slot < pool.marks[PROVISIONED]:
        pool.marks[NEWEST_PROVISIONED] = older
    else:
        pool.marks[NEWEST_ON_DEMAND] = older
    pool.deadline[slot] = NEVER
