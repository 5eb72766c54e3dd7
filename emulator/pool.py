"""The execution environments of one serverless variant, as plain integer columns.

Every function works on lists (the live host) and on int64 arrays (the compiled simulator): they
only index, compare and assign; `resize` alone makes new columns, of lists. The pool knows slots,
states, kinds and deadlines; which request is where and what an environment is called is its
owner's business.

A slot is FREE, WARMING (its environment loads the model, for no request yet), STARTING (the same,
with a request waiting for it), IDLE (warm) or BUSY (with a request). Its environment is ON_DEMAND,
or PROVISIONED: one of the floor, which never expire. More than LIMIT are alive only after a
`resize`, and then all of them are STARTING or BUSY: what is done while there are too many ends
instead of resting, so nothing is admitted before fewer than LIMIT are at work.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import NamedTuple

from emulator.core import NEVER

FREE, WARMING, STARTING, IDLE, BUSY = range(5)
ON_DEMAND, PROVISIONED = range(2)
NONE = -1

# Rows of `marks`, the pool's scalars. The newest idle environment of a kind has the kind's row;
# FLOOR is how many provisioned ones there are to be, and LIMIT how many of all kinds.
NEWEST_ON_DEMAND, NEWEST_PROVISIONED, ALIVE, ALIVE_PROVISIONED, EARLIEST, LIMIT, FLOOR = range(7)

# Which goes first. Above the limit end those that nobody works with; the floor takes in what is
# warm or will be, and if there is no room for a start, what is at work; it lets go what is not up
# yet, and last what the next request would get.
ENDING = (
    (ON_DEMAND, WARMING),
    (PROVISIONED, WARMING),
    (ON_DEMAND, IDLE),
    (PROVISIONED, IDLE),
)
ENTERING = ((ON_DEMAND, IDLE), (ON_DEMAND, WARMING))
REPLACING = ((ON_DEMAND, IDLE), (ON_DEMAND, WARMING), (ON_DEMAND, BUSY), (ON_DEMAND, STARTING))
LEAVING = (
    (PROVISIONED, WARMING),
    (PROVISIONED, STARTING),
    (PROVISIONED, BUSY),
    (PROVISIONED, IDLE),
)


class Pool(NamedTuple):
    """Columns by slot, and `marks` for what there is once."""

    state: MutableSequence[int]
    kind: MutableSequence[int]
    deadline: MutableSequence[int]  # NEVER unless something ends by itself at that instant
    older: MutableSequence[int]  # the idle of a kind as a stack: the next older one, or NONE
    newer: MutableSequence[int]
    marks: MutableSequence[int]


def create(limit: int, floor: int) -> Pool:
    """An empty pool for up to `limit` environments, `floor` of them provisioned."""
    return resize(Pool([], [], [], [], [], [NONE, NONE, 0, 0, NEVER, 0, 0]), limit, floor)


def resize(pool: Pool, limit: int, floor: int) -> Pool:
    """The pool with these bounds from now on, and a slot for each environment within them.

    It is left to the owner to bring the environments there: those that are `superfluous`, those
    that are `misplaced`, and those that the floor still lacks.
    """
    pool.marks[LIMIT], pool.marks[FLOOR] = limit, floor
    more = max(0, limit - len(pool.state))
    return Pool(
        [*pool.state, *[FREE] * more],
        [*pool.kind, *[ON_DEMAND] * more],
        [*pool.deadline, *[NEVER] * more],
        [*pool.older, *[NONE] * more],
        [*pool.newer, *[NONE] * more],
        pool.marks,
    )


def claim(pool: Pool) -> int:
    """The slot that takes the next request, or NONE when as many as may be are taken: throttle.

    In order: the newest idle provisioned environment, the newest idle on-demand one, a new one
    on demand, a vacant place of the floor, one that is warming up anyway. The slot is BUSY if its
    environment is warm and STARTING otherwise. Below LIMIT, which is MaxConcurrency, no request is
    refused.
    """
    slot = pool.marks[NEWEST_PROVISIONED]
    if slot == NONE:
        slot = pool.marks[NEWEST_ON_DEMAND]
    if slot != NONE:
        _unlink(pool, slot)
        pool.state[slot] = BUSY
        return slot
    marks = pool.marks
    if marks[ALIVE] < marks[LIMIT]:
        on_demand = marks[ALIVE] - marks[ALIVE_PROVISIONED]
        full = on_demand >= marks[LIMIT] - marks[FLOOR]
        return begin(pool, STARTING, PROVISIONED if full else ON_DEMAND)
    for other in range(len(pool.state)):
        if pool.state[other] == WARMING:
            pool.state[other] = STARTING
            return other
    return NONE


def begin(pool: Pool, state: int, kind: int) -> int:
    """The slot, the lowest that is FREE, of an environment that starts: WARMING or STARTING."""
    slot = 0
    while pool.state[slot] != FREE:
        slot += 1
    pool.state[slot] = state
    pool.kind[slot] = kind
    pool.marks[ALIVE] += 1
    pool.marks[ALIVE_PROVISIONED] += kind
    return slot


def serve(pool: Pool, slot: int, deadline: int) -> None:
    """The slot's environment works on a request, until `deadline` at the latest."""
    pool.state[slot] = BUSY
    limit(pool, slot, deadline)


def rest(pool: Pool, slot: int, deadline: int) -> None:
    """The slot's environment is warm and idle, the newest of its kind; one on demand expires."""
    kind = pool.kind[slot]
    newest = pool.marks[kind]
    pool.state[slot] = IDLE
    pool.older[slot] = newest
    pool.newer[slot] = NONE
    if newest != NONE:
        pool.newer[newest] = slot
    pool.marks[kind] = slot
    limit(pool, slot, NEVER if kind == PROVISIONED else deadline)


def crowded(pool: Pool) -> bool:
    """Whether more environments are alive than there may be."""
    return pool.marks[ALIVE] > pool.marks[LIMIT]


def superfluous(pool: Pool) -> int:
    """The slot that has to end at once for the limit's sake, or NONE: all within it, or at work."""
    return _first(pool, ENDING) if crowded(pool) else NONE


def misplaced(pool: Pool) -> int:
    """The slot to `convert` for the floor's sake, or NONE. It may take starts to fill it."""
    missing = pool.marks[FLOOR] - pool.marks[ALIVE_PROVISIONED]
    if missing > 0:  # compiled, orders of different lengths are of different types
        return _first(pool, ENTERING)
    return _first(pool, LEAVING) if missing < 0 else NONE


def substitute(pool: Pool) -> int:
    """The slot to `convert` if the floor is not full and there is no room for a start."""
    return _first(pool, REPLACING)


def convert(pool: Pool, slot: int, deadline: int) -> None:
    """The slot's environment is of the other kind from now on. An idle one rests anew."""
    idle = pool.state[slot] == IDLE
    if idle:
        _unlink(pool, slot)
    kind = ON_DEMAND if pool.kind[slot] == PROVISIONED else PROVISIONED
    pool.marks[ALIVE_PROVISIONED] += kind - pool.kind[slot]
    pool.kind[slot] = kind
    if idle:
        rest(pool, slot, deadline)


def vacate(pool: Pool, slot: int) -> None:
    """The slot's environment is gone, whatever it was doing."""
    if pool.state[slot] == FREE:
        return
    if pool.state[slot] == IDLE:
        _unlink(pool, slot)
    pool.state[slot] = FREE
    pool.deadline[slot] = NEVER
    pool.marks[ALIVE] -= 1
    pool.marks[ALIVE_PROVISIONED] -= pool.kind[slot]


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
    else:
        pool.marks[pool.kind[slot]] = older
    pool.deadline[slot] = NEVER


def _first(pool: Pool, order: Sequence[tuple[int, int]]) -> int:
    for kind, state in order:
        for slot in range(len(pool.state)):
            found = pool.state[slot] == state and pool.kind[slot] == kind
            if found and (state != IDLE or pool.older[slot] == NONE):  # the oldest of them
                return slot
    return NONE
