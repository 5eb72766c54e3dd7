"""Endpoints in service: creates, restores, invokes and deletes them, and answers what is hosted.

The only place where records, live variants and the ledger meet. Everything runs on the server's
event loop; what reads much of the ledger does so in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from emulator import artifacts, catalogue, endpoints, faults
from emulator.clock import Clock
from emulator.config import Config
from emulator.core import SECOND, Persona, Policy
from emulator.delays import Delays
from emulator.endpoints import (
    Endpoint,
    EndpointConfig,
    InstanceConfig,
    Model,
    Quotas,
    ServerlessConfig,
    Status,
    Variant,
)
from emulator.errors import (
    InvocationError,
    ModelNotReadyException,
    ValidationError,
    ValidationException,
)
from emulator.journal import Journal
from emulator.ledger import Ledger
from emulator.live import LiveVariant, Means, Terms
from emulator.metrics import Metrics
from emulator.realtime import Draw, RealTimePolicy, RealTimeRules, choose_variant
from emulator.sandbox.protocol import Environment, EnvironmentFailed, Sandbox, Spec, Stats
from emulator.serverless import ServerlessPolicy, ServerlessRules

log = logging.getLogger("lukewarm.hosting")

SHIPPED_MODEL = Path(__file__).resolve().parent.parent / "model" / "artifacts" / "fashion-mnist"
WORKERS_VARIABLE = "SAGEMAKER_MODEL_SERVER_WORKERS"  # the inference toolkit's own


@dataclass(slots=True)
class Hosted:
    """An endpoint and, once it goes into service, its live variants by name."""

    record: Endpoint
    config: EndpointConfig
    live: dict[str, LiveVariant] = field(default_factory=dict)
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
        self._journal = Journal(ledger, metrics.observe)
        self._means = Means(
            clock,
            sandbox,
            self._journal.write,
            self._hold,
            Delays(config.cold_start, config.seed),
            log_environment,
        )
        self._models: dict[str, Model] = {}
        self._configs: dict[str, EndpointConfig] = {}
        self._hosted: dict[str, Hosted] = {}
        self._reserved: dict[str, tuple[Variant, ...]] = {}  # names being made ready
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life of the server -------------------------------------------------------------------

    async def open(self) -> None:
        """Bring back what the ledger knows, or make the two endpoints of a first start."""
        for document in self.ledger.all("model"):
            model = endpoints.model_from(orjson.loads(document))
            self._models[model.name] = model
        for document in self.ledger.all("endpoint-config"):
            config = endpoints.config_from(orjson.loads(document))
            self._configs[config.name] = config
        records = [endpoints.endpoint_from(orjson.loads(d)) for d in self.ledger.all("endpoint")]
        if not records and not self._models:
            await self._create_defaults()
        for record in records:
            self._restore(record)

    async def _create_defaults(self) -> None:
        instances = InstanceConfig("ml.t2.medium", 1)
        serverless = ServerlessConfig(4096, 10)
        model = "fashion-mnist"
        await self.create(
            "fashion-mnist-realtime",
            [Variant("AllTraffic", model, instances=instances)],
            {model: (SHIPPED_MODEL, {})},
        )
        await self.create(
            "fashion-mnist-serverless",
            [Variant("AllTraffic", model, serverless=serverless)],
            {},
        )

    def _restore(self, record: Endpoint) -> None:
        hosted = Hosted(record, self._configs[record.config], draw=Draw(self.config.seed))
        self._hosted[record.name] = hosted
        if record.status is Status.CREATING:
            self._spawn(self._bring_up(hosted))
        elif record.status is Status.IN_SERVICE:
            self._spawn(self._bring_back(hosted))
        elif record.status is Status.DELETING:
            self._spawn(self._take_down(hosted))

    async def close(self) -> None:
        """Stop every environment; what is in flight is answered first, up to the grace period."""
        deadline = asyncio.get_running_loop().time() + self.config.grace_s
        while self.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for task in tuple(self._tasks):
            task.cancel()
        variants = [one for hosted in self._hosted.values() for one in hosted.live.values()]
        await asyncio.gather(*(variant.close() for variant in variants))
        self._journal.flush()
        await self.sandbox.close()

    @property
    def in_flight(self) -> int:
        return sum(v.in_flight for hosted in self._hosted.values() for v in hosted.live.values())

    @property
    def settling(self) -> bool:
        """Whether an environment is starting or an endpoint is being created or deleted."""
        return bool(self._tasks) or any(
            variant.settling for hosted in self._hosted.values() for variant in hosted.live.values()
        )

    # -- endpoints ----------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        variants: Sequence[Variant],
        models: Mapping[str, tuple[Path, Mapping[str, str]]],
    ) -> Endpoint:
        """Create an endpoint, its configuration of the same name, and the models given.

        `models` maps a model's name to where it is and its container's environment; a variant may
        name a model that exists. Returns at once with the status Creating. Raises
        ValidationException, ResourceLimitExceeded, or SetupError for a model that cannot be used.
        """
        self._check_new(name, variants, models)
        self._reserved[name.lower()] = tuple(variants)
        try:
            for model, (source, variables) in models.items():
                await self._add_model(model, source, variables)
        finally:
            del self._reserved[name.lower()]
        now = self.clock.now()
        config = EndpointConfig(name, now, tuple(variants))
        hosted = Hosted(Endpoint(name, name, now, now), config, draw=Draw(self.config.seed))
        self._configs[name] = config
        self._hosted[name] = hosted
        self._save("endpoint-config", name, config)
        self._save("endpoint", name, hosted.record)
        self._spawn(self._bring_up(hosted))
        return hosted.record

    def _check_new(
        self, name: str, variants: Sequence[Variant], models: Mapping[str, object]
    ) -> None:
        endpoints.check_name(name, "endpointName")
        if name.lower() in {*map(str.lower, self._hosted), *self._reserved}:
            raise ValidationException(
                f'Cannot create already existing endpoint "{self.arn("endpoint", name)}".'
            )
        endpoints.check_variants(variants)
        for variant in variants:
            if variant.instances:
                catalogue.instance_type(variant.instances.instance_type)  # raises if unknown
            if variant.model not in self._models and variant.model not in models:
                arn = self.arn("model", variant.model)
                raise ValidationException(f'Could not find model "{arn}".')
        held = [v for one in self._hosted.values() for v in one.config.variants]
        held += [v for reserved in self._reserved.values() for v in reserved]
        for variant in variants:
            endpoints.check_quotas(variant, held, self._quotas())

    def delete(self, name: str) -> None:
        """Take an endpoint out of service; its billing history stays.

        Raises ValidationException if there is none, or while it is being created.
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

        Raises ValidationException if there is no such endpoint, or if it is always warm.
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
        for task in tuple(self._tasks):
            task.cancel()
        variants = [one for hosted in self._hosted.values() for one in hosted.live.values()]
        await asyncio.gather(*(variant.close() for variant in variants))
        self._journal.flush()
        for name in self._hosted:
            self.metrics.forget(name)
        self._hosted.clear()
        self._configs.clear()
        self._models.clear()
        self.ledger.reset()
        shutil.rmtree(self._models_dir, ignore_errors=True)
        await self._create_defaults()

    @property
    def hosted(self) -> list[Hosted]:
        return list(self._hosted.values())

    def find(self, name: str) -> Hosted:
        """The endpoint of that name. Raises ValidationException if there is none."""
        if name not in self._hosted:
            raise ValidationException(f'Could not find endpoint "{self.arn("endpoint", name)}".')
        return self._hosted[name]

    def model_source(self, name: str) -> str:
        """Where the model came from, as it was given."""
        return self._models[name].source if name in self._models else ""

    def beat(self) -> None:
        """Bring what is billed by time up to now."""
        now = self.clock.now()
        self.ledger.beat(now)

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

    # -- invocations --------------------------------------------------------------------------

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

    # -- inside -------------------------------------------------------------------------------

    async def _bring_up(self, hosted: Hosted) -> None:
        """Creation: load the model for real; InService or Failed with what it said."""
        hosted.live = {v.name: self._go_live(hosted, v) for v in hosted.config.variants}
        for variant in hosted.live.values():
            try:
                await variant.launch(warm=True)
            except EnvironmentFailed as failure:
                reason = faults.creation_failure(variant.place, failure.cause, failure.message)
                await self._fail(hosted, reason)
                return
        hosted.ready = True
        self._turn(hosted, Status.IN_SERVICE)

    async def _bring_back(self, hosted: Hosted) -> None:
        """A restart of the server: real-time instances load again, serverless ones are cold.

        An instance that does not come up is tried again by its policy; the endpoint stays.
        """
        hosted.live = {v.name: self._go_live(hosted, v) for v in hosted.config.variants}
        for variant in hosted.live.values():
            try:
                await variant.launch(warm=False)
            except EnvironmentFailed as failure:
                log.error("%s did not come back: %s", hosted.record.name, failure.message)
        await self.sandbox.open()
        hosted.ready = True

    async def _fail(self, hosted: Hosted, reason: str) -> None:
        log.error("%s failed: %s", hosted.record.name, reason)
        await asyncio.gather(*(variant.close() for variant in hosted.live.values()))
        hosted.live = {}
        self._turn(hosted, Status.FAILED, reason)

    async def _take_down(self, hosted: Hosted) -> None:
        await asyncio.gather(*(variant.close() for variant in hosted.live.values()))
        name = hosted.record.name
        self._journal.flush()  # the last rows belong to the series that is forgotten below
        self._hosted.pop(name, None)
        self._configs.pop(hosted.config.name, None)
        self.ledger.delete("endpoint", name)
        self.ledger.delete("endpoint-config", hosted.config.name)
        self.metrics.forget(name)
        used = {v.model for config in self._configs.values() for v in config.variants}
        for variant in hosted.config.variants:
            if variant.model not in used:
                self._drop_model(variant.model)

    def _go_live(self, hosted: Hosted, variant: Variant) -> LiveVariant:
        model = self._models[variant.model]
        place = faults.Place(
            self.config.region, self.config.account, hosted.record.name, variant.name
        )
        spec = Spec(
            label=hosted.record.name,
            model_dir=Path(model.directory),
            memory_bytes=_memory_bytes(variant),
            warm_up=variant.persona is Persona.REALTIME,
            variables=model.variables,
        )
        policy = _POLICIES[variant.persona](self.config, variant, model)
        return LiveVariant(place, variant, policy, spec, self._terms(variant), self._means)

    def _terms(self, variant: Variant) -> Terms:
        if variant.serverless:
            share = variant.serverless.cpu_share if self.config.cpu_share else None
            return Terms(self.config.serverless_payload_bytes, self.config.bill_startup, share)
        return Terms(self.config.realtime_payload_bytes, self.config.bill_startup)

    def _turn(self, hosted: Hosted, status: Status, reason: str = "") -> None:
        hosted.record = hosted.record.turned(status, self.clock.now(), reason)
        self._save("endpoint", hosted.record.name, hosted.record)
        log.info("%s is %s.", hosted.record.name, status.value)

    async def _add_model(self, name: str, source: Path, variables: Mapping[str, str]) -> None:
        endpoints.check_name(name, "modelName")
        if name in self._models:
            raise ValidationException(
                f'Cannot create already existing model "{self.arn("model", name)}".'
            )
        directory = self._models_dir / hashlib.sha256(name.encode()).hexdigest()[:16]
        limit = self.config.model_bytes
        await asyncio.to_thread(artifacts.prepare, source, directory, limit)
        model = Model(name, str(directory), str(source), self.clock.now(), dict(variables))
        self._models[name] = model
        self._save("model", name, model)

    def _drop_model(self, name: str) -> None:
        model = self._models.pop(name, None)
        if model:
            self.ledger.delete("model", name)
            shutil.rmtree(model.directory, ignore_errors=True)

    @property
    def _models_dir(self) -> Path:
        return self.config.state_dir.resolve() / "models"

    def _save(self, kind: str, name: str, record: Model | EndpointConfig | Endpoint) -> None:
        self.ledger.put(kind, name, orjson.dumps(endpoints.document(record)))

    def _hold(self, endpoint: str, variant: str, kind: Any, sku: str, units: int, now: int) -> None:
        self.ledger.hold(endpoint, variant, self.config.region, kind, sku, units, now)

    def _quotas(self) -> Quotas:
        return Quotas(
            self.config.serverless_concurrency_quota,
            self.config.serverless_memory_quota_mb,
            self.config.serverless_endpoints_quota,
        )

    def arn(self, kind: str, name: str) -> str:
        return faults.Place(self.config.region, self.config.account, "", "").arn(kind, name)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _realtime(config: Config, variant: Variant, model: Model) -> Policy:
    assert variant.instances is not None
    workers = model.variables.get(WORKERS_VARIABLE, "1")
    return RealTimePolicy(
        RealTimeRules(
            instances=variant.instances.count,
            workers=min(64, int(workers)) if workers.isdigit() and int(workers) else 1,
            routing=variant.instances.routing,
            seed=config.seed,
            start_limit_ns=round(config.realtime_start_s * SECOND),
            answer_limit_ns=round(config.answer_limit_s * SECOND),
        )
    )


def _serverless(config: Config, variant: Variant, model: Model) -> Policy:
    assert variant.serverless is not None
    shortest, longest = config.keep_warm_s
    return ServerlessPolicy(
        ServerlessRules(
            max_concurrency=variant.serverless.max_concurrency,
            provisioned_concurrency=variant.serverless.provisioned_concurrency,
            keep_warm_ns=round(shortest * SECOND),
            keep_warm_longest_ns=round(longest * SECOND),
            seed=config.seed,
            start_limit_ns=round(config.serverless_start_s * SECOND),
            answer_limit_ns=round(config.answer_limit_s * SECOND),
        )
    )


_POLICIES: dict[Persona, Callable[[Config, Variant, Model], Policy]] = {
    Persona.REALTIME: _realtime,
    Persona.SERVERLESS: _serverless,
}


def _memory_bytes(variant: Variant) -> int:
    if variant.serverless:
        return variant.serverless.memory_bytes
    assert variant.instances is not None
    return catalogue.instance_type(variant.instances.instance_type).memory_bytes


def _not_in_service(hosted: Hosted, account: str) -> InvocationError:
    record = hosted.record
    serverless = any(variant.serverless for variant in hosted.config.variants)
    if serverless and record.status is Status.CREATING:
        return ModelNotReadyException(
            f"The endpoint {record.name} is still being provisioned; try again in a moment."
        )
    text = f"Endpoint {record.name} of account {account} is not in service: {record.status.value}."
    return ValidationError(f"{text} {record.failure_reason}".strip())


def log_environment(label: str, line: str) -> None:
    """One line of an environment's output, with endpoint/variant/environment in front."""
    logging.getLogger("lukewarm.environment").info("%s | %s", label, line)
