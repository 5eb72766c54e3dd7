"""The serverless persona: scale to zero, cold start, throttle, keep-warm, provisioned concurrency.

Decides only: no clock, no I/O, no payloads. One request per environment; the newest idle
environment first; a request that needs a new environment waits for that one's own start; above
MaxConcurrency a request is refused at once and never queued. Both kinds of concurrency may change
in service, and no request suffers from it (docs/fidelity.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emulator import pool
from emulator.core import (
    SECOND,
    Action,
    Assign,
    Capacity,
    Cause,
    Hold,
    Provision,
    Reject,
    Resource,
    Start,
    Stop,
)

NOBODY = -1  # no request
MAX_LOSSES = 3  # times in a row that the floor is restored without an answer in between


@dataclass(frozen=True, slots=True)
class ServerlessRules:
    """What one serverless variant is held to. Durations in nanoseconds.

    An environment stays warm between `keep_warm_ns` and `keep_warm_longest_ns` after its last
    answer, drawn per environment from `seed` where the two differ.
    """

    max_concurrency: int
    provisioned_concurrency: int = 0
    keep_warm_ns: int = 600 * SECOND
    keep_warm_longest_ns: int = 0
    seed: int = 0
    start_limit_ns: int = 180 * SECOND
    answer_limit_ns: int = 60 * SECOND


class ServerlessPolicy:
    """The decisions of one serverless variant; see `core.Policy` for what each method means."""

    def __init__(self, rules: ServerlessRules) -> None:
        self.rules = rules
        self._pool = pool.create(rules.max_concurrency, rules.provisioned_concurrency)
        self._serial = [0] * rules.max_concurrency  # which environment is in the slot
        self._request = [NOBODY] * rules.max_concurrency
        self._slots: dict[int, int] = {}  # environment -> slot, of those alive
        self._started = 0
        self._losses = 0
        self._blamed = 0  # the newest environment there was when the last loss was counted
        self._closed = False

    def launch(self, now: int, warm: bool) -> list[Action]:
        """Start the provisioned floor; for a creation at least one environment, its test start."""
        actions: list[Action] = []
        if self.rules.provisioned_concurrency:
            actions.append(Hold(Resource.PROVISIONED, self.rules.provisioned_concurrency))
        self._restore_floor(now, actions)
        if warm and not self._slots:
            self._begin(now, pool.ON_DEMAND, actions)
        return actions

    def arrive(self, now: int, *requests: int) -> list[Action]:
        actions = self.tick(now)
        for request in requests:
            self._take(now, request, actions)
        return actions

    def ready(self, now: int, environment: int, together: int = 1) -> list[Action]:
        actions = self.tick(now)
        slot = self._slots.get(environment, pool.NONE)
        if slot == pool.NONE:
            return actions
        if self._pool.state[slot] == pool.STARTING:
            self._assign(now, slot, actions, cold=True)
        elif self._pool.state[slot] == pool.WARMING:
            self._rest(now, slot)
        return actions

    def done(self, now: int, environment: int) -> list[Action]:
        actions = self.tick(now)
        slot = self._slots.get(environment, pool.NONE)
        if slot != pool.NONE and self._pool.state[slot] == pool.BUSY:
            self._request[slot] = NOBODY
            self._losses = 0
            if pool.crowded(self._pool):
                self._stop(slot, Cause.SURPLUS, actions)
            else:
                self._rest(now, slot)
            self._restore_floor(now, actions)
        return actions

    def streams(self, now: int, environment: int) -> list[Action]:
        """A stream has the same time as any other answer."""
        return self.tick(now)

    def broken(self, now: int, environment: int, cause: Cause) -> list[Action]:
        actions = self.tick(now)
        slot = self._slots.get(environment, pool.NONE)
        if slot != pool.NONE:
            served = self._pool.state[slot] in (pool.IDLE, pool.BUSY)
            self._lose(slot, cause, actions)
            if environment > self._blamed:  # those that are lost together are one loss
                self._losses += 1
                self._blamed = self._started
            # What fails while starting, or again and again, is left to the next request.
            if served and self._losses <= MAX_LOSSES:
                self._restore_floor(now, actions)
        return actions

    def tick(self, now: int) -> list[Action]:
        actions: list[Action] = []
        while (slot := pool.due(self._pool, now)) != pool.NONE:
            state = self._pool.state[slot]
            self._stop(slot, _OVERDUE[state], actions)
            if state == pool.BUSY:
                self._restore_floor(now, actions)
        return actions

    def evict(self, now: int) -> list[Action]:
        actions = self.tick(now)
        for _, slot in sorted(self._slots.items()):
            if self._pool.state[slot] == pool.IDLE:
                self._stop(slot, Cause.EVICTED, actions)
        self._restore_floor(now, actions)
        return actions

    def resize(self, now: int, capacity: Capacity) -> list[Action]:
        """The floor is filled from what is warm and idle, or about to be, before anything starts;
        who leaves it stays warm as long as after an answer. Above the limit, what is idle ends at
        once, and what is at work in place of its next rest.
        """
        actions = self.tick(now)
        if self._closed:
            return actions
        self._set_bounds(capacity, actions)
        while (slot := pool.superfluous(self._pool)) != pool.NONE:
            self._stop(slot, Cause.SURPLUS, actions)
        while (slot := pool.misplaced(self._pool)) != pool.NONE:
            self._convert(now, slot, actions)
        self._restore_floor(now, actions)
        return actions

    def close(self, now: int) -> list[Action]:
        actions = self.tick(now)
        self._closed = True
        for _, slot in sorted(self._slots.items()):
            self._stop(slot, Cause.CLOSED, actions)
        self._set_bounds(Capacity(0), actions)
        return actions

    def next_deadline(self) -> int:
        return self._pool.marks[pool.EARLIEST]

    def _take(self, now: int, request: int, actions: list[Action]) -> None:
        if self._closed:
            actions.append(Reject(request, Cause.CLOSED))
            return
        slot = pool.claim(self._pool)
        if slot == pool.NONE:
            actions.append(Reject(request, Cause.THROTTLED))
            return
        self._request[slot] = request
        if self._pool.state[slot] == pool.BUSY:
            self._assign(now, slot, actions, cold=False)
        elif self._serial[slot] not in self._slots:
            self._start(now, slot, actions)

    def _set_bounds(self, capacity: Capacity, actions: list[Action]) -> None:
        if capacity.provisioned != self.rules.provisioned_concurrency:
            actions.append(Hold(Resource.PROVISIONED, capacity.provisioned))
        self.rules = replace(
            self.rules,
            max_concurrency=capacity.most,
            provisioned_concurrency=capacity.provisioned,
        )
        self._pool = pool.resize(self._pool, capacity.most, capacity.provisioned)
        more = len(self._pool.state) - len(self._serial)
        self._serial += [0] * more
        self._request += [NOBODY] * more

    def _begin(self, now: int, kind: int, actions: list[Action]) -> None:
        self._start(now, pool.begin(self._pool, pool.WARMING, kind), actions)

    def _start(self, now: int, slot: int, actions: list[Action]) -> None:
        self._started += 1
        self._serial[slot] = self._started
        self._slots[self._started] = slot
        pool.limit(self._pool, slot, now + self.rules.start_limit_ns)
        actions.append(Start(self._started, self._provisioned(slot)))

    def _assign(self, now: int, slot: int, actions: list[Action], cold: bool) -> None:
        pool.serve(self._pool, slot, now + self.rules.answer_limit_ns)
        actions.append(
            Assign(self._request[slot], self._serial[slot], cold, self._provisioned(slot))
        )

    def _rest(self, now: int, slot: int) -> None:
        pool.rest(self._pool, slot, now + self._keep_warm_ns(slot))

    def _keep_warm_ns(self, slot: int) -> int:
        rules = self.rules
        return pool.keep_warm_ns(
            rules.keep_warm_ns, rules.keep_warm_longest_ns, rules.seed, self._serial[slot]
        )

    def _convert(self, now: int, slot: int, actions: list[Action]) -> None:
        pool.convert(self._pool, slot, now + self._keep_warm_ns(slot))
        actions.append(Provision(self._serial[slot], self._provisioned(slot)))

    def _stop(self, slot: int, cause: Cause, actions: list[Action]) -> None:
        actions.append(Stop(self._serial[slot], cause))
        self._lose(slot, cause, actions)

    def _lose(self, slot: int, cause: Cause, actions: list[Action]) -> None:
        """The slot's environment is gone; whoever waited for its answer is told why."""
        pool.vacate(self._pool, slot)
        del self._slots[self._serial[slot]]
        self._serial[slot] = 0
        request, self._request[slot] = self._request[slot], NOBODY
        if request != NOBODY:
            actions.append(Reject(request, cause))

    def _restore_floor(self, now: int, actions: list[Action]) -> None:
        """Start what the floor lacks. Where the limit leaves no room, others take the places."""
        marks = self._pool.marks
        while marks[pool.ALIVE_PROVISIONED] < marks[pool.FLOOR]:
            if marks[pool.ALIVE] < marks[pool.LIMIT]:
                self._begin(now, pool.PROVISIONED, actions)
            else:
                self._convert(now, pool.substitute(self._pool), actions)

    def _provisioned(self, slot: int) -> bool:
        return self._pool.kind[slot] == pool.PROVISIONED


_OVERDUE = {
    pool.WARMING: Cause.START_TIMED_OUT,
    pool.STARTING: Cause.START_TIMED_OUT,
    pool.IDLE: Cause.EXPIRED,
    pool.BUSY: Cause.TIMED_OUT,
}
