"""The real-time persona: instances that are always warm, each with a queue, and weighted variants.

Decides only: no clock, no I/O, no payloads. Requests queue and are never throttled; an instance
whose worker is gone gets a new one while the others serve; instance time is held from the moment
the variant is in service until it is deleted, whatever happens to its processes in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from emulator.core import NEVER, SECOND, Action, Assign, Cause, Hold, Reject, Resource, Start, Stop


class Routing(StrEnum):
    """How a variant spreads requests over its instances (`RoutingConfig.RoutingStrategy`)."""

    RANDOM = "RANDOM"
    LEAST_OUTSTANDING_REQUESTS = "LEAST_OUTSTANDING_REQUESTS"


@dataclass(frozen=True, slots=True)
class RealTimeRules:
    """What one real-time variant is held to. Durations in nanoseconds.

    A request has `answer_limit_ns` from its arrival, its time in the queue included, as the
    container's own backlog counts in the real service.
    """

    instances: int
    workers: int = 1
    routing: Routing = Routing.RANDOM
    seed: int = 0
    start_limit_ns: int = 240 * SECOND
    answer_limit_ns: int = 60 * SECOND
    retry_ns: int = 5 * SECOND  # before a worker that failed is tried again; doubles each time
    retry_longest_ns: int = 3600 * SECOND


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
class _Instance:
    """`starting`, `idle` and `busy` partition its live environments."""

    starting: dict[int, int] = field(default_factory=dict)  # environment -> start deadline
    idle: list[int] = field(default_factory=list)
    busy: dict[int, int] = field(default_factory=dict)  # environment -> request
    queue: deque[int] = field(default_factory=deque)
    retry_at: int = NEVER
    failures: int = 0  # times in a row that workers were lost which had answered nothing
    blamed: int = 0  # the newest worker there was when the last failure was counted

    @property
    def outstanding(self) -> int:
        return len(self.queue) + len(self.busy)

    @property
    def healthy(self) -> bool:
        return bool(self.idle or self.busy)

    @property
    def environments(self) -> list[int]:
        return sorted([*self.starting, *self.idle, *self.busy])


class RealTimePolicy:
    """The decisions of one real-time variant; see `core.Policy` for what each method means."""

    def __init__(self, rules: RealTimeRules) -> None:
        self.rules = rules
        self._instances = [_Instance() for _ in range(rules.instances)]
        self._home: dict[int, _Instance] = {}  # environment -> its instance
        self._arrived: deque[tuple[int, int]] = deque()  # (deadline, request) in order of arrival
        self._waiting: dict[int, _Instance] = {}  # request not yet answered -> its instance
        self._draw = Draw(rules.seed)
        self._started = 0
        self._in_service = False
        self._proven: set[int] = set()  # environments that have answered

    def launch(self, now: int, warm: bool) -> list[Action]:
        """Start every worker of every instance; the meter starts once all of them are up."""
        actions: list[Action] = []
        for instance in self._instances:
            self._staff(now, instance, actions)
        return actions

    def arrive(self, now: int, request: int) -> list[Action]:
        actions = self.tick(now)
        if not self._instances:  # closed
            actions.append(Reject(request, Cause.CLOSED))
            return actions
        instance = self._route()
        self._arrived.append((now + self.rules.answer_limit_ns, request))
        self._waiting[request] = instance
        instance.queue.append(request)
        if not instance.healthy and not instance.starting:
            self._staff(now, instance, actions)
        self._serve(instance, actions)
        return actions

    def ready(self, now: int, environment: int) -> list[Action]:
        actions = self.tick(now)
        instance = self._home.get(environment)
        if instance is None or instance.starting.pop(environment, None) is None:
            return actions
        instance.idle.append(environment)
        if len(instance.environments) == self.rules.workers:
            instance.retry_at = NEVER
        if not self._in_service and all(
            len(other.idle) + len(other.busy) == self.rules.workers for other in self._instances
        ):
            self._in_service = True
            actions.append(Hold(Resource.INSTANCES, self.rules.instances))
        self._serve(instance, actions)
        return actions

    def done(self, now: int, environment: int) -> list[Action]:
        actions = self.tick(now)
        instance = self._home.get(environment)
        if instance is None or environment not in instance.busy:
            return actions
        self._waiting.pop(instance.busy.pop(environment), None)
        instance.idle.append(environment)
        instance.failures = 0
        self._proven.add(environment)
        self._serve(instance, actions)
        return actions

    def broken(self, now: int, environment: int, cause: Cause) -> list[Action]:
        actions = self.tick(now)
        if environment in self._home:
            self._lose(now, environment, cause, actions)
        return actions

    def tick(self, now: int) -> list[Action]:
        actions: list[Action] = []
        while self._arrived and (
            self._arrived[0][0] <= now or self._arrived[0][1] not in self._waiting
        ):
            _, request = self._arrived.popleft()
            if request in self._waiting:
                self._time_out(now, request, actions)
        for instance in self._instances:
            for environment, deadline in list(instance.starting.items()):
                if deadline <= now:
                    actions.append(Stop(environment, Cause.START_TIMED_OUT))
                    self._lose(now, environment, Cause.START_TIMED_OUT, actions)
            if instance.retry_at <= now:
                self._staff(now, instance, actions)
        return actions

    def evict(self, now: int) -> list[Action]:
        """An always-warm persona has nothing to unload."""
        return self.tick(now)

    def close(self, now: int) -> list[Action]:
        actions = self.tick(now)
        for environment in sorted(self._home):
            actions.append(Stop(environment, Cause.CLOSED))
        actions.extend(Reject(request, Cause.CLOSED) for request in self._waiting)
        if self._in_service:
            actions.append(Hold(Resource.INSTANCES, 0))
        self._home.clear()
        self._waiting.clear()
        self._arrived.clear()
        self._instances = []
        return actions

    def next_deadline(self) -> int:
        earliest = self._arrived[0][0] if self._arrived else NEVER
        for instance in self._instances:
            earliest = min(earliest, instance.retry_at, *instance.starting.values(), NEVER)
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

    def _staff(self, now: int, instance: _Instance, actions: list[Action]) -> None:
        """Start as many workers as the instance lacks."""
        instance.retry_at = NEVER
        missing = self.rules.workers - len(instance.environments)
        for _ in range(missing):
            self._started += 1
            self._home[self._started] = instance
            instance.starting[self._started] = now + self.rules.start_limit_ns
            actions.append(Start(self._started))

    def _serve(self, instance: _Instance, actions: list[Action]) -> None:
        while instance.queue and instance.idle:
            request = instance.queue.popleft()
            environment = instance.idle.pop()
            instance.busy[environment] = request
            actions.append(Assign(request, environment))

    def _time_out(self, now: int, request: int, actions: list[Action]) -> None:
        """Its 60 s are over: a queued request leaves; a worker still at it is replaced."""
        instance = self._waiting[request]
        if request in instance.queue:
            instance.queue.remove(request)
            self._reject(request, Cause.TIMED_OUT, actions)
            return
        environment = next(key for key, value in instance.busy.items() if value == request)
        actions.append(Stop(environment, Cause.TIMED_OUT))
        self._lose(now, environment, Cause.TIMED_OUT, actions)

    def _lose(self, now: int, environment: int, cause: Cause, actions: list[Action]) -> None:
        """A worker is gone: its request is told why, and another is started.

        One that failed while starting, and one that keeps dying before its first answer, is tried
        again after a pause, or by the next request; what queued for an instance that cannot answer
        moves to one that can, or is told why not.
        """
        instance = self._home.pop(environment)
        failed_start = instance.starting.pop(environment, None) is not None
        if environment not in self._proven and environment > instance.blamed:
            instance.failures += 1  # workers that are lost together failed once
            instance.blamed = self._started
        self._proven.discard(environment)
        if environment in instance.idle:
            instance.idle.remove(environment)
        if (request := instance.busy.pop(environment, None)) is not None:
            self._reject(request, cause, actions)
        if failed_start or instance.failures > 1:
            doubled = self.rules.retry_ns << min(max(instance.failures - 2, 0), 20)
            instance.retry_at = now + min(doubled, self.rules.retry_longest_ns)
        else:
            self._staff(now, instance, actions)
        if not instance.healthy:
            self._move(instance, cause if failed_start else None, actions)

    def _move(self, instance: _Instance, cause: Cause | None, actions: list[Action]) -> None:
        queue, instance.queue = instance.queue, deque()
        for request in queue:
            target = self._route()
            if target.healthy or target.starting or cause is None:
                self._waiting[request] = target
                target.queue.append(request)
                self._serve(target, actions)
            else:
                self._reject(request, cause, actions)

    def _reject(self, request: int, cause: Cause, actions: list[Action]) -> None:
        del self._waiting[request]
        actions.append(Reject(request, cause))
