"""The real-time persona: instances that are always warm, each with a queue, and weighted variants.

Decides only: no clock, no I/O, no payloads. Requests queue and are never throttled; an instance
whose worker is gone gets a new one while the others serve; instance time is held from the moment
that all instances are up until they are taken away, whatever happens to their processes in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from emulator.core import (
    NEVER,
    SECOND,
    Action,
    Assign,
    Capacity,
    Cause,
    Hold,
    Reject,
    Resource,
    Start,
    Stop,
)


class Routing(StrEnum):
    """How a variant spreads requests over its instances (`RoutingConfig.RoutingStrategy`)."""

    RANDOM = "RANDOM"
    LEAST_OUTSTANDING_REQUESTS = "LEAST_OUTSTANDING_REQUESTS"


@dataclass(frozen=True, slots=True)
class RealTimeRules:
    """What one real-time variant is held to. Durations in nanoseconds.

    A request has `answer_limit_ns` from its arrival, its time in the queue included, as the
    container's own backlog counts in the real service. A worker has as long for what it was given:
    only then is it taken for stuck; one that has begun to stream its answer has `stream_limit_ns`,
    if that is more. `batch` is the most requests that are given to a worker
    together, where it can answer them in one call.
    """

    instances: int
    workers: int = 1
    routing: Routing = Routing.RANDOM
    seed: int = 0
    start_limit_ns: int = 240 * SECOND
    answer_limit_ns: int = 60 * SECOND
    stream_limit_ns: int = 480 * SECOND
    retry_ns: int = 5 * SECOND  # before a worker that failed is tried again; doubles each time
    retry_longest_ns: int = 3600 * SECOND
    batch: int = 1


class Draw:
    """A seeded stream of integers (Lehmer: a = 48271, m = 2^31 - 1), equal wherever it runs."""

    def __init__(self, seed: int) -> None:
        self._state = seed * 69621 % 2147483646 + 1

    def below(self, bound: int) -> int:
        """A number in [0, bound)."""
        self._state = self._state * 48271 % 2147483647
        return self._state * bound // 2147483647


def choose_variant(weights: Sequence[float], draw: Draw) -> int:
    """The index of the variant that gets the next request: weight over the sum of weights.

    A variant of weight 0 gets only requests that name it. Weights are compared in millionths.
    """
    shares = [round(weight * 1_000_000) for weight in weights]
    if not any(shares):
        return 0
    mark = draw.below(sum(shares))
    for index, share in enumerate(shares):
        if mark < share:
            return index
        mark -= share
    return len(shares) - 1


@dataclass(slots=True)
class _Batch:
    """What a worker was given together, and when it is taken for stuck."""

    requests: list[int]
    deadline: int


@dataclass(slots=True, eq=False)
class _Instance:
    """`starting`, `idle` and `busy` partition its live environments."""

    starting: dict[int, int] = field(default_factory=dict)  # environment -> start deadline
    idle: list[int] = field(default_factory=list)
    busy: dict[int, _Batch] = field(default_factory=dict)  # by environment
    queue: deque[int] = field(default_factory=deque)
    retry_at: int = NEVER
    failures: int = 0  # times in a row that workers were lost which had answered nothing
    blamed: int = 0  # the newest worker there was when the last failure was counted

    @property
    def outstanding(self) -> int:
        return len(self.queue) + sum(len(batch.requests) for batch in self.busy.values())

    @property
    def healthy(self) -> bool:
        return bool(self.idle or self.busy)

    @property
    def environments(self) -> list[int]:
        return sorted([*self.starting, *self.idle, *self.busy])


@dataclass(slots=True)
class _Waiting:
    """A request without an answer: until when it may wait, and where it does."""

    deadline: int
    instance: _Instance


def _presence(instance: _Instance) -> tuple[int, int]:
    """How much of an instance is there: its workers that are up, then those that start."""
    return len(instance.idle) + len(instance.busy), len(instance.starting)


class RealTimePolicy:
    """The decisions of one real-time variant; see `core.Policy` for what each method means.

    A worker that has become idle is given what queued meanwhile, up to `batch` requests and its
    share of the queue among idle siblings: batches grow with the load, and nothing waits for one.
    """

    def __init__(self, rules: RealTimeRules) -> None:
        self.rules = rules
        self._instances = [_Instance() for _ in range(rules.instances)]
        self._leaving: list[_Instance] = []  # they finish what they have, and get no more
        self._home: dict[int, _Instance] = {}  # environment -> its instance
        self._together: dict[int, int] = {}  # environment -> requests that it answers in one call
        self._waiting: dict[int, _Waiting] = {}  # by request; in order of arrival, so of deadline
        self._streaming: set[int] = set()  # of those assigned, what has begun to be answered
        self._draw = Draw(rules.seed)
        self._started = 0
        self._held = 0  # instances that are billed
        self._proven: set[int] = set()  # environments that have answered

    def launch(self, now: int, warm: bool) -> list[Action]:
        """Start every worker of every instance; the meter starts once all of them are up."""
        actions: list[Action] = []
        for instance in self._instances:
            self._staff(now, instance, actions)
        return actions

    def arrive(self, now: int, *requests: int) -> list[Action]:
        actions = self.tick(now)
        if not self._instances:  # closed
            actions.extend(Reject(request, Cause.CLOSED) for request in requests)
            return actions
        reached: list[_Instance] = []
        for request in requests:
            instance = self._route()
            self._waiting[request] = _Waiting(now + self.rules.answer_limit_ns, instance)
            instance.queue.append(request)
            if instance not in reached:
                reached.append(instance)
        for instance in reached:
            if not instance.healthy and not instance.starting:
                self._staff(now, instance, actions)
            self._serve(now, instance, actions)
        return actions

    def ready(self, now: int, environment: int, together: int = 1) -> list[Action]:
        actions = self.tick(now)
        instance = self._home.get(environment)
        if instance is None or instance.starting.pop(environment, None) is None:
            return actions
        instance.idle.append(environment)
        self._together[environment] = max(1, min(together, self.rules.batch))
        if len(instance.environments) == self.rules.workers:
            instance.retry_at = NEVER
        if self._held < len(self._instances):
            self._hold(actions)
        self._serve(now, instance, actions)
        for other in self._instances:
            if other.queue and not other.environments:  # there was nobody to move it to
                self._move(now, other, None, actions)
        return actions

    def done(self, now: int, environment: int) -> list[Action]:
        actions = self.tick(now)
        instance = self._home.get(environment)
        if instance is None or environment not in instance.busy:
            return actions
        for request in instance.busy.pop(environment).requests:
            self._waiting.pop(request, None)
            self._streaming.discard(request)
        instance.idle.append(environment)
        instance.failures = 0
        self._proven.add(environment)
        self._serve(now, instance, actions)
        if self._leaving:
            self._dismiss(instance, actions)
        return actions

    def streams(self, now: int, environment: int) -> list[Action]:
        """From its assignment on, what the worker answers has a stream's time."""
        actions = self.tick(now)
        instance = self._home.get(environment)
        batch = instance.busy.get(environment) if instance else None
        if batch is not None:
            more = self.rules.stream_limit_ns - self.rules.answer_limit_ns
            batch.deadline += max(0, more)
            for request in batch.requests:  # from now on it is the worker's deadline that counts
                if self._waiting.pop(request, None) is not None:
                    self._streaming.add(request)
        return actions

    def broken(self, now: int, environment: int, cause: Cause) -> list[Action]:
        actions = self.tick(now)
        if environment in self._home:
            self._lose(now, environment, cause, actions)
        return actions

    def tick(self, now: int) -> list[Action]:
        actions: list[Action] = []
        while self._waiting:
            request, waiting = next(iter(self._waiting.items()))
            if waiting.deadline > now:
                break
            # One that a worker is at leaves alone: the worker has a deadline of its own.
            if request in waiting.instance.queue:
                waiting.instance.queue.remove(request)
            self._reject(request, Cause.TIMED_OUT, actions)
        for instance in [*self._instances, *self._leaving]:
            self._settle(now, instance, actions)
        return actions

    def evict(self, now: int) -> list[Action]:
        """An always-warm persona has nothing to unload."""
        return self.tick(now)

    def resize(self, now: int, capacity: Capacity) -> list[Action]:
        """Instances that were about to leave come back before new ones start. Those leave that have
        the fewest workers up, the newest first: the others can serve in their place."""
        actions = self.tick(now)
        if not self._instances:  # closed
            return actions
        self.rules = replace(self.rules, instances=capacity.most)
        while len(self._instances) < capacity.most:
            instance = self._leaving.pop() if self._leaving else _Instance()
            self._instances.append(instance)
            self._staff(now, instance, actions)
        self._take_away(now, len(self._instances) - capacity.most, actions)
        self._hold(actions)
        return actions

    def close(self, now: int) -> list[Action]:
        actions = self.tick(now)
        for environment in sorted(self._home):
            actions.append(Stop(environment, Cause.CLOSED))
        left = sorted([*self._waiting, *self._streaming])
        actions.extend(Reject(request, Cause.CLOSED) for request in left)
        self._home.clear()
        self._together.clear()
        self._waiting.clear()
        self._streaming.clear()
        self._instances, self._leaving = [], []
        self._hold(actions)
        return actions

    def next_deadline(self) -> int:
        earliest = next(iter(self._waiting.values())).deadline if self._waiting else NEVER
        for instance in [*self._instances, *self._leaving]:
            earliest = min(earliest, instance.retry_at, *instance.starting.values(), NEVER)
            for batch in instance.busy.values():
                earliest = min(earliest, batch.deadline)
        return earliest

    def _route(self) -> _Instance:
        """The instance for the next request: one that can answer, else one that is coming up."""
        open_to = (
            [one for one in self._instances if one.healthy]
            or [one for one in self._instances if one.starting]
            or self._instances
        )
        if self.rules.routing is Routing.LEAST_OUTSTANDING_REQUESTS:
            return min(open_to, key=lambda instance: instance.outstanding)
        return open_to[self._draw.below(len(open_to))]

    def _hold(self, actions: list[Action]) -> None:
        """Bill for the instances there are: for more of them only once all are up together."""
        count = len(self._instances)
        up = sum(len(one.idle) + len(one.busy) for one in self._instances)
        held = count if up == count * self.rules.workers else min(self._held, count)
        if held != self._held:
            self._held = held
            actions.append(Hold(Resource.INSTANCES, held))

    def _take_away(self, now: int, surplus: int, actions: list[Action]) -> None:
        """So many instances are not routed to any more, and start nothing. None of them is given
        what another one leaves behind."""
        newest_first = list(reversed(self._instances))
        leaving = sorted(newest_first, key=_presence)[:surplus]
        self._instances = [one for one in self._instances if one not in leaving]
        self._leaving += leaving
        for instance in leaving:
            instance.retry_at = NEVER
            self._drop(list(instance.starting), actions)
            if not instance.healthy:
                self._move(now, instance, None, actions)
            self._dismiss(instance, actions)

    def _dismiss(self, instance: _Instance, actions: list[Action]) -> None:
        """Stop what has nothing left to do in an instance that leaves, and forget it at the end."""
        if instance not in self._leaving:
            return
        self._drop(list(instance.idle), actions)
        if not instance.busy:
            self._leaving.remove(instance)

    def _drop(self, environments: Sequence[int], actions: list[Action]) -> None:
        for environment in environments:
            self._forget(environment)
            actions.append(Stop(environment, Cause.SURPLUS))

    def _staff(self, now: int, instance: _Instance, actions: list[Action]) -> None:
        """Start as many workers as the instance lacks."""
        instance.retry_at = NEVER
        missing = self.rules.workers - len(instance.environments)
        for _ in range(missing):
            self._started += 1
            self._home[self._started] = instance
            instance.starting[self._started] = now + self.rules.start_limit_ns
            actions.append(Start(self._started))

    def _serve(self, now: int, instance: _Instance, actions: list[Action]) -> None:
        queue, idle = instance.queue, instance.idle
        while queue and idle:
            share = -(-len(queue) // len(idle))
            environment = idle.pop()
            size = min(share, self._together[environment])
            requests = [queue.popleft() for _ in range(size)]
            instance.busy[environment] = _Batch(requests, now + self.rules.answer_limit_ns)
            actions.extend(Assign(request, environment) for request in requests)

    def _settle(self, now: int, instance: _Instance, actions: list[Action]) -> None:
        """Replace what came up or answered too late, and try again what is due for it."""
        overdue = [(e, Cause.START_TIMED_OUT) for e, at in instance.starting.items() if at <= now]
        overdue += [(e, Cause.TIMED_OUT) for e, b in instance.busy.items() if b.deadline <= now]
        for environment, cause in overdue:
            actions.append(Stop(environment, cause))
            self._lose(now, environment, cause, actions)
        if instance.retry_at <= now:
            self._staff(now, instance, actions)

    def _lose(self, now: int, environment: int, cause: Cause, actions: list[Action]) -> None:
        """A worker is gone: its request is told why, and another is started.

        One that failed while starting, and one that keeps dying before its first answer, is tried
        again after a pause, or by the next request; what queued for an instance that cannot answer
        moves to one that can, or is told why not.
        """
        instance = self._home[environment]
        failed_start = environment in instance.starting
        if environment not in self._proven and environment > instance.blamed:
            instance.failures += 1  # workers that are lost together failed once
            instance.blamed = self._started
        self._forget(environment)
        if (batch := instance.busy.pop(environment, None)) is not None:
            for request in batch.requests:
                if request in self._waiting or request in self._streaming:
                    self._reject(request, cause, actions)
        if instance in self._leaving:
            self._dismiss(instance, actions)
        elif failed_start or instance.failures > 1:
            doubled = self.rules.retry_ns << min(max(instance.failures - 2, 0), 20)
            instance.retry_at = now + min(doubled, self.rules.retry_longest_ns)
        else:
            self._staff(now, instance, actions)
        if not instance.healthy:
            self._move(now, instance, cause if failed_start else None, actions)

    def _forget(self, environment: int) -> None:
        instance = self._home.pop(environment)
        instance.starting.pop(environment, None)
        if environment in instance.idle:
            instance.idle.remove(environment)
        self._proven.discard(environment)
        self._together.pop(environment, None)

    def _move(
        self, now: int, instance: _Instance, cause: Cause | None, actions: list[Action]
    ) -> None:
        queue, instance.queue = instance.queue, deque()
        for request in queue:
            target = self._route()
            if target.healthy or target.starting or cause is None:
                self._waiting[request].instance = target
                target.queue.append(request)
                self._serve(now, target, actions)
            else:
                self._reject(request, cause, actions)

    def _reject(self, request: int, cause: Cause, actions: list[Action]) -> None:
        self._waiting.pop(request, None)
        self._streaming.discard(request)
        actions.append(Reject(request, cause))
