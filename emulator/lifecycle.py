"""An endpoint's way through its statuses: created, updated, rescaled, deleted, brought back.

Each operation is kept in the records first and carried out behind the caller's back; one that a
stop or a crash of the server cut short is taken up again at the next start, so that no endpoint
stays in between. An update is blue/green: the fleet that serves goes on until the new one is in
service, and what the old one still has in flight is answered before it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emulator import faults
from emulator.address import Home, Key
from emulator.clock import Clock
from emulator.copies import Copies
from emulator.core import Cause
from emulator.endpoints import Deployed, Deployment, Endpoint, Record, Request, Status
from emulator.errors import SetupError
from emulator.fleet import Failure, Fleet, Fleets, runtimes
from emulator.live import LiveVariant
from emulator.registry import Registry
from emulator.sandbox.protocol import EnvironmentFailed, Sandbox

log = logging.getLogger("lukewarm.lifecycle")

Others = Callable[[], Iterable[Record]]
RETRY_S = 1.0  # between attempts to write what has to be written


@dataclass(slots=True)
class Hosted:
    """An endpoint and what runs for it: the fleet that serves, the one of an update, and those that
    still answer what they had in flight when another took over."""

    key: Key
    registry: Registry
    fleet: Fleet = field(default_factory=Fleet)
    coming: Fleet | None = None
    leaving: list[Fleet] = field(default_factory=list)
    ready: bool = False
    work: asyncio.Task[None] | None = None  # what is being done to it

    @property
    def record(self) -> Endpoint:
        return self.registry.find(Endpoint, self.key)

    @property
    def live(self) -> dict[str, LiveVariant]:
        """The variants that serve, by name."""
        return self.fleet.variants

    @property
    def fleets(self) -> list[Fleet]:
        return [self.fleet, *([self.coming] if self.coming else []), *self.leaving]

    @property
    def settled(self) -> bool:
        """Whether it answers, or has failed for good."""
        return self.ready or self.record.status is Status.FAILED


class Lifecycle:
    """The endpoints of one server and what is being done to them. `forgotten` is told of one that
    is gone."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        copies: Copies,
        fleets: Fleets,
        sandbox: Sandbox,
        forgotten: Callable[[Key], Coroutine[None, None, None]],
    ) -> None:
        self.hosted: dict[Key, Hosted] = {}
        self._clock, self._registry, self._copies = clock, registry, copies
        self._fleets, self._sandbox, self._forgotten = fleets, sandbox, forgotten
        self._tasks: set[asyncio.Task[None]] = set()
        self._copying = 0

    @property
    def busy(self) -> bool:
        """Whether anything is being done to any endpoint."""
        return bool(self._tasks)

    def restore(self, record: Endpoint) -> None:
        """Take an endpoint up where it was left."""
        hosted = self.hosted[record.key] = Hosted(record.key, self._registry)
        if record.status is Status.CREATING:
            self._begin(hosted, self._create(hosted))
        elif record.status is Status.DELETING:
            self._begin(hosted, self._take_down(hosted, tuple))
        elif record.status is not Status.FAILED:
            self._begin(hosted, self._bring_back(hosted))

    def create(self, record: Endpoint, *others: Record) -> None:
        """Keep a new endpoint, together with `others`, and load its models behind it. Raises
        sqlite3.Error, and nothing is kept then."""
        self._registry.put(*others, record)
        hosted = self.hosted[record.key] = Hosted(record.key, self._registry)
        log.info("%s is %s.", record.key.name, record.status.value)
        self._begin(hosted, self._create(hosted))

    def update(self, hosted: Hosted, target: Deployment, options: Request | None) -> None:
        """Have another deployment take over, as soon as it is in service."""
        self._turn(hosted, Status.UPDATING, target=target, deployment_config=options)
        self._begin(hosted, self._update(hosted))

    def rescale(self, hosted: Hosted, target: Deployment) -> None:
        """Change weights and capacities of what serves, without another fleet."""
        self._turn(hosted, Status.UPDATING, target=target)
        self._begin(hosted, self._rescale(hosted))

    def delete(self, hosted: Hosted, others: Others = tuple) -> None:
        """Take an endpoint out of service and forget it, and then what `others` names."""
        working = hosted.work and not hosted.work.done()
        if hosted.record.status is Status.DELETING and working:
            return
        self._turn(hosted, Status.DELETING)
        if hosted.work:  # it may still be coming back after a restart, or letting an old fleet end
            hosted.work.cancel()
        self._begin(hosted, self._take_down(hosted, others))

    async def cancel(self) -> None:
        """Leave everything where it is."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """While copies are made that no record names yet, none is removed."""
        self._copying += 1
        try:
            yield
        finally:
            self._copying -= 1

    async def clean(self, gone: Key | None = None) -> None:
        """Remove the copies of models that nothing runs but the endpoint that is gone."""
        if not self._copying:
            running = [
                fleet.directories
                for key, hosted in self.hosted.items()
                for fleet in hosted.fleets
                if key != gone
            ]
            deployments = [
                deployment
                for record in self._registry.all(Endpoint)
                for deployment in (record.current, record.target)
                if deployment and record.key != gone
            ]
            used = {one.directory for each in deployments for one in each.variants}
            try:
                await self._copies.keep(used.union(*running))
            except OSError as error:
                log.error("Copies of models that nothing runs could not be removed: %s.", error)

    # -- operations ---------------------------------------------------------------------------

    async def _create(self, hosted: Hosted) -> None:
        """Load the models for real; InService, or Failed with what they said."""
        try:
            await self._copy(hosted)
            hosted.fleet = await self._fleets.make(hosted.key, hosted.record.current)
        except SetupError as error:
            await self._fail(hosted, str(error))
            return
        failure = await hosted.fleet.launch(warm=True)
        if failure is not None:
            await self._fail(hosted, _reason(failure))
            return
        await self._persist(lambda: self._turn(hosted, Status.IN_SERVICE))
        hosted.fleet.meter()
        hosted.ready = True

    async def _fail(self, hosted: Hosted, reason: str) -> None:
        log.error("%s failed: %s", hosted.key.name, reason)
        fleet, hosted.fleet = hosted.fleet, Fleet(outcomes=hosted.fleet.outcomes)
        await fleet.close()
        await self._persist(lambda: self._turn(hosted, Status.FAILED, reason))
        await self.clean()

    async def _bring_back(self, hosted: Hosted) -> None:
        """A restart of the server: real-time instances load again, serverless ones are cold.

        An instance that does not come up is tried again by its policy; the endpoint stays, also
        without its model, for the next start. An update that was cut short is made once more; a
        fleet that was being rescaled starts with its new size.
        """
        record = hosted.record
        target = record.target if record.status is Status.UPDATING else None
        if target and target.rescales(record.current):
            await self._persist(
                lambda: self._turn(hosted, Status.IN_SERVICE, current=target, target=None)
            )
        try:
            await self._copy(hosted)
            hosted.fleet = await self._fleets.make(hosted.key, hosted.record.current)
        except SetupError as error:
            log.error("%s did not come back: %s", hosted.key.name, error)
            hosted.ready = True
            return
        hosted.fleet.meter()
        failure = await hosted.fleet.launch(warm=False)
        try:
            for runtime in runtimes(hosted.fleet.outcomes):
                await self._sandbox.open(runtime)
        except EnvironmentFailed as failed:
            failure = failure or (next(iter(hosted.live.values())), failed)
        if failure is not None and failure[1].cause is not Cause.CLOSED:
            log.error("%s did not come back: %s", hosted.key.name, failure[1].message)
        hosted.ready = True
        if hosted.record.status is Status.UPDATING:
            await self._update(hosted)
        elif hosted.record.status is Status.ROLLING_BACK:
            await self._roll_back(hosted, hosted.record.failure_reason)

    async def _update(self, hosted: Hosted) -> None:
        """Bring the new fleet up beside the old one and have it take over in one step."""
        try:
            await self._copy(hosted, coming=True)
            target = hosted.record.target
            assert target is not None
            coming = hosted.coming = await self._fleets.make(hosted.key, target)
        except SetupError as error:
            await self._roll_back(hosted, str(error))
            return
        failure = await coming.launch(warm=True)
        if failure is not None:
            await self._roll_back(hosted, _reason(failure))
            return
        await self._persist(
            lambda: self._turn(hosted, Status.IN_SERVICE, current=target, target=None)
        )
        old, hosted.fleet, hosted.coming, hosted.ready = hosted.fleet, coming, None, True
        hosted.leaving.append(old)
        retired = old.retire()  # its meters end before those of the same names begin
        coming.meter()
        await retired
        await old.close()
        hosted.leaving.remove(old)
        await self.clean()

    async def _rescale(self, hosted: Hosted) -> None:
        """Change what serves. What cannot be started is taken back."""
        record = hosted.record
        target = record.target
        assert target is not None
        if (failure := await self._resize(hosted, target)) is not None:
            reason = _reason(failure)
            await self._persist(lambda: self._turn(hosted, Status.ROLLING_BACK, reason))
            await self._take_back(hosted, record.current, reason)
            return
        await self._persist(
            lambda: self._turn(hosted, Status.IN_SERVICE, current=target, target=None)
        )

    async def _resize(self, hosted: Hosted, deployment: Deployment) -> Failure | None:
        """Have the variants become as large as they should; the first that cannot."""
        wanted = [
            (hosted.live[one.variant.name], one.variant)
            for one in deployment.variants
            if one.variant.name in hosted.live
        ]
        resizing = (live.resize(variant) for live, variant in wanted)
        ends = await asyncio.gather(*resizing, return_exceptions=True)
        for (live, _), end in zip(wanted, ends, strict=True):
            if isinstance(end, EnvironmentFailed):
                return live, end
            if isinstance(end, BaseException):
                raise end
        return None

    async def _take_back(self, hosted: Hosted, current: Deployment, reason: str) -> None:
        status = Status.IN_SERVICE
        if (failure := await self._resize(hosted, current)) is not None:
            log.error("%s could not be rolled back: %s", hosted.key.name, failure[1].message)
            status = Status.UPDATE_ROLLBACK_FAILED
        await self._persist(lambda: self._turn(hosted, status, reason, target=None))

    async def _roll_back(self, hosted: Hosted, reason: str) -> None:
        """Go on with the fleet that served all the time."""
        log.error("%s keeps its deployment: %s", hosted.key.name, reason)
        await self._persist(lambda: self._turn(hosted, Status.ROLLING_BACK, reason))
        coming, hosted.coming = hosted.coming, None
        if coming:
            await coming.close()
        await self._persist(lambda: self._turn(hosted, Status.IN_SERVICE, reason, target=None))
        await self.clean()

    async def _take_down(self, hosted: Hosted, others: Others) -> None:
        for fleet in hosted.fleets:
            await fleet.close()
        hosted.fleet, hosted.coming, hosted.leaving = Fleet(), None, []
        await self._forgotten(hosted.key)
        await self.clean(hosted.key)
        await self._persist(lambda: self._remove(hosted))
        await self._persist(lambda: self._registry.remove(*others()))

    def _remove(self, hosted: Hosted) -> None:
        self._registry.remove(hosted.record)
        self.hosted.pop(hosted.key, None)

    # -- what they are made of ----------------------------------------------------------------

    async def _copy(self, hosted: Hosted, coming: bool = False) -> None:
        """See to it that the models of what serves, or of what is coming, are here. Raises
        SetupError."""
        record = hosted.record
        deployment = record.target if coming and record.target else record.current
        with self.copying():
            variants = await asyncio.gather(
                *(self._copied(one, hosted.key.home) for one in deployment.variants)
            )
            if variants == list(deployment.variants):
                return
            copied = replace(deployment, variants=tuple(variants))
            change: dict[str, Any] = {"target": copied} if coming else {"current": copied}
            await self._persist(lambda: self._registry.put(replace(hosted.record, **change)))

    async def _copied(self, one: Deployed, home: Home) -> Deployed:
        if one.directory and Path(one.directory).is_dir():
            return one
        return replace(one, directory=str(await self._copies.obtain(one.container, home)))

    def _turn(self, hosted: Hosted, status: Status, reason: str = "", **changes: Any) -> None:
        """Change the status, and these members of the record with it. Raises sqlite3.Error if that
        cannot be kept."""
        record = replace(hosted.record, **changes)
        self._registry.put(record.turned(status, self._clock.now(), reason))
        log.info("%s is %s.", hosted.key.name, status.value)

    async def _persist(self, work: Callable[[], None]) -> None:
        """Do what has to be written, as soon as it can be."""
        while True:
            try:
                work()
                return
            except sqlite3.Error as error:
                log.error("The ledger cannot be written, trying again: %s.", error)
                await asyncio.sleep(RETRY_S)

    def _begin(self, hosted: Hosted, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._see_through(hosted, work))
        hosted.work = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, hosted: Hosted, work: Coroutine[None, None, None]) -> None:
        """Whatever happens, the endpoint ends up in a status from which something can be done."""
        try:
            await work
        except Exception as fault:
            log.exception("A fault of ours at %s.", hosted.key.name)
            reason = f"A fault of the emulator: {type(fault).__name__}: {fault}."
            if hosted.record.status is Status.CREATING:
                await self._fail(hosted, reason)
            elif hosted.record.status in (Status.UPDATING, Status.ROLLING_BACK):
                await self._roll_back(hosted, reason)


def _reason(failure: Failure) -> str:
    variant, failed = failure
    return faults.creation_failure(variant.place, failed.cause, failed.message)
