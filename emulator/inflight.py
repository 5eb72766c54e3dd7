"""A request on its way, an environment that is alive, and who waits for some to come up, as a host
keeps them, and the ledger's row that an invocation becomes. Decides nothing, awaits nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from emulator.billing import serverless_billed_ms
from emulator.core import Assign
from emulator.endpoints import Variant
from emulator.errors import InvocationError
from emulator.faults import Place
from emulator.ledger import InvocationRow
from emulator.sandbox.protocol import Environment, EnvironmentFailed, Invocation, Reply, Setup

NO_SETUP = Setup(0, 0)
State = Literal["starting", "idle", "busy"]


@dataclass(frozen=True, slots=True)
class Served:
    """The end of one invocation: the container's reply or an error, and its ledger row."""

    row: InvocationRow
    reply: Reply | None = None
    error: InvocationError | None = None

    @property
    def setup_ns(self) -> int:
        return self.row.provision_ns + self.row.runtime_ns + self.row.load_ns


@dataclass(slots=True)
class Pending:
    """A request on its way. `_mono` instants are of the monotonic clock, to measure with."""

    request_id: str
    invocation: Invocation
    future: asyncio.Future[Served]
    arrived_at: int
    arrived_mono: int
    inference_id: str = ""
    modelled_ns: int = 0  # overhead of a latency profile, before it arrived
    assigned_at: int = 0
    assigned_mono: int = 0
    assignment: Assign | None = None
    live: Live | None = None
    reply: Reply | None = None  # given, and held back for the variant's share of a CPU


@dataclass(slots=True)
class Live:
    """One environment, from the moment its start was asked for."""

    number: int
    provisioned: bool
    started_at: int
    state: State = "starting"
    since: int = 0
    served: int = 0
    calls: int = 0  # that it has been given and has not answered
    provision_ns: int = 0
    environment: Environment | None = None
    starting: asyncio.Task[None] | None = None

    @property
    def setup(self) -> Setup:
        return self.environment.setup if self.environment else NO_SETUP


@dataclass(slots=True, eq=False)
class Settling:
    """Somebody waits until every environment that `counts` has come up."""

    counts: Callable[[Live], bool]
    future: asyncio.Future[None]

    def check(self, lives: Iterable[Live]) -> None:
        if not self.future.done() and not any(map(self._missing, lives)):
            self.future.set_result(None)

    def fail(self, live: Live, failure: EnvironmentFailed) -> None:
        """The environment is gone."""
        if self._missing(live) and not self.future.done():
            self.future.set_exception(failure)

    def _missing(self, live: Live) -> bool:
        return live.state == "starting" and self.counts(live)


def answered_bytes(pending: Pending, reply: Reply | None) -> int:
    """What the container gave: of a stream also what came before it broke."""
    stream = pending.invocation.stream
    return (stream.size if stream else 0) + (len(reply.body) if reply else 0)


def invocation_row(
    place: Place,
    variant: Variant,
    pending: Pending,
    environment: str,
    reply: Reply | None,
    error: InvocationError | None,
    model_ns: int,
) -> InvocationRow:
    """What the ledger keeps of an invocation. `model_ns` is what its environment worked, and
    `environment` its name, empty if none was assigned.

    OverheadLatency is everything else between arrival and answer, a cold start included, as
    CloudWatch counts it for serverless endpoints (docs/fidelity.md). A delay that the virtual
    clock did not wait for counts too, and so does what a latency profile says came before.
    """
    assigned, live = pending.assignment, pending.live
    cold = bool(assigned and assigned.cold)
    setup = live.setup if live and cold else NO_SETUP
    provision_ns = live.provision_ns if live and cold else 0
    elapsed = time.monotonic_ns() - pending.arrived_mono
    worked = model_ns if assigned else 0
    setup_ns = provision_ns + setup.runtime_ns + setup.load_ns
    overhead_ns = max(elapsed - worked, setup_ns) + pending.modelled_ns
    serverless = variant.serverless
    return InvocationRow(
        request_id=pending.request_id,
        at_ns=pending.arrived_at,
        endpoint=place.endpoint,
        variant=variant.name,
        persona=variant.persona.value,
        region=place.region,
        environment=environment,
        status=error.status if error else 200,
        error_code=(error.code or str(error.status)) if error else "",
        cold_start=cold,
        provisioned=bool(assigned and assigned.provisioned),
        memory_mb=serverless.memory_mb if serverless else 0,
        instance_type=variant.instances.instance_type if variant.instances else "",
        request_bytes=len(pending.invocation.body),
        response_bytes=answered_bytes(pending, reply),
        bytes_billed=assigned is not None,
        queue_ns=max(0, pending.assigned_mono - pending.arrived_mono - setup_ns) if assigned else 0,
        provision_ns=provision_ns,
        runtime_ns=setup.runtime_ns,
        load_ns=setup.load_ns,
        model_ns=worked,
        overhead_ns=overhead_ns,
        cpu_ns=reply.cpu_ns if reply else 0,
        peak_bytes=reply.peak_bytes if reply else 0,
        billed_ms=serverless_billed_ms(worked, 0, False) if serverless else 0,
        billed_startup_ms=serverless_billed_ms(worked, setup_ns, True) if serverless else 0,
        inference_id=pending.inference_id,
        account=place.account,
    )
