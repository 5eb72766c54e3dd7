"""Both personas in any order of events, against a host that keeps sets and counts.

A capacity changes in service. Other new rules come with a new policy, after the old one is closed.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from emulator.core import NEVER, SECOND, Assign, Capacity, Cause, Resource
from emulator.realtime import RealTimePolicy, RealTimeRules, Routing
from emulator.serverless import MAX_LOSSES, ServerlessPolicy, ServerlessRules
from tests.policy.machine import ANSWER_LIMIT, START_LIMIT, STEPS, Environment, Machine

KEEP_WARM = st.sampled_from([1, ANSWER_LIMIT, 600 * SECOND])


@st.composite
def serverless_rules(draw: st.DrawFn) -> ServerlessRules:
    most = draw(st.integers(1, 4))
    return ServerlessRules(
        max_concurrency=most,
        provisioned_concurrency=draw(st.integers(0, most)),
        keep_warm_ns=draw(KEEP_WARM),
        keep_warm_longest_ns=draw(KEEP_WARM),
        seed=draw(st.integers(0, 9)),
        start_limit_ns=START_LIMIT,
        answer_limit_ns=ANSWER_LIMIT,
    )


class ServerlessMachine(Machine):
    held_to: ServerlessRules

    @initialize(rules=serverless_rules(), warm=st.booleans())
    def launch(self, rules: ServerlessRules, warm: bool) -> None:
        self.held_to, self.most = rules, rules.max_concurrency
        self.crowd = self.most  # requests at once: above the limit, fewer and fewer
        self.policy = ServerlessPolicy(rules)
        self.losses = 0  # times that environments died since the last answer
        self.blamed = 0  # the newest environment when such a time was counted last
        self.below = False  # whether the floor may lack some
        self.believe(self.policy.launch(self.now, warm), "launch")
        assert self.environments or not warm

    @rule(rules=serverless_rules(), warm=st.booleans())
    def update(self, rules: ServerlessRules, warm: bool) -> None:
        self.close()
        self.begin()
        self.launch(rules, warm)

    @rule(most=st.integers(1, 6), floor=st.integers(0, 6), step=STEPS)
    def resize(self, most: int, floor: int, step: int) -> None:
        self.pass_time(step)
        self.change(Capacity(most, min(floor, most)))

    def resized(self, capacity: Capacity) -> None:
        self.held_to = replace(
            self.held_to,
            max_concurrency=capacity.most,
            provisioned_concurrency=capacity.provisioned,
        )
        self.most = capacity.most
        self.crowd = max(self.most, len(self.open))

    def finishing(self) -> int:
        """Above the limit everybody has a request."""
        return max(0, len(self.open) - self.most)

    def idle(self, provisioned: bool) -> list[Environment]:
        """The idle ones of that kind, the oldest first."""
        found = [self.environments[number] for number in self.those("idle")]
        found = [one for one in found if one.provisioned == provisioned]
        return sorted(found, key=lambda one: one.rest)

    def converted(self, number: int, provisioned: bool) -> None:
        if self.event[1] == number:
            self.happen()
        one, idle = self.environments[number], self.idle(not provisioned)
        if one.state == "idle":
            assert one is idle[0]
        if provisioned:  # what is idle first, what is busy if there is no room for a start
            assert one.state == "idle" or not idle
            assert one.state != "busy" or len(self.environments) >= self.most
        else:  # what is idle last
            assert self.event[0] == "resize"
            members = sum(other.provisioned for other in self.environments.values())
            assert one.state != "idle" or len(idle) == members
        super().converted(number, provisioned)

    def stopped(self, number: int, why: Cause) -> None:
        one = self.environments[number]
        if why is Cause.SURPLUS:
            assert len(self.environments) > self.most
            if one.state == "idle" and self.event[0] == "resize":
                assert one is (self.idle(False) or self.idle(True))[0]
        super().stopped(number, why)

    def started(self, provisioned: bool) -> None:
        assert provisioned or not self.those("idle")  # what is warm is used first
        kind, number, _ = self.event
        for_a_request = kind == "arrive" and self.starts < self.arrivals
        if kind == "resize":  # nothing on demand is idle, or about to be
            assert not self.idle(False)
            starting = [self.environments[number] for number in self.those("starting")]
            assert sum(not one.provisioned for one in starting) <= len(self.waiting)
        for_the_floor = kind in ("launch", "done", "evict", "resize") or "busy" in self.overdue
        if not (for_the_floor or self.worth_replacing(number)):
            assert for_a_request
            on_demand = sum(not one.provisioned for one in self.environments.values())
            full = on_demand >= self.most - self.held_to.provisioned_concurrency
            assert provisioned == full  # a vacant place of the floor comes last

    def worth_replacing(self, number: int) -> bool:
        """Of one that is broken: it had come up, and it is not the same trouble again and again."""
        if self.event[0] != "broken" or number not in self.environments:
            return False
        losses = self.losses + (number > self.blamed)
        return self.environments[number].state != "starting" and losses <= MAX_LOSSES

    def chosen(self, action: Assign, fresh: bool) -> None:
        assert action.cold == fresh
        if not fresh:
            idle = [one for one in self.environments.values() if one.state == "idle"]
            newest = max(idle, key=lambda one: (one.provisioned, one.rest))
            assert newest is self.environments[action.environment]

    def rejected(self, request: int, why: Cause) -> None:
        if why is Cause.THROTTLED:
            assert self.event[0] == "arrive"
            assert sum(other < request for other in self.open) >= self.most
            return
        assert why is not Cause.SURPLUS
        if request in self.fallen:
            assert why is self.fallen[request]
        else:  # it waited for a start that failed: one request each
            self.failed_starts[why] -= 1
            assert self.failed_starts[why] >= 0

    def fell(self, one: Environment, why: Cause) -> None:
        super().fell(one, why)
        if one.state == "starting":  # is left to the next request
            self.below = True
        elif one.state == "busy" and why is Cause.TIMED_OUT:
            self.below = False

    def span(self, one: Environment) -> tuple[int, int]:
        if one.state != "idle" or one.provisioned:
            return super().span(one)
        shortest = self.held_to.keep_warm_ns
        return shortest, max(shortest, self.held_to.keep_warm_longest_ns)

    def billed(self) -> dict[Resource, int]:
        return {Resource.PROVISIONED: self.held_to.provisioned_concurrency}

    def happen(self) -> None:
        kind, number, _ = self.event
        if kind == "done" and number in self.environments:
            self.losses, self.below = 0, False
        if kind in ("evict", "resize"):
            self.below = False
        if kind == "broken" and number in self.environments:
            self.below = not self.worth_replacing(number)
            if number > self.blamed:  # those that are lost together are one loss
                self.losses, self.blamed = self.losses + 1, self.newest
        super().happen()

    def settled(self) -> None:
        super().settled()
        floor = self.held_to.provisioned_concurrency
        provisioned = sum(one.provisioned for one in self.environments.values())
        if self.event[0] != "close":
            assert provisioned <= floor if self.below else provisioned == floor
        assert self.event[0] != "evict" or not self.those("idle")
        assert len(self.open) <= self.crowd
        self.crowd = max(self.most, len(self.open))
        if len(self.environments) > self.most:
            assert not self.those("idle")
        assert len(self.waiting) <= len(self.those("starting"))  # nothing queues


class RealTimeMachine(Machine):
    held_to: RealTimeRules

    @initialize(
        instances=st.integers(1, 3),
        workers=st.integers(1, 2),
        routing=st.sampled_from(Routing),
        seed=st.integers(0, 9),
        batch=st.integers(1, 4),
    )
    def launch(self, instances: int, workers: int, routing: Routing, seed: int, batch: int) -> None:
        self.held_to = RealTimeRules(
            instances, workers, routing, seed, START_LIMIT, ANSWER_LIMIT, batch=batch
        )
        self.most = instances * workers
        self.held = 0  # instances
        self.tail: set[int] = set()  # workers that may belong to instances that leave
        self.seen = self.asked  # the newest request there was at the last resize
        self.resizes = 0
        self.policy = RealTimePolicy(self.held_to)
        self.believe(self.policy.launch(self.now, True), "launch")
        assert len(self.environments) == self.most

    @rule(instances=st.integers(1, 3), workers=st.integers(1, 2), batch=st.integers(1, 4))
    def update(self, instances: int, workers: int, batch: int) -> None:
        self.close()
        self.begin()
        self.launch(instances, workers, self.held_to.routing, self.held_to.seed, batch)

    @rule(instances=st.integers(1, 4), step=STEPS)
    def resize(self, instances: int, step: int) -> None:
        self.pass_time(step)
        more = instances - self.held_to.instances
        self.change(Capacity(instances))
        assert self.starts <= max(0, more) * self.held_to.workers

    def resized(self, capacity: Capacity) -> None:
        if capacity.most < self.held_to.instances:
            self.tail |= set(self.those("busy"))
        self.held_to = replace(self.held_to, instances=capacity.most)
        self.most = capacity.most * self.held_to.workers
        self.held = min(self.held, capacity.most)
        self.seen = self.asked
        self.resizes += 1

    def finishing(self) -> int:
        return len(self.tail)

    def assigned(self, action: Assign, first: bool) -> None:
        assert not action.cold
        if self.held_to.instances == 1 and not self.resizes:
            assert action.request == min(self.waiting)  # the queue keeps its order
        super().assigned(action, first)
        one = self.environments[action.environment]
        assert len(one.requests) <= min(self.held_to.batch, one.together)

    def stopped(self, number: int, why: Cause) -> None:
        assert why is not Cause.EVICTED
        super().stopped(number, why)

    def rejected(self, request: int, why: Cause) -> None:
        assert why is not Cause.SURPLUS
        if why is Cause.TIMED_OUT:
            assert self.now >= self.open[request] + ANSWER_LIMIT
        elif request in self.fallen:
            assert why is self.fallen[request]
        elif why is not Cause.CLOSED:  # it queued, and nobody is left or coming up
            assert self.failed_starts[why]
            assert self.environments.keys() <= {self.event[1], *self.tail}

    def billed(self) -> dict[Resource, int]:
        return {Resource.INSTANCES: self.held}

    def count(self) -> None:
        """What has to be held: all instances from when all are up, fewer from when they leave. Who
        leaves cannot always be told; where that makes a difference, either is right."""
        self.tail &= set(self.those("busy"))
        up = len(self.those("idle", "busy"))
        if up - len(self.tail) >= self.most or (
            up >= self.most and self.units.get(Resource.INSTANCES) == self.held_to.instances
        ):
            self.held = self.held_to.instances

    def at_work(self) -> list[Environment]:
        """Those that cannot belong to an instance that leaves: it gets no new requests."""
        return [
            one
            for one in self.environments.values()
            if one.state != "busy" or max(one.requests) > self.seen
        ]

    def settled(self) -> None:
        super().settled()
        for arrived in self.open.values():
            self.ends_by(arrived + ANSWER_LIMIT)
        self.count()
        if self.event[0] == "close":
            return
        assert self.units.get(Resource.INSTANCES, 0) == self.held
        assert len(self.at_work()) <= self.most
        assert len(self.environments) == self.most or self.policy.next_deadline() < NEVER
        if not self.those("starting", "busy"):  # nobody waits for one who may come back
            assert not (self.waiting and self.environments)
        if self.waiting and not self.tail:
            assert len(self.those("idle")) < (self.most if self.held_to.instances > 1 else 1)


TestServerless = ServerlessMachine.TestCase
TestServerless.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestRealTime = RealTimeMachine.TestCase
TestRealTime.settings = TestServerless.settings
