"""A host of a policy that keeps sets and counts, and holds every action to the laws of both
personas. Hypothesis drives it, in any order: `test_machine.py`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emulator.core import (
    NEVER,
    SECOND,
    Action,
    Assign,
    Capacity,
    Cause,
    Hold,
    Policy,
    Provision,
    Reject,
    Resource,
    Start,
    Stop,
)

ANSWER_LIMIT, START_LIMIT = 60 * SECOND, 180 * SECOND
STEPS = st.sampled_from(
    [*3 * [0, 1, SECOND], 20 * SECOND, ANSWER_LIMIT - 1, ANSWER_LIMIT, START_LIMIT]
)
CAUSES = st.sampled_from([Cause.DIED, Cause.OUT_OF_MEMORY, Cause.LOAD_FAILED])
OVERDUE = {
    "starting": Cause.START_TIMED_OUT,
    "idle": Cause.EXPIRED,
    "busy": Cause.TIMED_OUT,
}
PICKS = st.integers(0, 1 << 16)


@dataclass
class Environment:
    """What the host knows of one: `state` is starting, idle or busy, `since` then."""

    provisioned: bool
    since: int
    state: str = "starting"
    together: int = 1
    rest: int = 0  # when it became idle, in the order of such moments
    requests: list[int] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """Rules that fit any policy. Times are nanoseconds; the clock runs on at every event, whether
    the policy was told that a deadline passed or not."""

    most: int  # environments at once, but for those that finish after a resize
    policy: Policy

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.asked = 0
        self.begin()

    def begin(self) -> None:
        """An empty host for a new policy; requests are numbered on."""
        self.environments: dict[int, Environment] = {}
        self.numbered: set[int] = set()
        self.open: dict[int, int] = {}  # requests without an answer, and when they arrived
        self.units: dict[Resource, int] = {}
        self.used: Counter[Resource] = Counter()
        self.expected: Counter[Resource] = Counter()
        self.rests = 0  # times that some environment became idle
        self.event: tuple[str, int, Cause | None] = ("", 0, None)
        self.fallen: dict[int, Cause] = {}  # requests of environments that this event ended
        self.failed_starts: Counter[Cause] = Counter()  # environments that it ended while starting
        self.overdue: set[str] = set()  # the states of those that it ended for being late
        self.arrivals = 0  # requests that came with it
        self.starts = 0  # environments that it has started so far
        self.newest = 0  # the newest environment before it

    # -- what happens -------------------------------------------------------------------------

    @rule(count=st.integers(1, 8), step=STEPS)
    def arrive(self, count: int, step: int) -> None:
        self.pass_time(step)
        requests = range(self.asked + 1, self.asked + 1 + count)
        self.asked += count
        self.open |= dict.fromkeys(requests, self.now)
        self.arrivals = count
        self.believe(self.policy.arrive(self.now, *requests), "arrive")

    @rule(pick=PICKS, step=STEPS, together=st.integers(1, 4))
    def ready(self, pick: int, step: int, together: int) -> None:
        if environment := self.pick("starting", pick=pick):
            self.pass_time(step)
            self.come_up(environment, together)

    def come_up(self, environment: int, together: int) -> None:
        if self.still(environment, "starting"):
            self.environments[environment].together = together
            self.believe(self.policy.ready(self.now, environment, together), "ready", environment)

    def finish(self, environment: int) -> None:
        if self.still(environment, "busy"):
            self.believe(self.policy.done(self.now, environment), "done", environment)

    def still(self, environment: int, state: str) -> bool:
        """Whether it is, once what is late has ended: after a resize, another may take the place of
        that one, and it has to be clear who does before its own news."""
        if len(self.environments) > self.most:
            self.believe(self.policy.tick(self.now), "tick")
        one = self.environments.get(environment)
        return one is not None and one.state == state

    @rule(pick=PICKS, step=STEPS)
    def done(self, pick: int, step: int) -> None:
        if environment := self.pick("busy", pick=pick):
            self.pass_time(step)
            self.finish(environment)

    @rule(pick=PICKS, step=STEPS, cause=CAUSES)
    def broken(self, pick: int, step: int, cause: Cause) -> None:
        if environment := self.pick("starting", "idle", "busy", pick=pick):
            self.pass_time(step)
            self.lose(environment, cause)

    @rule(times=st.integers(2, 6), cause=CAUSES)
    def crash_loop(self, times: int, cause: Cause) -> None:
        """What comes up goes down, again and again."""
        for _ in range(times):
            if environment := self.pick("starting", pick=0):
                self.come_up(environment, together=4)
            if environment := self.pick("idle", "busy", pick=-1):
                self.lose(environment, cause)

    def lose(self, environment: int, cause: Cause) -> None:
        if any(self.now >= self.environments[n].since + ANSWER_LIMIT for n in self.those("busy")):
            self.believe(self.policy.tick(self.now), "tick")  # so that it is clear who starts whom
        if environment in self.environments:
            actions = self.policy.broken(self.now, environment, cause)
            self.believe(actions, "broken", environment, cause)

    @rule()
    def work(self) -> None:
        """Everything comes up and answers, and nothing fails."""
        for _ in range(len(self.open) + 2):
            for environment in self.those("starting"):
                self.come_up(environment, together=4)
            for environment in self.those("busy"):
                self.finish(environment)
        assert not self.those("starting", "busy")
        if len(self.environments) == self.most:  # or a request may wait for another try
            assert not self.open

    @rule(step=STEPS)
    def tick(self, step: int) -> None:
        self.pass_time(step)
        self.believe(self.policy.tick(self.now), "tick")

    @rule(before=st.booleans())
    def tick_at_the_deadline(self, before: bool) -> None:
        """Nothing happens one nanosecond early."""
        if self.policy.next_deadline() == NEVER:
            return
        self.pass_time(self.policy.next_deadline() - self.now - before)
        known = repr(self.environments), repr(self.open)
        self.believe(self.policy.tick(self.now), "tick")
        assert not before or known == (repr(self.environments), repr(self.open))

    @rule(step=STEPS)
    def evict(self, step: int) -> None:
        self.pass_time(step)
        self.believe(self.policy.evict(self.now), "evict")

    @rule(pick=PICKS, cause=CAUSES)
    def news_of_the_dead(self, pick: int, cause: Cause) -> None:
        """What an environment said before it was stopped may arrive afterwards."""
        self.believe(self.policy.tick(self.now), "tick")
        gone = sorted({*self.numbered, len(self.numbered) + 1} - self.environments.keys())
        one = gone[pick % len(gone)]
        assert self.policy.ready(self.now, one) == []
        assert self.policy.done(self.now, one) == []
        assert self.policy.broken(self.now, one, cause) == []

    @rule(pick=PICKS)
    def news_out_of_turn(self, pick: int) -> None:
        """Nobody is ready twice, or done with nothing."""
        self.believe(self.policy.tick(self.now), "tick")
        if environment := self.pick("idle", "busy", pick=pick):
            assert self.policy.ready(self.now, environment) == []
        if environment := self.pick("idle", "starting", pick=pick):
            assert self.policy.done(self.now, environment) == []

    @rule(most=st.integers(1, 2), floor=st.integers(0, 2))
    def shrink_at_work(self, most: int, floor: int) -> None:
        """Everything is up and has something to do when the capacity falls."""
        self.arrive(count=8, step=0)
        for environment in self.those("starting"):
            self.come_up(environment, together=1)
        self.change(Capacity(most, min(most, floor)))

    def change(self, capacity: Capacity) -> None:
        """What is late ends before the resize, so that it is clear who starts and stops whom."""
        self.believe(self.policy.tick(self.now), "tick")
        self.resized(capacity)
        self.believe(self.policy.resize(self.now, capacity), "resize")

    def resized(self, capacity: Capacity) -> None:
        """From now on the policy is held to this capacity."""

    def close(self) -> None:
        """The end: everybody is answered, everything stopped, no meter runs."""
        self.believe(self.policy.close(self.now), "close")
        assert not self.open
        assert not self.environments
        assert not any(self.units.values())
        self.usage_is_what_was_to_be_held()
        self.asked += 1
        after = [
            *self.policy.arrive(self.now, self.asked),
            *self.policy.ready(self.now, 1),
            *self.policy.done(self.now, 1),
            *self.policy.broken(self.now, 1, Cause.DIED),
            *self.policy.evict(self.now),
            *self.policy.resize(self.now, Capacity(4, 2)),
            *self.policy.tick(self.now + 3600 * SECOND),
        ]
        assert after == [Reject(self.asked, Cause.CLOSED)]

    def teardown(self) -> None:
        self.close()

    # -- what the policy wants ----------------------------------------------------------------

    def believe(
        self,
        actions: list[Action],
        kind: str,
        environment: int = 0,
        cause: Cause | None = None,
    ) -> None:
        """Carry the actions out. What the event did to its own environment becomes true when the
        policy first refers to it: deadlines that have passed come before it."""
        self.event, self.fallen, self.failed_starts = (kind, environment, cause), {}, Counter()
        self.overdue, self.starts, self.newest = set(), 0, max(self.numbered, default=0)
        if cause:
            self.fell(self.environments[environment], cause)
        given: set[int] = set()
        for action in actions:
            match action:
                case Start(number, provisioned):
                    assert number not in self.numbered
                    self.numbered.add(number)
                    self.started(provisioned)
                    self.starts += 1
                    self.environments[number] = Environment(provisioned, self.now)
                case Provision(number, provisioned):
                    self.converted(number, provisioned)
                case Assign(_, number):
                    self.assigned(action, first=number not in given)
                    given.add(number)
                case Stop(number, why):
                    self.stopped(number, why)
                case Reject(request, why):
                    self.rejected(request, why)
                    del self.open[request]  # which fails for one that has been answered
                case Hold(resource, units):
                    assert units >= 0
                    assert units != self.units.get(resource, 0)
                    self.units[resource] = units
        self.happen()
        self.settled()

    def happen(self) -> None:
        """The event itself, once; nothing if its environment was stopped for being late."""
        (kind, number, _), self.event = self.event, (self.event[0], 0, None)
        one = self.environments.get(number)
        if one is None:
            return
        if kind == "broken":
            assert not self.open.keys() & one.requests
            del self.environments[number]
            return
        if kind == "done":
            for request in one.requests:
                self.open.pop(request, None)  # one that was rejected for its age gets no answer
        one.state, one.requests = "idle", []
        self.rest(one)

    def rest(self, one: Environment) -> None:
        one.since = self.now
        self.rests += 1
        one.rest = self.rests

    def started(self, provisioned: bool) -> None:
        """An environment is about to start."""

    def converted(self, number: int, provisioned: bool) -> None:
        if self.event[1] == number:
            self.happen()
        one = self.environments[number]
        assert one.provisioned != provisioned
        one.provisioned = provisioned
        if one.state == "idle":
            self.rest(one)

    def assigned(self, action: Assign, first: bool) -> None:
        number = action.environment
        one = self.environments[number]
        fresh = one.state == "starting"
        if self.event[1] == number:
            self.happen()
        assert action.request in self.waiting
        assert one.state == ("idle" if first else "busy")
        assert action.provisioned == one.provisioned
        if first:
            self.chosen(action, fresh)
        one.state, one.since = "busy", self.now
        one.requests.append(action.request)

    def chosen(self, action: Assign, fresh: bool) -> None:
        """The environment is idle, or has come up this moment (`fresh`), and is given work."""

    def stopped(self, number: int, why: Cause) -> None:
        if why is Cause.SURPLUS and number == self.event[1]:
            self.happen()  # it was answered first
        one = self.environments.pop(number)
        if why is Cause.SURPLUS:
            assert self.event[0] in ("resize", "done")
            assert not one.requests  # nothing is given up for a resize
        elif why is Cause.EVICTED:
            assert (self.event[0], one.state) == ("evict", "idle")
        elif why is Cause.CLOSED:
            assert self.event[0] == "close"
        else:
            assert why is OVERDUE[one.state]
            assert self.now >= one.since + self.span(one)[0]  # never early
            self.overdue.add(one.state)
        self.fell(one, why)

    def fell(self, one: Environment, why: Cause) -> None:
        self.fallen |= dict.fromkeys(one.requests, why)
        self.failed_starts[why] += one.state == "starting"

    def rejected(self, request: int, why: Cause) -> None:
        """The request is open, and is told why it will not be answered."""

    def finishing(self) -> int:
        """How many environments there may be too many, after a resize."""
        return 0

    def span(self, one: Environment) -> tuple[int, int]:
        """How long it may, and how long it can at most, stay in its state."""
        limit = {"starting": START_LIMIT, "idle": NEVER, "busy": ANSWER_LIMIT}[one.state]
        return limit, limit

    # -- time, and what holds after every event -----------------------------------------------

    def pass_time(self, step: int) -> None:
        self.now += step
        for resource, units in self.units.items():
            self.used[resource] += units * step
        for resource, units in self.billed().items():
            self.expected[resource] += units * step

    def billed(self) -> dict[Resource, int]:
        """What has to be held at the moment."""
        return {}

    def settled(self) -> None:
        """No deadline at or before now is left, and none is slept through."""
        assert self.policy.next_deadline() > self.now
        for one in self.environments.values():
            self.ends_by(one.since + self.span(one)[1])

    def ends_by(self, deadline: int) -> None:
        assert self.now < deadline
        assert self.policy.next_deadline() <= deadline

    def those(self, *states: str) -> list[int]:
        return sorted(n for n, one in self.environments.items() if one.state in states)

    def pick(self, *states: str, pick: int) -> int:
        """The number of one in these states; 0 if there is none."""
        found = self.those(*states)
        return found[pick % len(found)] if found else 0

    @property
    def waiting(self) -> set[int]:
        """The requests that no environment works on."""
        given = {request for one in self.environments.values() for request in one.requests}
        return self.open.keys() - given

    @invariant()
    def environments_are_bounded(self) -> None:
        assert len(self.environments) <= self.most + self.finishing()

    @invariant()
    def usage_is_what_was_to_be_held(self) -> None:
        assert all(amount >= 0 for amount in self.used.values())
        assert +self.used == +self.expected
