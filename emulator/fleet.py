"""The live variants of one deployment, brought into service and out of it together.

A blue/green update has two fleets for a while: the one that serves and the one that comes up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emulator import personas
from emulator.address import Key
from emulator.config import Config
from emulator.contract import contract
from emulator.conversions import Conversions, Outcome
from emulator.core import Runtime
from emulator.endpoints import Deployed, Deployment
from emulator.errors import SetupError
from emulator.faults import Place
from emulator.live import LiveVariant, Means, Terms
from emulator.realtime import Draw, choose_variant
from emulator.sandbox.protocol import EnvironmentFailed, Spec

log = logging.getLogger("lukewarm.fleet")

Failure = tuple[LiveVariant, EnvironmentFailed]


@dataclass(slots=True)
class Fleet:
    """Live variants by name, what each runs on, and where their models are."""

    variants: dict[str, LiveVariant] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    draw: Draw = field(default_factory=lambda: Draw(0))
    directories: frozenset[str] = frozenset()

    def choose(self) -> LiveVariant:
        """The variant that takes the next request."""
        live = list(self.variants.values())
        if len(live) == 1:
            return live[0]
        return live[choose_variant([one.variant.weight for one in live], self.draw)]

    async def launch(self, warm: bool) -> Failure | None:
        """Bring up all variants at once; the first failure, if there is one."""
        live = list(self.variants.values())
        ends = await asyncio.gather(*(one.launch(warm) for one in live), return_exceptions=True)
        for variant, end in zip(live, ends, strict=True):
            if isinstance(end, EnvironmentFailed):
                return variant, end
            if isinstance(end, BaseException):
                raise end
        return None

    def meter(self) -> None:
        """From now on what the variants hold is billed."""
        for variant in self.variants.values():
            variant.meter()

    def retire(self) -> asyncio.Future[list[None]]:
        """From now on nothing that they hold is billed; returns once nothing is in flight."""
        return asyncio.gather(*(variant.retire() for variant in self.variants.values()))

    async def close(self) -> None:
        """Close every variant, whatever happens to the others."""
        closing = (variant.close() for variant in self.variants.values())
        for end in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(end, Exception):
                log.error("A variant could not be closed cleanly.", exc_info=end)


class Fleets:
    """Makes the fleets of one server."""

    def __init__(self, config: Config, conversions: Conversions, means: Means) -> None:
        self._config, self._conversions, self._means = config, conversions, means

    async def make(self, key: Key, deployment: Deployment) -> Fleet:
        """A fleet for models that are here, not launched yet. Settles what each variant runs on,
        and converts nothing where TensorFlow is to run everything. Raises SetupError for a
        container that is not served here."""
        directories = frozenset(one.directory for one in deployment.variants)
        fleet = Fleet(draw=Draw(self._config.seed), directories=directories)
        for one in deployment.variants:
            outcome = await self._outcome(key, one)
            fleet.outcomes[one.variant.name] = outcome
            fleet.variants[one.variant.name] = self._live(key, one, outcome)
        return fleet

    async def _outcome(self, key: Key, one: Deployed) -> Outcome:
        directory, container = Path(one.directory), one.container
        try:
            found = await asyncio.to_thread(
                contract, directory, container.image, container.variables
            )
            if found.program:
                return Outcome(program=found.program)
        except SetupError:
            if container.image:
                raise
            # Without an image, what cannot be served says so when it is loaded.
        if personas.runtime(self._config, container.variables) is Runtime.TENSORFLOW:
            return Outcome()
        outcome = await self._conversions.of(directory)
        if outcome.runtime is Runtime.TENSORFLOW:
            log.warning("%s/%s stays on TensorFlow: %s", key.name, one.variant.name, outcome.note)
        return outcome

    def _live(self, key: Key, one: Deployed, outcome: Outcome) -> LiveVariant:
        variant, variables = one.variant, one.container.variables
        place = Place(key.home.region, key.home.account, key.name, variant.name)
        persona = personas.host(self._config, variant, variables)
        spec = Spec(
            label=key.name,
            model_dir=Path(one.directory),
            conversion=outcome.directory,
            program=outcome.program,
            memory_bytes=persona.memory_bytes,
            warm_up=persona.warm_up,
            batch=persona.batch,
            compiled=persona.compiled,
            variables=variables,
        )
        profile = self._means.profile
        terms = Terms(
            persona.payload_bytes,
            persona.cpu_share,
            profile.latency(variant.persona, self._config.seed, f"{key.name}/{variant.name}")
            if profile
            else None,
        )
        return LiveVariant(place, variant, persona.policy, spec, terms, self._means)


def runtimes(outcomes: Mapping[str, Outcome]) -> Iterable[Runtime]:
    """What the variants of a fleet run on, each once."""
    return {outcome.runtime for outcome in outcomes.values()}
