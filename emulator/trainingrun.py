"""One training job from its data to its results: its stages, its record, its process."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from emulator import toolkit
from emulator.address import Key
from emulator.billing import UsageKind
from emulator.channels import ARCHIVE, Channels, pack
from emulator.clock import Clock
from emulator.config import Config
from emulator.core import MILLISECOND, SECOND
from emulator.errors import SetupError
from emulator.jobs import Metric, Stage, TrainingJob, moved, over
from emulator.ledger import Ledger
from emulator.logbook import TRAINING, Logbook, Stream
from emulator.sandbox.processes import Child
from emulator.sandbox.scratch import remove
from emulator.sandbox.surroundings import scrubbed
from emulator.sandbox.trainer import Order, Outcome
from emulator.toolkit import Machine, Training
from emulator.trainingroom import Room, servable

log = logging.getLogger("lukewarm.training")

TICK_S = 0.2  # how soon a job over its time is noticed
FAREWELL_S = 15.0  # beyond the grace, for what has to be swept up
FAILURE_BYTES = 4096
RETRY_S = 1.0
ABANDONED = "InternalServerError: The server was stopped while the job ran. Please try again."
T = TypeVar("T")
Change = Callable[[TrainingJob], TrainingJob]


@dataclass(frozen=True, slots=True)
class Shop:
    """What the jobs of a server are run with. `keep` changes and keeps the record of a job."""

    config: Config
    clock: Clock
    ledger: Ledger
    channels: Channels
    book: Logbook
    machine: Machine
    keep: Callable[[Change, Key], TrainingJob]
    url: str  # the server's


class Run:
    """The run of one job."""

    def __init__(self, shop: Shop, job: TrainingJob, training: Training, folder: Path) -> None:
        self.job = job
        self._shop, self._training, self._folder = shop, training, folder
        self._room = Room(folder, job, training, shop.config, shop.machine, shop.url)
        self._origin_ns = time.monotonic_ns()
        self._ending = asyncio.Event()
        self._abandoned = self._late = False
        created_s = job.created // SECOND
        self._stream = Stream(TRAINING, job.key.name, f"{toolkit.HOST}-{created_s}")

    def now(self) -> int:
        """The job's time, in nanoseconds since the Unix epoch."""
        passed = time.monotonic_ns() - self._origin_ns
        return max(self._shop.clock.now(), self.job.created + passed)

    def stop(self) -> None:
        """Ask the script to end; it has a while."""
        self._ending.set()

    def abandon(self) -> None:
        """End it at once: the server does."""
        self._abandoned = True
        self._ending.set()

    async def carry_out(self) -> None:
        """Run the job to its end, whatever that is, and keep it."""
        try:
            stage, reason = await self._stages()
        except SetupError as error:
            stage, reason = Stage.FAILED, f"ClientError: {error}"
        except (OSError, shutil.Error) as error:
            stage, reason = Stage.FAILED, f"InternalServerError: {error}."
        except Exception as error:
            log.exception("A fault of ours in the training job %s.", self.job.key.name)
            stage, reason = Stage.FAILED, f"InternalServerError: {error}."
        if self._abandoned:
            stage, reason = Stage.FAILED, ABANDONED
        await self._settle(lambda: self._end(stage, reason))
        await self._shop.channels.apart(remove, self._folder)

    async def _stages(self) -> tuple[Stage, str]:
        await self._settle(self._begin)
        order = await self._unless_ending(self._prepare())
        if order is None:
            return Stage.STOPPED, ""
        await self._turn(Stage.TRAINING)
        outcome = await self._execute(order)
        if self._abandoned:
            return Stage.FAILED, ""
        asked = self._ending.is_set()
        if self._training.image and "tensorflow" in self._training.image:
            for warning in servable(self._room.at(toolkit.MODEL)):
                self._say(warning)
        await self._turn(Stage.UPLOADING, outcome)
        await self._deliver()
        if self._late:
            return Stage.MAX_RUNTIME_EXCEEDED, ""
        if asked:
            return Stage.STOPPED, ""
        if outcome.code:
            return Stage.FAILED, self._failure(order, outcome)
        return Stage.COMPLETED, ""

    # -- the record ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """From here on it is billed."""
        now = self.now()
        self._hold(1, now)
        self.job = self._shop.keep(
            lambda job: replace(moved(job, Stage.DOWNLOADING, now), started=now), self.job.key
        )

    def _end(self, stage: Stage, reason: str) -> None:
        now = self.now()
        ended = self._shop.keep(lambda job: over(job, stage, now, reason), self.job.key)
        if ended.started:
            self._hold(0, ended.started + ended.billed_s * SECOND)
        self.job = ended

    async def _turn(self, stage: Stage, outcome: Outcome | None = None) -> None:
        now = self.now()
        metrics = tuple(
            Metric(name, value, at_ms * MILLISECOND)
            for name, (value, at_ms) in (outcome.metrics if outcome else {}).items()
        )

        def turned() -> None:
            self.job = self._shop.keep(
                lambda job: replace(moved(job, stage, now), metrics=metrics), self.job.key
            )

        await self._settle(turned)

    def _hold(self, units: int, now: int) -> None:
        kind, sku = UsageKind.TRAINING, self.job.instance_type
        self._shop.ledger.hold(self.job.key, toolkit.HOST, kind, sku, units, now)

    async def _settle(self, work: Callable[[], None]) -> None:
        """Do it as soon as the ledger can be written; a server that stops does not wait."""
        told = False
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                if not told:
                    log.error("%s cannot be kept: %s. Trying on.", self.job.key.name, error)
                told = True
                if self._abandoned:
                    return None
                await asyncio.sleep(RETRY_S)

    # -- before -------------------------------------------------------------------------------

    async def _prepare(self) -> Order:
        """Make the job's folder, with its data and its code in it. Raises SetupError."""
        job, channels = self.job, self._shop.channels
        home = job.key.home
        await self._shop.channels.apart(self._room.furnish)
        for channel in self._training.channels:
            url = channel["DataSource"]["S3DataSource"]["S3Uri"]
            await channels.bring(
                url, home, self._room.at(f"{toolkit.DATA}/{channel['ChannelName']}")
            )
        if (kept := self._checkpoints()) is not None:
            with suppress(SetupError):  # there may be none yet
                await channels.bring(kept, home, self._room.at(toolkit.CHECKPOINTS))
        if not self._training.entrypoint:
            url = self._training.submitted
            if url.startswith(f"{toolkit.BASE}/"):  # a channel has brought it
                url = str(self._room.at(url))
            limit = self._shop.config.model_bytes
            await channels.bring_code(url, home, self._room.at(toolkit.CODE), limit)
            self._room.check_code()
        return self._room.order(self._shop.book.path(home, self._stream), self.now())

    # -- the script ---------------------------------------------------------------------------

    async def _execute(self, order: Order) -> Outcome:
        """Have the script run, until it ends or has to. Raises SetupError if nothing tells how."""
        path = self._folder / "order.json"
        await self._shop.channels.apart(order.write, path)
        with (self._folder / "trainer.log").open("wb") as output:
            arguments = [str(path), str(os.getpid())]
            surroundings = scrubbed(os.environ, self._folder)
            module = "emulator.sandbox.trainer"
            child = Child(module, arguments, [], output.fileno(), surroundings, self._folder)
        await self._watch(child)
        try:
            return Outcome.read(self._folder / "outcome.json")
        except (OSError, ValueError, TypeError):
            if self._ending.is_set():  # it was asked to end before it could hear that
                return Outcome(0, 128 + signal.SIGTERM, "", "", {})
            said = (self._folder / "trainer.log").read_text(errors="replace").strip()[-300:]
            raise OSError(f"the job's process ended {child.gone.result()}: {said}") from None

    async def _watch(self, child: Child) -> None:
        ending = asyncio.create_task(self._ending.wait())
        either: list[asyncio.Future[Any]] = [child.gone, ending]
        longest_ns = self.job.longest_s * SECOND
        try:
            while not child.gone.done() and not self._ending.is_set():
                await asyncio.wait(either, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                if not child.gone.done() and self.now() - self.job.started > longest_ns:
                    self._late = True
                    self._ending.set()
        finally:
            ending.cancel()
        patience = self._shop.config.training_stop_s + FAREWELL_S
        until = time.monotonic() + patience
        asked = -1
        while not child.gone.done():
            number = signal.SIGQUIT if self._abandoned else signal.SIGTERM
            if number != asked:
                os.kill(child.pid, number)
                asked = number
            if time.monotonic() > until:
                child.kill()
            await asyncio.wait({child.gone}, timeout=TICK_S)

    def _failure(self, order: Order, outcome: Outcome) -> str:
        if self._training.entrypoint:
            written = _written(self._room.at(toolkit.FAILURE))
        else:
            last = outcome.step == len(order.steps) - 1
            kind = "ExecuteUserScriptError" if last else "InstallRequirementsError"
            written = toolkit.script_error(kind, outcome.code, outcome.error, outcome.command)
        return toolkit.failure(written, outcome.code)

    # -- after --------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        """Store the results where they are wanted. Raises SetupError or OSError."""
        home, channels = self.job.key.home, self._shop.channels
        place = output_place(self.job)
        model, data = self._room.at(toolkit.MODEL), self._room.at(toolkit.OUTPUT_DATA)
        if self.job.request["OutputDataConfig"].get("CompressionType") == "NONE":
            await self._deliver_files(model, f"{place}/model")
        else:
            archive = self._folder / "model.tar.gz"
            await self._shop.channels.apart(pack, model, archive)
            await channels.deliver(archive, f"{place}/model.tar.gz", home, ARCHIVE)
        if any(data.iterdir()):
            archive = self._folder / "output.tar.gz"
            await self._shop.channels.apart(pack, data, archive)
            await channels.deliver(archive, f"{place}/output.tar.gz", home, ARCHIVE)
        if (kept := self._checkpoints()) is not None:
            await self._deliver_files(self._room.at(toolkit.CHECKPOINTS), kept)

    async def _deliver_files(self, folder: Path, place: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                url = f"{place.rstrip('/')}/{path.relative_to(folder)}"
                home = self.job.key.home
                await self._shop.channels.deliver(path, url, home, "binary/octet-stream")

    # -- small things -------------------------------------------------------------------------

    def _checkpoints(self) -> str | None:
        given: Mapping[str, Any] = self.job.request.get("CheckpointConfig", {})
        return given.get("S3Uri")

    def _say(self, line: str) -> None:
        now = max(self.now(), self._shop.clock.now())
        self._shop.book.write(self.job.key.home, *self._stream, now, line)

    async def _unless_ending(self, work: Awaitable[T]) -> T | None:
        """The result, or None if the job is to end before."""
        doing = asyncio.ensure_future(work)
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait({doing})
            return None
        return doing.result()


def output_place(job: TrainingJob) -> str:
    """The address below which the results of a job are."""
    path: str = job.request["OutputDataConfig"]["S3OutputPath"]
    return f"{path.rstrip('/')}/{job.key.name}/output"


def _written(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(FAILURE_BYTES).decode("utf-8", "replace")
