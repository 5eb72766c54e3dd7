"""The endpoints of one server: found for a request, created, updated, evicted, deleted.

What is asked for is checked here, against the records and the quotas; how it is done is
`lifecycle.py`. Everything runs on the server's event loop; what copies models does so in threads.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emulator import catalogue, endpoints, personas, profiles
from emulator.address import Home, Key
from emulator.catalogue import Tables
from emulator.clock import Clock
from emulator.config import Config
from emulator.conversions import Conversions
from emulator.copies import Copies, Objects
from emulator.core import Persona
from emulator.delays import Delays
from emulator.endpoints import (
    BUNDLED,
    IN_PROGRESS,
    SERVING,
    Deployed,
    Deployment,
    Endpoint,
    EndpointConfig,
    InstanceConfig,
    Model,
    Quotas,
    Record,
    Request,
    ServerlessConfig,
    Status,
    Tags,
    Variant,
)
from emulator.errors import (
    InvocationError,
    ModelNotReadyException,
    SetupError,
    ValidationError,
    ValidationException,
)
from emulator.fleet import Fleets
from emulator.journal import Journal
from emulator.ledger import Ledger
from emulator.lifecycle import Hosted, Lifecycle
from emulator.live import LiveVariant, Means
from emulator.logbook import Logbook
from emulator.metrics import Metrics
from emulator.registry import Registry, arn_of, exists
from emulator.sandbox.protocol import Environment, Sandbox, Stats

log = logging.getLogger("lukewarm.hosting")
environments = logging.getLogger("lukewarm.environment")

SHIPPED_MODEL = Path(__file__).resolve().parent.parent / "model" / "artifacts" / "fashion-mnist"
ROLE = "role/lukewarm"  # of models that are made without one
Sources = Mapping[str, tuple[Path, Mapping[str, str]]]
Meter = tuple[Key, str, str, str, int, int]


class Hosting:
    """All endpoints of one server."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        ledger: Ledger,
        metrics: Metrics,
        sandbox: Sandbox,
        objects: Objects,
        book: Logbook,
    ) -> None:
        self.config, self.clock, self.ledger, self.sandbox = config, clock, ledger, sandbox
        self.metrics, self.objects, self._book = metrics, objects, book
        self.home = Home(config.account, config.region)
        self.registry = Registry(ledger)
        state = config.state_dir.resolve()
        self._conversions = Conversions(state / "conversions", config.isolation)
        self._copies = Copies(state / "models", config.model_bytes, objects)
        self._journal = Journal(ledger, metrics.observe)
        self.tables = Tables.of(config.price_folder)
        self.profile = profiles.load(config.profile)
        self.refusals = self.profile.refusals(config.seed) if self.profile else None
        delays = Delays(config.cold_start, config.seed, self.profile)
        means = Means(
            clock, sandbox, self._journal.write, self._hold, delays, self.profile, self._log
        )
        fleets = Fleets(config, self._conversions, means)
        self._lifecycle = Lifecycle(
            clock, self.registry, self._copies, fleets, sandbox, self._forgotten
        )
        self._endpoints = self._lifecycle.hosted
        self._reserved: dict[Key, tuple[Variant, ...]] = {}  # names being made ready
        self._changing = asyncio.Lock()  # held by a reset, and for a moment by a creation
        self._owed: deque[Meter] = deque()  # meters that the ledger could not take yet

    # -- life of the server -------------------------------------------------------------------

    async def open(self) -> None:
        """Bring back what was kept, and make the two endpoints of a first start."""
        await self._conversions.open()
        self.registry.load(self.home)
        await self._lifecycle.clean()  # what a crash left unfinished
        for record in self.registry.all(Endpoint):
            self._lifecycle.restore(record)
        if not self.registry.initialised:
            await self._create_defaults()

    async def _create_defaults(self) -> None:
        """One endpoint of each persona for the model that comes along, within the quotas."""
        name = "fashion-mnist"
        variant = Variant("AllTraffic", name, instances=InstanceConfig("ml.t2.medium"))
        quotas, made = self._quotas(), []
        if quotas.instances:
            made.append((f"{name}-realtime", variant))
        if quotas.serverless_endpoints:
            serverless = ServerlessConfig(
                min(4096, quotas.serverless_memory_mb // 1024 * 1024),
                min(10, quotas.serverless_concurrency),
            )
            variant = Variant("AllTraffic", name, serverless=serverless)
            made.append((f"{name}-serverless", variant))
        for endpoint, variant in made:
            if Key(self.home, endpoint) not in self._endpoints:  # a first start was cut short
                await self._create(endpoint, [variant], {name: (SHIPPED_MODEL, {})})
        self.registry.initialise()

    async def close(self) -> None:
        """Stop every environment and reject what is still in flight; the server before us has
        waited for answers."""
        await self._lifecycle.cancel()
        await self._conversions.close()
        await _close(self.hosted)
        await self._journal.drain()
        self._copies.close()
        await self.sandbox.close()

    @property
    def settling(self) -> bool:
        """Whether an environment is starting or an endpoint is being changed."""
        return self._lifecycle.busy or any(
            variant.settling
            for hosted in self._endpoints.values()
            for fleet in hosted.fleets
            for variant in fleet.variants.values()
        )

    @property
    def waiting_for(self) -> list[str]:
        """The endpoints that cannot answer yet."""
        if self._changing.locked():
            return ["the server"]
        return [key.name for key, hosted in self._endpoints.items() if not hosted.settled]

    async def reset(self) -> None:
        """Back to a first start: no history, no endpoints but the two defaults. Time stays."""
        async with self._changing:
            while self._reserved:  # creations that are copying their models
                await asyncio.sleep(0.01)
            gone = self.hosted
            self._endpoints.clear()  # from now on nobody finds them
            await self._lifecycle.cancel()
            await _close(gone)
            await self._journal.drain()
            for hosted in gone:
                self.metrics.forget(hosted.key)
            self._owed.clear()
            self.registry.clear()
            await self._copies.clear()
            await self._book.reset()
            await self._create_defaults()

    # -- models and configurations ------------------------------------------------------------

    def create_model(self, key: Key, request: Request, tags: Tags) -> Model:
        """Keep a model as CreateModel describes it. Raises ValidationException."""
        self.registry.check_new(Model, key)
        model = Model(key, self.clock.now(), request, tags)
        self.registry.put(model)
        return model

    def create_config(self, key: Key, request: Request, tags: Tags) -> EndpointConfig:
        """Keep a configuration as CreateEndpointConfig describes it. Raises ValidationException
        for one that no endpoint can have."""
        self.registry.check_new(EndpointConfig, key)
        config = EndpointConfig(key, self.clock.now(), request, tags)
        endpoints.check_variants(config.variants)
        for variant in config.variants:
            _check_instance_type(variant)
            self.registry.find(Model, Key(key.home, variant.model))
        self.registry.put(config)
        return config

    # -- endpoints ----------------------------------------------------------------------------

    def create_endpoint(
        self, key: Key, config: str, tags: Tags, options: Request | None
    ) -> Endpoint:
        """Create an endpoint from a configuration; Creating until its models have loaded.

        Raises ValidationException, NotFound or ResourceLimitExceeded.
        """
        self._check_unchanging()
        self._check_free(key)
        deployment = self._deployment(key.home, config)
        self._check_quotas(key, deployment)
        now = self.clock.now()
        record = Endpoint(key, now, now, deployment, tags=tags, deployment_config=options)
        self._lifecycle.create(record)
        return record

    def update_endpoint(
        self,
        key: Key,
        config: str,
        retained: frozenset[str],
        options: Request | None,
    ) -> None:
        """Have another configuration take over without a pause. `retained` names what the
        variants keep of their own: DesiredWeight, DesiredInstanceCount.

        Raises ValidationException, NotFound or ResourceLimitExceeded.
        """
        hosted = self._changeable(key)
        current = hosted.record.current
        target = _retaining(self._deployment(key.home, config), current, retained)
        if target.serverless and not current.serverless:
            raise ValidationException(
                f'Cannot update endpoint "{arn_of(Endpoint, key)}": a real-time endpoint cannot '
                "become a serverless one. Create another endpoint."
            )
        self._check_quotas(key, target)
        self._lifecycle.update(hosted, target, options)

    def rescale_endpoint(self, key: Key, wanted: Sequence[Variant]) -> None:
        """Change the weights and capacities of variants in place. Raises ValidationException,
        NotFound or ResourceLimitExceeded."""
        hosted = self._changeable(key)
        current = hosted.record.current
        changed = {variant.name: variant for variant in wanted}
        for variant in wanted:
            endpoints.check_variant(variant)
        target = replace(
            current,
            variants=tuple(
                replace(one, variant=changed.get(one.variant.name, one.variant))
                for one in current.variants
            ),
        )
        self._check_quotas(key, target)
        self._lifecycle.rescale(hosted, target)

    async def settle(self, key: Key) -> None:
        """Wait until nothing is being done to an endpoint any more, for EMULATOR_SETTLE_S at
        most."""
        until = time.monotonic() + self.config.settle_s
        moving = {*IN_PROGRESS, Status.DELETING}
        while (record := self.registry.get(Endpoint, key)) and record.status in moving:
            if time.monotonic() >= until:
                return
            await asyncio.sleep(0.01)

    def delete_endpoint(self, key: Key) -> None:
        """Take an endpoint out of service; its billing history, its configuration and its models
        stay. Raises NotFound, or ValidationException while it is being changed."""
        hosted = self.find(key)
        _refuse_in_progress(hosted)
        self._lifecycle.delete(hosted)

    async def create(self, name: str, variants: Sequence[Variant], sources: Sources) -> Endpoint:
        """Create an endpoint together with its configuration, of the same name, and the models
        given, in one step and in the server's own region.

        `sources` maps a model's name to where it is and its container's environment; a variant may
        name a model that exists. Returns with the status Creating as soon as the models are
        copied. Raises ValidationException, ResourceLimitExceeded, or SetupError for a model that
        cannot be used as it is.
        """
        async with self._changing:  # not in the middle of a reset
            creating = asyncio.create_task(self._create(name, variants, sources))
            await asyncio.sleep(0)  # the name is taken from here on
        return await creating

    async def _create(self, name: str, variants: Sequence[Variant], sources: Sources) -> Endpoint:
        key = Key(self.home, name)
        self._check_bundle(key, variants, sources)
        self._reserved[key] = tuple(variants)
        try:
            with self._lifecycle.copying():
                records, deployment = self._bundle(key, variants, sources)
                copied = [
                    replace(one, directory=str(await self._copies.obtain(one.container, self.home)))
                    for one in deployment.variants
                ]
                self._check_unbundled(key, sources)  # what has come meanwhile
                deployment = replace(deployment, variants=tuple(copied))
                now = self.clock.now()
                record = Endpoint(key, now, now, deployment)
                self._lifecycle.create(record, *records)
            return record
        finally:
            del self._reserved[key]

    def _check_bundle(self, key: Key, variants: Sequence[Variant], sources: Sources) -> None:
        endpoints.check_name(key.name, "endpointName")
        self._check_free(key)
        endpoints.check_variants(variants)
        for _, variables in sources.values():
            endpoints.check_variables(variables)
            personas.runtime(self.config, variables)
        for variant in variants:
            if variant.instances:
                catalogue.instance_type(variant.instances.instance_type)  # raises if unknown
            if variant.model not in sources:
                self.registry.find(Model, Key(key.home, variant.model))
        endpoints.check_quotas(variants, self._held(key), self._quotas())
        self._check_unbundled(key, sources)

    def _check_unbundled(self, key: Key, sources: Sources) -> None:
        """Raises ValidationException for names that somebody else's records have."""
        config = self.registry.get(EndpointConfig, key)
        models = [self.registry.get(Model, Key(key.home, name)) for name in sources]
        for record in (config, *models):
            if record and BUNDLED not in record.tags:
                raise exists(type(record), record.key)

    def _bundle(
        self, key: Key, variants: Sequence[Variant], sources: Sources
    ) -> tuple[list[Record], Deployment]:
        now, home, tags = self.clock.now(), key.home, {BUNDLED: key.name}
        models: dict[str, Model] = {}
        for name, (source, variables) in sources.items():
            container = {"ModelDataUrl": str(source), "Environment": dict(variables)}
            request: dict[str, Any] = {
                "ModelName": name,
                "PrimaryContainer": container,
                "ExecutionRoleArn": f"arn:aws:iam::{home.account}:{ROLE}",
            }
            models[name] = Model(Key(home, name), now, request, tags)
        given = [endpoints.production_variant(variant) for variant in variants]
        request = {"EndpointConfigName": key.name, "ProductionVariants": given}
        config = EndpointConfig(key, now, request, tags)
        return [*models.values(), config], self._deployed(config, models)

    def delete(self, name: str) -> None:
        """Take an endpoint out of service, and forget what was made together with it; its billing
        history stays. Raises NotFound, or ValidationException while it is being changed."""
        hosted = self.find(Key(self.home, name))
        _refuse_in_progress(hosted)
        config = Key(self.home, hosted.record.current.config)
        self._lifecycle.delete(hosted, lambda: self._unused(config))

    def _unused(self, key: Key) -> list[Record]:
        """The configuration, and its models, if they are bundled and nothing else uses them."""
        config = self.registry.get(EndpointConfig, key)
        in_use = any(one.current.config == key.name for one in self.registry.of(Endpoint, key.home))
        if config is None or in_use or BUNDLED not in config.tags:
            return []
        needed = {
            variant.model
            for other in self.registry.of(EndpointConfig, key.home)
            if other.key != key
            for variant in other.variants
        }
        names = {variant.model for variant in config.variants} - needed
        models = [self.registry.get(Model, Key(key.home, name)) for name in names]
        return [config, *(model for model in models if model and BUNDLED in model.tags)]

    def evict(self, name: str) -> int:
        """Unload the idle environments of a serverless endpoint; how many were ended.

        Raises NotFound, or ValidationException if it is always warm.
        """
        hosted = self.find(Key(self.home, name))
        variants = [one.variant for one in hosted.record.current.variants]
        if any(variant.persona is Persona.REALTIME for variant in variants):
            raise ValidationException(
                f"The endpoint {name} is a real-time endpoint, which is always warm; only a "
                "serverless endpoint can be evicted."
            )
        return sum(variant.evict() for variant in hosted.live.values())

    def find(self, key: Key) -> Hosted:
        """The endpoint of that name. Raises NotFound."""
        if key not in self._endpoints:
            self.registry.find(Endpoint, key)  # raises
            raise ValidationException(f'The endpoint "{key.name}" is not there yet.')
        return self._endpoints[key]

    @property
    def hosted(self) -> list[Hosted]:
        return list(self._endpoints.values())

    def get(self, key: Key) -> Hosted | None:
        """The endpoint of that name, if there is one. Any thread may ask."""
        return self._endpoints.get(key)

    def variant(self, key: Key, target: str) -> LiveVariant:
        """The live variant that takes the next request. Raises ValidationError, ModelNotReady."""
        hosted = self._endpoints.get(key)
        status = hosted.record.status if hosted else Status.DELETING
        if hosted is None or status is Status.DELETING:
            raise ValidationError(f"Endpoint {key.name} of account {key.home.account} not found.")
        live = hosted.live
        if status not in SERVING or not live:
            raise _not_in_service(hosted.record)
        if not target:
            return hosted.fleet.choose()
        if target not in live:
            raise ValidationError(
                f"Variant {target} of endpoint {key.name} of account {key.home.account} "
                f"not found; it has {', '.join(live)}."
            )
        return live[target]

    def _deployment(self, home: Home, name: str) -> Deployment:
        return self._deployed(self.registry.find(EndpointConfig, Key(home, name)), {})

    def _deployed(self, config: EndpointConfig, made: Mapping[str, Model]) -> Deployment:
        """What a configuration leads to. Raises ValidationException for what is not hosted here."""
        for member in ("AsyncInferenceConfig", "ShadowProductionVariants", "ExplainerConfig"):
            if config.request.get(member):
                raise ValidationException(
                    f"The endpoint configuration {config.key.name} has {member}, which is not "
                    "hosted here: leave it out."
                )
        variants = []
        for variant in config.variants:
            known = made.get(variant.model)
            model = known or self.registry.find(Model, Key(config.key.home, variant.model))
            container = model.container
            personas.runtime(self.config, container.variables)
            variants.append(Deployed(variant, container))
        return Deployment(config.key.name, tuple(variants))

    def _changeable(self, key: Key) -> Hosted:
        """Raises NotFound, or ValidationException unless the endpoint can be updated now."""
        hosted = self.find(key)
        _refuse_in_progress(hosted)
        if (status := hosted.record.status) not in SERVING:
            raise ValidationException(
                f'Cannot update endpoint "{arn_of(Endpoint, key)}" with status {status.value}; '
                "it can only be deleted."
            )
        return hosted

    def _check_free(self, key: Key) -> None:
        self.registry.check_new(Endpoint, key)
        if any(arn_of(Endpoint, one) == arn_of(Endpoint, key) for one in self._reserved):
            raise exists(Endpoint, key)

    def _check_unchanging(self) -> None:
        if self._changing.locked():
            raise ValidationException("The server is being reset; try again in a moment.")

    def _check_quotas(self, key: Key, wanted: Deployment) -> None:
        variants = [one.variant for one in wanted.variants]
        endpoints.check_quotas(variants, self._held(key), self._quotas())

    def _held(self, but: Key) -> list[Variant]:
        """The variants of all other endpoints of that account and region that have not failed."""
        held = [
            one.variant
            for record in self.registry.of(Endpoint, but.home)
            if record.key != but and record.status is not Status.FAILED
            for one in (record.target or record.current).variants
        ]
        reserved = (each for key, each in self._reserved.items() if key.home == but.home)
        return [*held, *(variant for each in reserved for variant in each)]

    def _quotas(self) -> Quotas:
        return Quotas(
            self.config.serverless_concurrency_quota,
            self.config.serverless_memory_quota_mb,
            self.config.serverless_endpoints_quota,
            self.config.instances_quota,
        )

    # -- what runs and what it holds ----------------------------------------------------------

    def beat(self) -> None:
        """Bring what is billed by time up to now. Raises sqlite3.Error if that cannot be kept."""
        while self._owed:
            self.ledger.hold(*self._owed[0])
            self._owed.popleft()
        self.ledger.beat(self.clock.now())

    def _hold(self, endpoint: Key, variant: str, kind: str, sku: str, units: int, now: int) -> None:
        """Start or end a meter, now or as soon as the ledger can be written again."""
        self._owed.append((endpoint, variant, kind, sku, units, now))
        try:
            self.beat()
        except sqlite3.Error as error:
            log.error("A meter of %s cannot be kept yet: %s.", endpoint.name, error)

    async def _forgotten(self, key: Key) -> None:
        await self._journal.drain()  # the last rows belong to the series that is forgotten
        self.metrics.forget(key)

    def _log(self, endpoint: Key, variant: str, environment: str, line: str) -> None:
        """One line of an environment's output."""
        environments.info("%s/%s/%s | %s", endpoint.name, variant, environment, line)
        now = self.clock.now()
        self._book.write(endpoint.home, endpoint.name, variant, environment, now, line)

    async def used(self, hosted: Iterable[Hosted]) -> dict[Environment, Stats]:
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
                variant.place.key,
                variant.variant.name,
                live.state,
                used.get(live.environment, nothing).footprint_bytes if live.environment else 0,
            )
            for hosted in self.hosted
            for variant in hosted.live.values()
            for live in variant.lives
        )

    @property
    def memory_enforced(self) -> bool:
        """Whether the backend can hold environments to their memory on this machine."""
        return self.sandbox.name != "inline" and sys.platform == "linux"


async def _close(all_hosted: Iterable[Hosted]) -> None:
    """Close every fleet, whatever happens to the others."""
    fleets = [fleet for hosted in all_hosted for fleet in hosted.fleets]
    await asyncio.gather(*(fleet.close() for fleet in fleets))


def _refuse_in_progress(hosted: Hosted) -> None:
    if hosted.record.status in IN_PROGRESS:
        arn = arn_of(Endpoint, hosted.key)
        raise ValidationException(f'Cannot update in-progress endpoint "{arn}".')


def _check_instance_type(variant: Variant) -> None:
    if variant.instances:
        try:
            catalogue.instance_type(variant.instances.instance_type)
        except SetupError as error:
            raise ValidationException(str(error)) from error


def _retaining(target: Deployment, current: Deployment, retained: frozenset[str]) -> Deployment:
    """The target, where its variants keep what is retained of the current ones."""
    variants = []
    for one in target.variants:
        variant, old = one.variant, current.named(one.variant.name)
        if old and "DesiredWeight" in retained:
            variant = replace(variant, weight=old.variant.weight)
        both = variant.instances and old and old.variant.instances
        if both and variant.instances and "DesiredInstanceCount" in retained:
            variant = replace(variant, instances=replace(variant.instances, count=both.count))
        variants.append(replace(one, variant=variant))
    return replace(target, variants=tuple(variants))


def _not_in_service(record: Endpoint) -> InvocationError:
    name, account = record.key.name, record.key.home.account
    if record.current.serverless and record.status is Status.CREATING:
        return ModelNotReadyException(
            f"The endpoint {name} is still being provisioned; try again in a moment."
        )
    if record.status in SERVING:
        return ModelNotReadyException(
            f"The endpoint {name} is coming back after a restart; try again in a moment."
        )
    text = f"Endpoint {name} of account {account} is not in service: {record.status.value}."
    return ValidationError(f"{text} {record.failure_reason}".strip())
