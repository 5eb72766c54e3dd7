"""The live host of one variant: feeds a policy real events and carries out its actions.

It decides nothing. Requests become numbers for the policy, actions become environments started,
given work and stopped; what an answer took is measured here, and every answer becomes one row of
the ledger, here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from emulator import faults
from emulator.address import Key
from emulator.billing import UsageKind
from emulator.clock import Clock, Timer
from emulator.core import (
    NEVER,
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
from emulator.delays import Delays
from emulator.endpoints import Variant
from emulator.errors import InvocationError
from emulator.inflight import Live, Pending, Served, Settling, State, answered_bytes, invocation_row
from emulator.injection import IN_STREAM, Injection
from emulator.ledger import ENVIRONMENTS, InvocationRow
from emulator.members import MAX_HEADER
from emulator.profiles import Latency, Profile
from emulator.sandbox.protocol import (
    EnvironmentFailed,
    Invocation,
    Reply,
    Sandbox,
    Spec,
)

# Endpoint, variant, environment and one line that it printed.
LogLine = Callable[[Key, str, str, str], None]
log = logging.getLogger("lukewarm.live")

CALL_BYTES = 1 << 20  # bodies that travel together: above it, copying them costs more than a call
# What a request that waited for its own environment's start is rejected with, if that fails.
_FAILED_STARTS = (Cause.LOAD_FAILED, Cause.START_TIMED_OUT, Cause.DIED, Cause.OUT_OF_MEMORY)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the host, not the policy, holds this variant's answers to."""

    payload_bytes: int
    cpu_share: tuple[int, int] | None = None  # vCPUs as numerator, denominator
    latency: Latency | None = None  # modelled, of each request


@dataclass(slots=True)
class Means:
    """What hosts share: the clock, the backend, the journal's and the meters' writers."""

    clock: Clock
    sandbox: Sandbox
    write: Callable[[InvocationRow], asyncio.Future[None]]
    hold: Callable[[Key, str, str, str, int, int], None]
    delays: Delays
    profile: Profile | None = None
    log_line: LogLine = field(default=lambda *_: None)


class LiveVariant:
    """One variant in service; `invoke` is its hot path."""

    def __init__(
        self,
        place: faults.Place,
        variant: Variant,
        policy: Policy,
        spec: Spec,
        terms: Terms,
        means: Means,
    ) -> None:
        self.place, self.variant, self.terms = place, variant, terms
        self._policy, self._spec, self._means = policy, spec, means
        self._requests = 0
        self._arrived: list[int] = []  # in this turn of the loop
        self._pending: dict[int, Pending] = {}
        self._lives: dict[int, Live] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._words: dict[int, str] = {}  # what a request's environment said when it ended
        self._timer: Timer | None = None
        self._timer_at = NEVER
        self._settlings: list[Settling] = []
        self._held: dict[Resource, int] = {}
        self._alive = 0  # environments, as the ledger knows
        self._metered = False
        self._retired: asyncio.Future[None] | None = None
        self._token = uuid.uuid4().hex[:6]  # environments of different lives have different names
        self.injection: Injection | None = None  # what the next requests get, for a test
        self.closed = False

    async def launch(self, warm: bool) -> None:
        """Go into service: returns when every environment that it takes has loaded the model.

        Raises EnvironmentFailed with the first one's own message if any does not.
        """
        self._perform(self._policy.launch(self._means.clock.now(), warm))
        await self._settle(lambda live: True)

    def meter(self) -> None:
        """From now on what the variant holds is billed; until then it is only noted."""
        self._metered = True
        for resource, units in self._held.items():
            self._bill(resource, units)

    async def travel(self, latency: Latency) -> tuple[int, int]:
        """Wait as long as a request is on its way at AWS, and as the service works on it: the
        monotonic instant at which it has arrived here, and what it is to count as overhead."""
        network_ns, overhead_ns = latency.draw()
        await self._means.clock.pause(network_ns + overhead_ns)
        return time.monotonic_ns(), overhead_ns

    def invoke(
        self,
        request_id: str,
        invocation: Invocation,
        arrived_mono: int,
        inference_id: str,
        modelled_ns: int = 0,
    ) -> asyncio.Future[Served]:
        """Hand one request to the policy; the future resolves when its answer may leave.

        `modelled_ns` of overhead came before `arrived_mono`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Served] = loop.create_future()
        if invocation.stream is not None:
            invocation.stream.limit = self.terms.payload_bytes
        if self.injection is not None and (error := self._injected(invocation)):
            size = len(invocation.body)
            return self.refuse(request_id, error, size, arrived_mono, modelled_ns)
        self._requests += 1
        self._pending[self._requests] = Pending(
            request_id, invocation, future, 0, arrived_mono, inference_id, modelled_ns
        )
        if not self._arrived:
            loop.call_soon(self._arrive)
        self._arrived.append(self._requests)
        return future

    def refuse(
        self,
        request_id: str,
        error: InvocationError,
        request_bytes: int,
        arrived_mono: int,
        modelled_ns: int = 0,
    ) -> asyncio.Future[Served]:
        """Record a request that never reaches the policy (an oversize body)."""
        future: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
        nothing = Invocation(b"", "", "")
        now = self._means.clock.now()
        pending = Pending(request_id, nothing, future, now, arrived_mono, "", modelled_ns)
        row = self._row(pending, None, error, 0)
        self._commit(pending, row._replace(request_bytes=request_bytes), None, error)
        return future

    def _injected(self, invocation: Invocation) -> InvocationError | None:
        """The error that was asked for in the place of an answer."""
        assert self.injection is not None
        error = self.injection.take(self.place, invocation.stream is not None)
        if not self.injection.left:
            self.injection = None
        if error is not None and invocation.stream and error.code in IN_STREAM:
            invocation.stream.open("application/json", "")  # it comes in band
        return error

    def evict(self) -> int:
        """Unload what is idle; the number of environments ended."""
        if self.closed:
            return 0
        actions = self._policy.evict(self._means.clock.now())
        self._perform(actions)
        return sum(isinstance(action, Stop) for action in actions)

    async def close(self) -> None:
        """Leave service: what waits is answered with an error, every process is ended."""
        self.closed = True
        self._perform(self._policy.close(self._means.clock.now()))
        if self._timer:
            self._timer.cancel()
        for task in self._releasing:  # their requests have just been answered
            task.cancel()
        while self._stopping:
            await asyncio.wait(set(self._stopping))

    async def resize(self, variant: Variant) -> None:
        """Become what the variant is to be, in place: another weight, another capacity.

        What is added has loaded the model when this returns: instances, or provisioned
        environments. Requests go on meanwhile, and none fails for it. Raises EnvironmentFailed with
        the first one's own message if any does not come up; it is tried again like any other, until
        a `resize` puts the capacity back, which waits for nothing.
        """
        before, capacity = _capacity(self.variant), _capacity(variant)
        self.variant = variant
        self._perform(self._policy.resize(self._means.clock.now(), capacity))
        self._check_settled()  # an earlier one may wait for what has been taken away
        if variant.serverless and capacity.provisioned > before.provisioned:
            await self._settle(lambda live: live.provisioned)
        elif variant.instances and capacity.most > before.most:
            await self._settle(lambda live: True)

    def retire(self) -> asyncio.Future[None]:
        """Leave the bill to a successor, and serve on; resolves once nothing is in flight.

        New requests are to go to the successor by now. The meters end with the call, so the
        successor's `meter` comes after it. A request that was on its way here is served; from the
        moment that the future resolves, the variant is `closed`: whoever held on to it while a body
        was being read has to look for another, and the caller may `close` it.
        """
        if self._metered:
            for resource in self._held:
                self._bill(resource, 0)
        self._metered = False
        self._retired = asyncio.get_running_loop().create_future()
        self._check_retired()
        return self._retired

    def tick(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self._perform(self._policy.tick(self._means.clock.now()))

    @property
    def lives(self) -> list[Live]:
        return list(self._lives.values())

    @property
    def settling(self) -> bool:
        """Whether an environment is starting."""
        return any(live.state == "starting" for live in self._lives.values())

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    def environment_name(self, number: int) -> str:
        return f"{self.place.endpoint}-{self.variant.name}-{self._token}-{number}"

    def _arrive(self) -> None:
        """Tell the policy of the requests of one turn together, so that they can share a call."""
        requests, self._arrived = self._arrived, []
        now = self._means.clock.now()
        for request in requests:
            self._pending[request].arrived_at = now
        self._perform(self._policy.arrive(now, *requests))

    # -- carrying out actions -----------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        batches: dict[int, list[int]] = {}
        for action in actions:
            match action:
                case Assign():
                    self._assign(action)
                    batches.setdefault(action.environment, []).append(action.request)
                case Start():
                    self._start(action)
                case Stop():
                    self._stop(action)
                case Reject():
                    self._reject(action)
                case Hold():
                    self._hold(action)
                case Provision():
                    self._lives[action.environment].provisioned = action.provisioned
        for environment, batch in batches.items():
            if environment in self._lives:  # a variant that closes takes back what it has given
                self._hand_over(self._lives[environment], batch)
        if len(self._lives) != self._alive:
            self._count()
        deadline = self._policy.next_deadline()
        if deadline < self._timer_at and not self.closed:
            if self._timer:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._means.clock.call_at(deadline, self.tick)

    def _start(self, action: Start) -> None:
        now = self._means.clock.now()
        live = Live(action.environment, action.provisioned, now, since=now)
        self._lives[live.number] = live
        live.starting = asyncio.get_running_loop().create_task(self._bring_up(live))

    async def _bring_up(self, live: Live) -> None:
        place = f"{self.place.endpoint}/{self.variant.name}"
        live.provision_ns = self._means.delays.draw_ns(place, live.number)
        await self._means.clock.pause(live.provision_ns)
        name = self.environment_name(live.number)
        label = f"{place}/{name}"
        log_line = partial(self._means.log_line, self.place.key, self.variant.name, name)
        spec = replace(self._spec, label=label, log=log_line)
        try:
            environment = await self._means.sandbox.start(spec)
        except EnvironmentFailed as failure:
            self._broken(live, failure)
            return
        except Exception as fault:
            log.exception("%s could not be started.", label)
            text = f"The environment could not be started: {fault}."
            self._broken(live, EnvironmentFailed(Cause.LOAD_FAILED, text))
            return
        live.environment = environment
        live.starting = None
        environment.ended.add_done_callback(partial(self._ended, live))
        self._enter(live, "idle")
        self._perform(self._policy.ready(live.since, live.number, environment.together))
        self._check_settled()

    def _assign(self, action: Assign) -> None:
        pending, live = self._pending[action.request], self._lives[action.environment]
        pending.assignment, pending.live = action, live
        pending.assigned_at = self._means.clock.now()
        pending.assigned_mono = time.monotonic_ns()

    def _hand_over(self, live: Live, batch: list[int]) -> None:
        """Give an environment its batch, in as many calls as its bodies are too large for one."""
        assert live.environment is not None  # a policy assigns only what is ready
        self._enter(live, "busy")
        for call in self._calls(batch):
            try:
                replies = live.environment.invoke([self._pending[r].invocation for r in call])
            except Exception as fault:  # noqa: BLE001 - not now: other actions come first
                asyncio.get_running_loop().call_soon(self._give_up, live, fault)
                return
            live.calls += 1
            if (stream := self._pending[call[0]].invocation.stream) is not None:
                stream.opened.add_done_callback(partial(self._streams, live))
            replies.add_done_callback(partial(self._answered, live, call))

    def _streams(self, live: Live, _: asyncio.Future[None]) -> None:
        """The environment has begun an answer that it yields."""
        if live.number in self._lives:
            self._perform(self._policy.streams(self._means.clock.now(), live.number))

    def _calls(self, batch: list[int]) -> list[list[int]]:
        if len(batch) == 1:
            return [batch]
        calls: list[list[int]] = [[]]
        room = CALL_BYTES
        for request in batch:
            invocation = self._pending[request].invocation
            size = CALL_BYTES + 1 if invocation.stream else len(invocation.body)  # then it is alone
            if size > room and calls[-1]:
                calls.append([])
                room = CALL_BYTES
            calls[-1].append(request)
            room -= size
        return calls

    def _give_up(self, live: Live, fault: BaseException) -> None:
        """An environment that cannot be talked to is as good as dead."""
        log.error("%s cannot be used.", self.environment_name(live.number), exc_info=fault)
        text = f"The request could not be handed over: {fault}."
        self._broken(live, EnvironmentFailed(Cause.DIED, text))
        self._end(live)

    def _stop(self, action: Stop) -> None:
        live = self._lives.pop(action.environment, None)
        if live is None:
            return
        log.debug("%s ends: %s", self.environment_name(live.number), action.cause.value)
        self._end(live)
        if action.cause is not Cause.SURPLUS:  # which nobody waits for any more
            self._unsettle(live, EnvironmentFailed(action.cause, ""))

    def _end(self, live: Live) -> None:
        task = asyncio.get_running_loop().create_task(_stopped(live))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def _reject(self, action: Reject) -> None:
        pending = self._pending.pop(action.request, None)
        if pending is None:  # an earlier call of its batch has answered it
            return
        assigned = pending.assignment
        live_number = assigned.environment if assigned else 0
        words = self._words.get(action.request, "")
        name = self.environment_name(live_number) if live_number else ""
        error = faults.unanswered(self.place, name, action.cause, words)
        worked = self._worked_ns(pending) if assigned else 0
        row = self._row(pending, None, error, worked)
        waited = assigned is None and self.variant.serverless and action.cause in _FAILED_STARTS
        self._commit(pending, row._replace(cold_start=True) if waited else row, None, error)

    def _worked_ns(self, pending: Pending) -> int:
        """How long an environment was at a request that it never answered: by the server's time
        where that has gone further, as when a virtual minute passes in no time."""
        real = time.monotonic_ns() - pending.assigned_mono
        return max(real, self._means.clock.now() - pending.assigned_at)

    def _hold(self, action: Hold) -> None:
        self._held[action.resource] = action.units
        if self._metered:
            self._bill(action.resource, action.units)

    def _count(self) -> None:
        """Note how many environments there are, in a meter of this life's own: while an endpoint is
        updated, another one is up beside it."""
        self._alive, now = len(self._lives), self._means.clock.now()
        place = (self.place.key, self.variant.name, ENVIRONMENTS, self._token)
        self._means.hold(*place, self._alive, now)

    def _bill(self, resource: Resource, units: int) -> None:
        now, variant, meters = self._means.clock.now(), self.variant, []
        if resource is Resource.PROVISIONED and variant.serverless:
            meters = [(UsageKind.PROVISIONED_USAGE, str(variant.serverless.memory_mb), units)]
        elif variant.instances:
            meters = [(UsageKind.INSTANCE, variant.instances.instance_type, units)]
            if volume_gb := variant.instances.volume_gb:
                meters.append((UsageKind.VOLUME, "gp2", units * volume_gb))
        for kind, sku, held in meters:
            self._means.hold(self.place.key, variant.name, kind, sku, held, now)

    # -- what environments report -------------------------------------------------------------

    def _answered(self, live: Live, call: list[int], future: asyncio.Future[list[Reply]]) -> None:
        if future.cancelled():
            return
        failure = future.exception()
        if isinstance(failure, EnvironmentFailed):
            self._broken(live, failure)
            return
        if failure is not None:
            self._give_up(live, failure)
            return
        live.calls -= 1
        answers = list(zip(call, future.result(), strict=True))
        held_ns = max(self._stretched(reply) - reply.model_ns for _, reply in answers)
        if held_ns <= 0:
            self._release(live, answers)
            return
        for request, reply in answers:
            if request in self._pending:
                self._pending[request].reply = reply
        task = asyncio.get_running_loop().create_task(self._release_later(live, answers, held_ns))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    def _stretched(self, reply: Reply) -> int:
        """How long the answer takes at the variant's share of a vCPU."""
        share = self.terms.cpu_share
        if share is None:
            return reply.model_ns
        return max(reply.model_ns, reply.cpu_ns * share[1] // share[0])

    async def _release_later(
        self, live: Live, answers: list[tuple[int, Reply]], held_ns: int
    ) -> None:
        await self._means.clock.pause(held_ns)
        self._release(live, answers)

    def _release(self, live: Live, answers: list[tuple[int, Reply]]) -> None:
        """Let answers go. What was given up on meanwhile has none."""
        served = [
            (pending, reply)
            for request, reply in answers
            if (pending := self._pending.pop(request, None)) is not None
        ]
        if not live.calls:  # first of all, so that the environment goes on while rows are written
            self._enter(live, "idle")
            self._perform(self._policy.done(live.since, live.number))
        for pending, reply in served:
            live.served += 1
            error = self._verdict(live, pending, reply)
            row = self._row(pending, reply, error, self._stretched(reply))
            self._commit(pending, row, reply, error)

    def _verdict(self, live: Live, pending: Pending, reply: Reply) -> InvocationError | None:
        name = self.environment_name(live.number)
        if not 200 <= reply.status < 300:
            return faults.container_answered(self.place, name, reply.status, reply.body)
        for header in (reply.content_type, reply.custom_attributes):
            if not is_header(header):
                return faults.unusable_header(self.place, name, reply.status, header)
        if answered_bytes(pending, reply) > self.terms.payload_bytes:
            return faults.response_too_large(self.place, name, reply.status)
        return None

    def _ended(self, live: Live, ended: asyncio.Future[EnvironmentFailed]) -> None:
        if not ended.cancelled():
            self._broken(live, ended.result())

    def _broken(self, live: Live, failure: EnvironmentFailed) -> None:
        """The environment is gone: say so once, to the log, to the policy and to a launch."""
        if live.number not in self._lives:
            return
        answered = [(r, p.reply) for r, p in self._pending.items() if p.live is live and p.reply]
        if answered:  # before it died
            self._release(live, answered)
        self._lives.pop(live.number, None)
        log.warning("%s: %s", self.environment_name(live.number), failure.message)
        starting = live.state == "starting"
        self._unsettle(live, failure)
        # Whoever it served, or may have waited for its start, is told in its own words.
        told = {
            request: failure.message
            for request, one in self._pending.items()
            if one.live is live or (starting and one.live is None)
        }
        self._words = told
        self._perform(self._policy.broken(self._means.clock.now(), live.number, failure.cause))
        self._words = {}

    def _enter(self, live: Live, state: State) -> None:
        live.state, live.since = state, self._means.clock.now()

    async def _settle(self, counts: Callable[[Live], bool]) -> None:
        """Wait for what is starting. Raises EnvironmentFailed if one of them does not come up."""
        settling = Settling(counts, asyncio.get_running_loop().create_future())
        self._settlings.append(settling)
        settling.check(self._lives.values())
        try:
            await settling.future
        finally:
            self._settlings.remove(settling)

    def _check_settled(self) -> None:
        for settling in self._settlings:
            settling.check(self._lives.values())

    def _unsettle(self, live: Live, failure: EnvironmentFailed) -> None:
        for settling in self._settlings:
            settling.fail(live, failure)

    def _check_retired(self) -> None:
        if self._retired and not self._retired.done() and not self._pending:
            self.closed = True  # no request comes between this and the end
            self._retired.set_result(None)

    def _row(
        self, pending: Pending, reply: Reply | None, error: InvocationError | None, model_ns: int
    ) -> InvocationRow:
        stream = pending.invocation.stream
        if error is not None and stream is not None and stream.opened.done():
            error = faults.in_stream(error)
        assigned = pending.assignment
        name = self.environment_name(assigned.environment) if assigned else ""
        return invocation_row(self.place, self.variant, pending, name, reply, error, model_ns)

    def _commit(
        self,
        pending: Pending,
        row: InvocationRow,
        reply: Reply | None,
        error: InvocationError | None,
    ) -> None:
        served = Served(row, None if error else reply, error)
        self._check_retired()
        written = self._means.write(row)
        written.add_done_callback(partial(_hand_over, pending.future, served))


def is_header(*values: str) -> bool:
    """Whether what a container gave can be sent as the values of headers."""
    return all(len(value) <= MAX_HEADER and value.isprintable() for value in values)


def _hand_over(
    answer: asyncio.Future[Served], served: Served, written: asyncio.Future[None]
) -> None:
    if answer.done():  # its caller has gone
        return
    failure = written.exception()
    if failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(served)


def _capacity(variant: Variant) -> Capacity:
    if variant.serverless:
        serverless = variant.serverless
        return Capacity(serverless.max_concurrency, serverless.provisioned_concurrency)
    assert variant.instances is not None
    return Capacity(variant.instances.count)


async def _stopped(live: Live) -> None:
    if live.starting:
        live.starting.cancel()
        await asyncio.wait({live.starting})
    if live.environment:
        await live.environment.stop()
