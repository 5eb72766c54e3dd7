"""Both personas in any order of events, against a host that keeps sets and counts.

There is no update of an endpoint: new rules come with a new policy, after the old one is closed.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from emulator.core import NEVER, SECOND, Assign, Cause, Resource
from emulator.realtime import RealTimePolicy, RealTimeRules, Routing
from emulator.serverless import MAX_LOSSES, ServerlessPolicy, ServerlessRules
from tests.policy.machine import ANSWER_LIMIT, START_LIMIT, Environment, Machine

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

    def started(self, provisioned: bool) -> None:
        assert provisioned or not self.those("idle")  # what is warm is used first
        kind, number, _ = self.event
        for_a_request = kind == "arrive" and self.starts < self.arrivals
        for_the_floor = kind in ("launch", "done", "evict") or "busy" in self.overdue
        if not (for_the_floor or self.worth_replacing(number)):
            assert for_a_request
            on_demand = sum(not one.provisioned for one in self.environments.values())
            full = on_demand == self.most - self.held_to.provisioned_concurrency
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
            assert sum(other < request for other in self.open) == self.most
        elif request in self.fallen:
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
        if kind == "evict" or (kind == "done" and number in self.environments):
            self.losses, self.below = self.losses if kind == "evict" else 0, False
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
        assert len(self.open) <= self.most
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
        self.in_service = False
        self.policy = RealTimePolicy(self.held_to)
        self.believe(self.policy.launch(self.now, True), "launch")
        assert len(self.environments) == self.most

    @rule(instances=st.integers(1, 3), workers=st.integers(1, 2), batch=st.integers(1, 4))
    def update(self, instances: int, workers: int, batch: int) -> None:
        self.close()
        self.begin()
        self.launch(instances, workers, self.held_to.routing, self.held_to.seed, batch)

    def assigned(self, action: Assign, first: bool) -> None:
        assert not action.cold
        if self.held_to.instances == 1:
            assert action.request == min(self.waiting)  # the queue keeps its order
        super().assigned(action, first)
        one = self.environments[action.environment]
        assert len(one.requests) <= min(self.held_to.batch, one.together)

    def stopped(self, number: int, why: Cause) -> None:
        assert why is not Cause.EVICTED
        super().stopped(number, why)

    def rejected(self, request: int, why: Cause) -> None:
        if why is Cause.TIMED_OUT:
            assert self.now >= self.open[request] + ANSWER_LIMIT
        elif request in self.fallen:
            assert why is self.fallen[request]
        elif why is not Cause.CLOSED:  # it queued, and nobody is left or coming up
            assert self.failed_starts[why]
            assert self.environments.keys() <= {self.event[1]}

    def billed(self) -> dict[Resource, int]:
        return {Resource.INSTANCES: self.held_to.instances * self.in_service}

    def settled(self) -> None:
        super().settled()
        for arrived in self.open.values():
            self.ends_by(arrived + ANSWER_LIMIT)
        self.in_service |= len(self.those("idle", "busy")) == self.most
        if self.event[0] == "close":
            return
        assert len(self.environments) == self.most or self.policy.next_deadline() < NEVER
        if self.waiting:
            assert len(self.those("idle")) < (self.most if self.held_to.instances > 1 else 1)


TestServerless = ServerlessMachine.TestCase
TestServerless.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestRealTime = RealTimeMachine.TestCase
TestRealTime.settings = TestServerless.settings
