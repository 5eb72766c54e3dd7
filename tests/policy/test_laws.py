"""Laws that hold for both personas in any order of events, found by Hypothesis."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.core import (
    SECOND,
    Action,
    Assign,
    Cause,
    Hold,
    Policy,
    Reject,
    Start,
    Stop,
)
from emulator.realtime import RealTimePolicy, RealTimeRules, Routing
from emulator.serverless import ServerlessPolicy, ServerlessRules

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "ready", "done", "broken", "tick", "evict"]),
        st.integers(0, 40 * SECOND),
        st.integers(0, 1 << 30),
    ),
    max_size=120,
)
CAUSES = [Cause.DIED, Cause.OUT_OF_MEMORY, Cause.LOAD_FAILED]


class Host:
    """Believes every action and checks that each makes sense."""

    def __init__(self, policy: Policy, together: int = 1) -> None:
        self.policy = policy
        self.together = together
        self.now = 0
        self.asked = 0
        self.open: set[int] = set()
        self.starting: set[int] = set()
        self.idle: set[int] = set()
        self.busy: dict[int, list[int]] = {}
        self.throttled = 0
        self.held = 0

    @property
    def alive(self) -> int:
        return len(self.starting) + len(self.idle) + len(self.busy)

    @property
    def assigned(self) -> set[int]:
        return {request for batch in self.busy.values() for request in batch}

    def believe(self, actions: list[Action]) -> None:
        given: set[int] = set()  # environments, in this very list
        for action in actions:
            match action:
                case Start(environment):
                    assert environment not in self.starting | self.idle | set(self.busy)
                    self.starting.add(environment)
                case Assign(request, environment):
                    assert request in self.open
                    assert request not in self.assigned
                    if environment not in given:
                        assert environment in self.idle
                        self.idle.remove(environment)
                        self.busy[environment] = []
                        given.add(environment)
                    self.busy[environment].append(request)
                    assert len(self.busy[environment]) <= self.together
                case Stop(environment):
                    assert environment in self.starting | self.idle | set(self.busy)
                    self._forget(environment)
                case Reject(request, cause):
                    self.open.remove(request)
                    for batch in self.busy.values():
                        if request in batch:
                            assert cause is Cause.TIMED_OUT
                            batch.remove(request)
                    self.throttled += cause is Cause.THROTTLED
                case Hold(_, units):
                    assert units >= 0
                    self.held = units

    def _forget(self, environment: int) -> None:
        self.starting.discard(environment)
        self.idle.discard(environment)
        self.busy.pop(environment, None)

    def play(self, kind: str, pick: int) -> None:
        if kind == "arrive":
            requests = range(self.asked + 1, self.asked + 2 + pick % self.together)
            self.asked = requests[-1]
            self.open.update(requests)
            self.believe(self.policy.arrive(self.now, *requests))
        elif kind == "ready" and self.starting:
            environment = sorted(self.starting)[pick % len(self.starting)]
            self.starting.remove(environment)
            self.idle.add(environment)
            self.believe_ready(environment)
        elif kind == "done" and self.busy:
            environment = sorted(self.busy)[pick % len(self.busy)]
            self.believe_done(environment)
        elif kind == "broken" and self.alive:
            living = sorted(self.starting | self.idle | set(self.busy))
            environment = living[pick % len(living)]
            cause = CAUSES[pick % len(CAUSES)]
            self._forget(environment)
            self.believe(self.policy.broken(self.now, environment, cause))
        elif kind == "tick":
            self.believe(self.policy.tick(self.now))
        elif kind == "evict":
            self.believe(self.policy.evict(self.now))

    def believe_ready(self, environment: int) -> None:
        """Deadlines are settled first, so the environment may have been given up just now."""
        self.idle.remove(environment)
        self.starting.add(environment)
        actions = self.policy.tick(self.now)
        self.believe(actions)
        if environment in self.starting:
            self.starting.remove(environment)
            self.idle.add(environment)
        self.believe(self.policy.ready(self.now, environment, self.together))

    def believe_done(self, environment: int) -> None:
        self.believe(self.policy.tick(self.now))
        if environment in self.busy:
            self.open.difference_update(self.busy.pop(environment))
            self.idle.add(environment)
        self.believe(self.policy.done(self.now, environment))

    def finish(self) -> None:
        self.believe(self.policy.close(self.now))
        self.asked += 1
        after = [
            *self.policy.arrive(self.now, self.asked),
            *self.policy.ready(self.now, 1),
            *self.policy.done(self.now, 1),
            *self.policy.broken(self.now, 1, Cause.DIED),
            *self.policy.evict(self.now),
            *self.policy.tick(self.now + 3600 * SECOND),
        ]
        assert after == [Reject(self.asked, Cause.CLOSED)]
        assert not self.open
        assert self.alive == 0
        assert self.held == 0


@settings(deadline=None, max_examples=200)
@given(EVENTS, st.integers(1, 4), st.integers(0, 4), st.booleans())
def test_serverless_laws(
    events: list[tuple[str, int, int]], most: int, floor: int, warm: bool
) -> None:
    floor = min(floor, most)
    host = Host(ServerlessPolicy(ServerlessRules(most, floor, keep_warm_ns=60 * SECOND)))
    host.believe(host.policy.launch(0, warm))
    for kind, step, pick in events:
        host.now += step
        waiting, throttled = len(host.open), host.throttled
        host.play(kind, pick)
        assert host.alive <= most
        assert len(host.open) <= most
        if kind == "arrive" and host.throttled > throttled:
            assert len(host.open) == most or waiting >= most
    host.finish()


@settings(deadline=None, max_examples=200)
@given(
    EVENTS,
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from(list(Routing)),
    st.integers(1, 3),
)
def test_realtime_laws(
    events: list[tuple[str, int, int]],
    instances: int,
    workers: int,
    routing: Routing,
    batch: int,
) -> None:
    host = Host(RealTimePolicy(RealTimeRules(instances, workers, routing, batch=batch)), batch)
    host.believe(host.policy.launch(0, True))
    for kind, step, pick in events:
        host.now += step
        host.play(kind, pick)
        assert host.alive <= instances * workers
        assert host.throttled == 0
        queued = len(host.open) - len(host.assigned)
        assert not (queued and host.idle and len(host.idle) == instances * workers)
    host.finish()


@settings(deadline=None, max_examples=100)
@given(EVENTS, st.integers(1, 3))
def test_a_late_timer_changes_nothing(events: list[tuple[str, int, int]], most: int) -> None:
    """Ticking at every deadline and never ticking lead to the same actions, but for their time."""
    prompt, late = (
        Host(ServerlessPolicy(ServerlessRules(most, 0, keep_warm_ns=30 * SECOND))) for _ in range(2)
    )
    for kind, step, pick in events:
        target = prompt.now + step
        while prompt.policy.next_deadline() <= target:
            prompt.now = prompt.policy.next_deadline()
            prompt.believe(prompt.policy.tick(prompt.now))
        prompt.now = late.now = target
        if kind in ("tick", "evict", "arrive"):
            late.believe(late.policy.tick(target))
        assert prompt.alive >= 0
        prompt.play(kind, pick)
        late.believe(late.policy.tick(target))
        late.play(kind, pick)
        assert (prompt.starting, prompt.idle, prompt.busy, prompt.open) == (
            late.starting,
            late.idle,
            late.busy,
            late.open,
        )
