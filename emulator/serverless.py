"""The serverless persona: scale to zero, cold start, throttle, keep-warm, provisioned concurrency.

Decides only: no clock, no I/O, no payloads. One request per environment; the newest idle
environment first; a request that needs a new environment waits for that one's own start; above
MaxConcurrency a request is refused at once and never queued (docs/fidelity.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from emulator import pool
from emulator.core import (
    SECOND,
    Action,
    Assign,
    Cause,
    Hold,
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
            self._begin(now, 0, pool.WARMING, actions)
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
            cause = _OVERDUE[state]
            actions.append(Stop(self._serial[slot], cause))
            self._lose(slot, cause, actions)
            if state == pool.BUSY:
                self._restore_floor(now, actions)
        return actions

    def evict(self, now: int) -> list[Action]:
        actions = self.tick(now)
        for environment, slot in sorted(self._slots.items()):
            if self._pool.state[slot] == pool.IDLE:
                actions.append(Stop(environment, Cause.EVICTED))
                self._lose(slot, Cause.EVICTED, actions)
        self._restore_floor(now, actions)
        return actions

    def close(self, now: int) -> list[Action]:
        actions = self.tick(now)
        self._closed = True
        for environment, slot in sorted(self._slots.items()):
            actions.append(Stop(environment, Cause.CLOSED))
            self._lose(slot, Cause.CLOSED, actions)
        if self.rules.provisioned_concurrency:
            actions.append(Hold(Resource.PROVISIONED, 0))
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

    def _begin(self, now: int, slot: int, state: int, actions: list[Action]) -> None:
        pool.begin(self._pool, slot, state)
        self._start(now, slot, actions)

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
        rules = self.rules
        warm = pool.keep_warm_ns(
            rules.keep_warm_ns, rules.keep_warm_longest_ns, rules.seed, self._serial[slot]
        )
        pool.rest(self._pool, slot, now + warm)

    def _lose(self, slot: int, cause: Cause, actions: list[Action]) -> None:
        """The slot's environment is gone; whoever waited for its answer is told why."""
        pool.vacate(self._pool, slot)
        del self._slots[self._serial[slot]]
        self._serial[slot] = 0
        request, self._request[slot] = self._request[slot], NOBODY
        if request != NOBODY:
            actions.append(Reject(request, cause))

    def _restore_floor(self, now: int, actions: list[Action]) -> None:
        floor = 0 if self._closed else self.rules.provisioned_concurrency
        while (slot := pool.vacant(self._pool, 0, floor)) != pool.NONE:
            self._begin(now, slot, pool.WARMING, actions)

    def _provisioned(self, slot: int) -> bool:
        return slot < self.rules.provisioned_concurrency


_OVERDUE = {
    pool.WARMING: Cause.START_TIMED_OUT,
    pool.STARTING: Cause.START_TIMED_OUT,
    pool.IDLE: Cause.EXPIRED,
    pool.BUSY: Cause.TIMED_OUT,
}
