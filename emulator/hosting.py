"""Endpoints in service: created, restored, found, evicted and deleted.

The only place where records, live variants and the ledger meet. Everything here runs on the
server's event loop; what copies or deletes models does so in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from emulator import catalogue, endpoints, faults, personas
from emulator.billing import UsageKind
from emulator.clock import Clock
from emulator.config import Config
from emulator.contract import contract
from emulator.conversions import Conversions, Outcome
from emulator.core import Cause, Persona, Runtime
from emulator.delays import Delays
from emulator.endpoints import (
    Endpoint,
    EndpointConfig,
    InstanceConfig,
    Quotas,
    ServerlessConfig,
    Status,
    Variant,
)
from emulator.errors import (
    InvocationError,
    ModelNotReadyException,
    NotFound,
    SetupError,
    ValidationError,
    ValidationException,
)
from emulator.journal import Journal
from emulator.ledger import Ledger
from emulator.live import LiveVariant, Means, Terms
from emulator.metrics import Metrics
from emulator.realtime import Draw, choose_variant
from emulator.registry import Registry, Sources
from emulator.sandbox.protocol import Environment, EnvironmentFailed, Sandbox, Spec, Stats

log = logging.getLogger("lukewarm.hosting")

SHIPPED_MODEL = Path(__file__).resolve().parent.parent / "model" / "artifacts" / "fashion-mnist"
RETRY_S = 1.0  # between attempts to write what has to be written
Meter = tuple[str, str, str, UsageKind, str, int, int]


@dataclass(slots=True)
class Hosted:
    """An endpoint and, once it goes into service, its live variants by name."""

    record: Endpoint
    config: EndpointConfig
    live: dict[str, LiveVariant] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # what each variant runs on
    draw: Draw = field(default_factory=lambda: Draw(0))
    ready: bool = False

    @property
    def settled(self) -> bool:
        """Whether it answers, or has failed for good."""
        return self.ready or self.record.status is Status.FAILED


class Hosting:
    """All endpoints of one server."""

    def __init__(
        self, config: Config, clock: Clock, ledger: Ledger, metrics: Metrics, sandbox: Sandbox
    ) -> None:
        self.config, self.clock, self.ledger, self.sandbox = config, clock, ledger, sandbox
        self.metrics = metrics
        models_dir = config.state_dir.resolve() / "models"
        self._conversions = Conversions(
            config.state_dir.resolve() / "conversions", config.isolation
        )
        self._registry = Registry(ledger, models_dir, config.model_bytes)
        self._journal = Journal(ledger, metrics.observe)
        delays = Delays(config.cold_start, config.seed)
        self._means = Means(
            clock, sandbox, self._journal.write, self._hold, delays, log_environment
        )
        self._hosted: dict[str, Hosted] = {}
        self._reserved: dict[str, tuple[Variant, ...]] = {}  # names being made ready
        self._changing = asyncio.Lock()  # held by a reset, and for a moment by a creation
        self._owed: deque[Meter] = deque()  # meters that the ledger could not take yet
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life of the server -------------------------------------------------------------------

    async def open(self) -> None:
        """Bring back what was kept, and make the two endpoints of a first start."""
        await self._conversions.open()
        for record in self._registry.load():
            self._restore(record)
        if not self._registry.initialised:
            await self._create_defaults()

    async def _create_defaults(self) -> None:
        """One endpoint of each persona for the model that comes along, within the quotas."""
        name = "fashion-mnist"
        instances = Variant("AllTraffic", name, instances=InstanceConfig("ml.t2.medium"))
        await self._create_default(f"{name}-realtime", instances)
        quotas = self._quotas()
        serverless = ServerlessConfig(
            min(4096, quotas.serverless_memory_mb // 1024 * 1024),
            min(10, quotas.serverless_concurrency),
        )
        if quotas.serverless_endpoints:
            await self._create_default(
                f"{name}-serverless", Variant("AllTraffic", name, serverless=serverless)
            )
        self._registry.initialise()

    async def _create_default(self, name: str, variant: Variant) -> None:
        known = variant.model in self._registry.models
        if name not in self._hosted:  # the first start may have been cut short
            sources: Sources = {} if known else {variant.model: (SHIPPED_MODEL, {})}
            await self._create(name, [variant], sources)

    def _restore(self, record: Endpoint) -> None:
        config = self._registry.configs[record.config]
        hosted = Hosted(record, config, draw=Draw(self.config.seed))
        self._hosted[record.name] = hosted
        if record.status is Status.CREATING:
            self._spawn(self._bring_up(hosted))
        elif record.status is Status.IN_SERVICE:
            self._spawn(self._bring_back(hosted))
        elif record.status is Status.DELETING:
            self._spawn(self._take_down(hosted))

    async def close(self) -> None:
        """Stop every environment and reject what is still in flight; the server before us has
        waited for answers."""
        for task in tuple(self._tasks):
            task.cancel()
        await self._conversions.close()
        await _close(self.hosted)
        await self._journal.drain()
        self._registry.close()
        await self.sandbox.close()

    @property
    def settling(self) -> bool:
        """Whether an environment is starting or an endpoint is being created or deleted."""
        return bool(self._tasks) or any(
            variant.settling for hosted in self._hosted.values() for variant in hosted.live.values()
        )

    @property
    def waiting_for(self) -> list[str]:
        """The endpoints that cannot answer yet."""
        if self._changing.locked():
            return ["the server"]
        return [name for name, hosted in self._hosted.items() if not hosted.settled]

    # -- endpoints ----------------------------------------------------------------------------

    async def create(self, name: str, variants: Sequence[Variant], sources: Sources) -> Endpoint:
        """Create an endpoint, its configuration of the same name, and the models given.

        `sources` maps a model's name to where it is and its container's environment; a variant may
        name a model that exists. Returns with the status Creating as soon as the models are
        copied. Raises ValidationException, ResourceLimitExceeded, or SetupError for a model that
        cannot be used as it is.
        """
        async with self._changing:  # not in the middle of a reset
            self._check_new(name, variants, sources)
            self._reserved[name.lower()] = tuple(variants)
        try:
            return await self._create(name, variants, sources)
        finally:
            del self._reserved[name.lower()]

    async def _create(self, name: str, variants: Sequence[Variant], sources: Sources) -> Endpoint:
        now = self.clock.now()
        config = EndpointConfig(name, now, tuple(variants))
        hosted = Hosted(Endpoint(name, name, now, now), config, draw=Draw(self.config.seed))
        await self._registry.add(hosted.record, config, sources, now)
        self._hosted[name] = hosted
        self._spawn(self._bring_up(hosted))
        return hosted.record

    def _check_new(self, name: str, variants: Sequence[Variant], sources: Sources) -> None:
        endpoints.check_name(name, "endpointName")
        if name.lower() in {*map(str.lower, self._hosted), *self._reserved}:
            raise ValidationException(
                f'Cannot create already existing endpoint "{self.arn("endpoint", name)}".'
            )
        endpoints.check_variants(variants)
        for _, variables in sources.values():
            endpoints.check_variables(variables)
            personas.runtime(self.config, variables)
        held = [v for one in self._hosted.values() for v in one.config.variants]
        held += [v for reserved in self._reserved.values() for v in reserved]
        for variant in variants:
            if variant.instances:
                catalogue.instance_type(variant.instances.instance_type)  # raises if unknown
            if variant.model not in self._registry.models and variant.model not in sources:
                arn = self.arn("model", variant.model)
                raise ValidationException(f'Could not find model "{arn}".')
            endpoints.check_quotas(variant, held, self._quotas())

    def delete(self, name: str) -> None:
        """Take an endpoint out of service; its billing history stays.

        Raises NotFound, or ValidationException while it is being created.
        """
        hosted = self.find(name)
        if hosted.record.status is Status.CREATING:
            raise ValidationException(
                f'Cannot update in-progress endpoint "{self.arn("endpoint", name)}".'
            )
        if hosted.record.status is not Status.DELETING:
            self._turn(hosted, Status.DELETING)
            self._spawn(self._take_down(hosted))

    def evict(self, name: str) -> int:
        """Unload the idle environments of a serverless endpoint; how many were ended.

        Raises NotFound, or ValidationException if it is always warm.
        """
        hosted = self.find(name)
        if any(variant.persona is Persona.REALTIME for variant in hosted.config.variants):
            raise ValidationException(
                f"The endpoint {name} is a real-time endpoint, which is always warm; only a "
                "serverless endpoint can be evicted."
            )
        return sum(variant.evict() for variant in hosted.live.values())

    async def reset(self) -> None:
        """Back to a first start: no history, no endpoints but the two defaults. Time stays."""
        async with self._changing:
            while self._reserved:  # creations that are copying their models
                await asyncio.sleep(0.01)
            for task in tuple(self._tasks):
                task.cancel()
            gone, self._hosted = self.hosted, {}  # from now on nobody finds them
            await _close(gone)
            await self._journal.drain()
            for hosted in gone:
                self.metrics.forget(hosted.record.name)
            self._owed.clear()
            await self._registry.clear()
            await self._create_defaults()

    def find(self, name: str) -> Hosted:
        """The endpoint of that name. Raises NotFound."""
        if name not in self._hosted:
            raise NotFound(f'Could not find endpoint "{self.arn("endpoint", name)}".')
        return self._hosted[name]

    @property
    def hosted(self) -> list[Hosted]:
        return list(self._hosted.values())

    def model_source(self, name: str) -> str:
        """Where the model came from, as it was given."""
        model = self._registry.models.get(name)
        return model.source if model else ""

    def variant(self, endpoint: str, target: str) -> LiveVariant:
        """The live variant that takes the next request. Raises ValidationError, ModelNotReady."""
        hosted = self._hosted.get(endpoint)
        if hosted is None or hosted.record.status is Status.DELETING:
            raise ValidationError(
                f"Endpoint {endpoint} of account {self.config.account} not found."
            )
        if hosted.record.status is not Status.IN_SERVICE or not hosted.live:
            raise _not_in_service(hosted, self.config.account)
        if target:
            if target not in hosted.live:
                raise ValidationError(
                    f"Variant {target} of endpoint {endpoint} of account {self.config.account} "
                    f"not found; it has {', '.join(hosted.live)}."
                )
            return hosted.live[target]
        live = list(hosted.live.values())
        if len(live) == 1:
            return live[0]
        return live[choose_variant([one.variant.weight for one in live], hosted.draw)]

    # -- what runs and what it holds ----------------------------------------------------------

    def beat(self) -> None:
        """Bring what is billed by time up to now. Raises sqlite3.Error if that cannot be kept."""
        while self._owed:
            self.ledger.hold(*self._owed[0])
            self._owed.popleft()
        self.ledger.beat(self.clock.now())

    def _hold(
        self, endpoint: str, variant: str, kind: UsageKind, sku: str, units: int, now: int
    ) -> None:
        """Start or end a meter, now or as soon as the ledger can be written again."""
        self._owed.append((endpoint, variant, self.config.region, kind, sku, units, now))
        try:
            self.beat()
        except sqlite3.Error as error:
            log.error("A meter of %s cannot be kept yet: %s.", endpoint, error)

    async def used(self, hosted: Sequence[Hosted]) -> dict[Environment, Stats]:
        """What the running environments use; measured in a thread, which some backends need."""
        running = [
            live.environment
            for one in hosted
            for variant in one.live.values()
            for live in variant.lives
            if live.environment
        ]
        return await asyncio.to_thread(lambda: {one: one.stats() for one in running})

    async def observe_environments(self) -> None:
        """Tell the metrics what runs now, before they are read."""
        used = await self.used(self.hosted)
        nothing = Stats(0, 0)
        self.metrics.environments(
            (
                variant.place.endpoint,
                variant.variant.name,
                live.state,
                used.get(live.environment, nothing).footprint_bytes if live.environment else 0,
            )
            for hosted in self._hosted.values()
            for variant in hosted.live.values()
            for live in variant.lives
        )

    @property
    def memory_enforced(self) -> bool:
        """Whether the backend can hold environments to their memory on this machine."""
        return self.sandbox.name != "inline" and sys.platform == "linux"

    def arn(self, kind: str, name: str) -> str:
        return faults.Place(self.config.region, self.config.account, "", "").arn(kind, name)

    # -- into service and out of it -----------------------------------------------------------

    async def _bring_up(self, hosted: Hosted) -> None:
        """Creation: load the models for real; InService or Failed with what they said."""
        await self._go_live(hosted)
        failure = await _launch(hosted, warm=True)
        if failure is not None:
            await self._fail(hosted, *failure)
            return
        await self._persist(lambda: self._turn(hosted, Status.IN_SERVICE))
        for variant in hosted.live.values():
            variant.meter()
        hosted.ready = True

    async def _bring_back(self, hosted: Hosted) -> None:
        """A restart of the server: real-time instances load again, serverless ones are cold.

        An instance that does not come up is tried again by its policy; the endpoint stays.
        """
        await self._go_live(hosted)
        if hosted.record.status is Status.DELETING:
            return
        for variant in hosted.live.values():
            variant.meter()
        failure = await _launch(hosted, warm=False)
        try:
            for runtime in {outcome.runtime for outcome in hosted.outcomes.values()}:
                await self.sandbox.open(runtime)
        except EnvironmentFailed as failed:
            failure = failure or (next(iter(hosted.live.values())), failed)
        if failure is not None and failure[1].cause is not Cause.CLOSED:
            log.error("%s did not come back: %s", hosted.record.name, failure[1].message)
        hosted.ready = True

    async def _fail(self, hosted: Hosted, variant: LiveVariant, failure: EnvironmentFailed) -> None:
        reason = faults.creation_failure(variant.place, failure.cause, failure.message)
        log.error("%s failed: %s", hosted.record.name, reason)
        await _close([hosted])
        hosted.live = {}
        await self._persist(lambda: self._turn(hosted, Status.FAILED, reason))

    async def _take_down(self, hosted: Hosted) -> None:
        await _close([hosted])
        await self._journal.drain()  # the last rows belong to the series that is forgotten below
        while True:
            try:
                await self._registry.remove(hosted.record)
                break
            except sqlite3.Error as error:
                log.error("%s cannot be forgotten yet: %s.", hosted.record.name, error)
                await asyncio.sleep(RETRY_S)
        self._hosted.pop(hosted.record.name, None)
        self.metrics.forget(hosted.record.name)

    async def _go_live(self, hosted: Hosted) -> None:
        """Settle what each variant runs on, and host them all, unless the endpoint has been deleted
        meanwhile. Does not wait where TensorFlow is to run everything."""
        name = hosted.record.name
        for variant in hosted.config.variants:
            hosted.outcomes[variant.name] = await self._outcome(name, variant)
        if hosted.record.status is not Status.DELETING:
            for variant in hosted.config.variants:
                outcome = hosted.outcomes[variant.name]
                hosted.live[variant.name] = self._live(name, variant, outcome)

    async def _outcome(self, endpoint: str, variant: Variant) -> Outcome:
        model = self._registry.models[variant.model]
        directory = Path(model.directory)
        with suppress(SetupError):  # what cannot be served says so when it is loaded
            if program := contract(directory, "", model.variables).program:
                return Outcome(program=program)
        if personas.runtime(self.config, model.variables) is Runtime.TENSORFLOW:
            return Outcome()
        outcome = await self._conversions.of(directory)
        if outcome.runtime is Runtime.TENSORFLOW:
            log.warning("%s/%s stays on TensorFlow: %s", endpoint, variant.name, outcome.note)
        return outcome

    def _live(self, endpoint: str, variant: Variant, outcome: Outcome) -> LiveVariant:
        model = self._registry.models[variant.model]
        place = faults.Place(self.config.region, self.config.account, endpoint, variant.name)
        persona = personas.host(self.config, variant, model)
        spec = Spec(
            label=endpoint,
            model_dir=Path(model.directory),
            conversion=outcome.directory,
            program=outcome.program,
            memory_bytes=persona.memory_bytes,
            warm_up=persona.warm_up,
            batch=persona.batch,
            compiled=persona.compiled,
            variables=model.variables,
        )
        terms = Terms(persona.payload_bytes, persona.cpu_share)
        return LiveVariant(place, variant, persona.policy, spec, terms, self._means)

    def _turn(self, hosted: Hosted, status: Status, reason: str = "") -> None:
        """Change the status, in the records first. Raises sqlite3.Error if that cannot be."""
        record = hosted.record.turned(status, self.clock.now(), reason)
        self._registry.update(record)
        hosted.record = record
        log.info("%s is %s.", record.name, status.value)

    async def _persist(self, work: Callable[[], None]) -> None:
        """Do what has to be written, as soon as it can be."""
        while True:
            try:
                work()
                return
            except sqlite3.Error as error:
                log.error("The ledger cannot be written, trying again: %s.", error)
                await asyncio.sleep(RETRY_S)

    def _quotas(self) -> Quotas:
        return Quotas(
            self.config.serverless_concurrency_quota,
            self.config.serverless_memory_quota_mb,
            self.config.serverless_endpoints_quota,
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("An endpoint's task ended with a fault of ours.", exc_info=error)


async def _launch(hosted: Hosted, warm: bool) -> tuple[LiveVariant, EnvironmentFailed] | None:
    """Bring up all variants at once; the first failure, if there is one."""
    live = list(hosted.live.values())
    ends = await asyncio.gather(*(one.launch(warm) for one in live), return_exceptions=True)
    for variant, end in zip(live, ends, strict=True):
        if isinstance(end, EnvironmentFailed):
            return variant, end
        if isinstance(end, BaseException):
            raise end
    return None


async def _close(all_hosted: Sequence[Hosted]) -> None:
    """Close every live variant, whatever happens to the others."""
    live = [variant for hosted in all_hosted for variant in hosted.live.values()]
    for end in await asyncio.gather(*(one.close() for one in live), return_exceptions=True):
        if isinstance(end, Exception):
            log.error("A variant could not be closed cleanly.", exc_info=end)


def _not_in_service(hosted: Hosted, account: str) -> InvocationError:
    record = hosted.record
    serverless = any(variant.serverless for variant in hosted.config.variants)
    if serverless and record.status is Status.CREATING:
        return ModelNotReadyException(
            f"The endpoint {record.name} is still being provisioned; try again in a moment."
        )
    if record.status is Status.IN_SERVICE:
        return ModelNotReadyException(
            f"The endpoint {record.name} is coming back after a restart; try again in a moment."
        )
    text = f"Endpoint {record.name} of account {account} is not in service: {record.status.value}."
    return ValidationError(f"{text} {record.failure_reason}".strip())


def log_environment(label: str, line: str) -> None:
    """One line of an environment's output, with endpoint/variant/environment in front."""
    logging.getLogger("lukewarm.environment").info("%s | %s", label, line)
