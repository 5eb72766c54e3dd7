"""The training jobs of one server: created, run one process each, stopped, kept.

A job's time is the server's clock, or what has really passed since it was created where the clock
stood still: how long a script runs is measured, and billed, under both clocks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping

from emulator.address import Key
from emulator.billing import UsageKind
from emulator.channels import Channels, refused
from emulator.clock import Clock
from emulator.config import Config
from emulator.endpoints import Tags
from emulator.errors import (
    ResourceInUse,
    ResourceLimitExceeded,
    ResourceNotFound,
    ValidationException,
)
from emulator.jobs import JobStatus, Stage, TrainingJob, moved, over
from emulator.jobs import Request as JobRequest
from emulator.ledger import Ledger, Window
from emulator.logbook import Logbook
from emulator.registry import Registry, arn_of
from emulator.sandbox.scratch import remove
from emulator.toolkit import BASE, HOST, Machine, Training
from emulator.trainingrun import Run, Shop

log = logging.getLogger("lukewarm.training")

REFUSED: Mapping[str, str] = {
    "ServerlessJobConfig": "jobs without instances",
    "ModelPackageConfig": "model packages",
    "MlflowConfig": "MLflow",
}


class Trainings:
    """All training jobs of one server."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        ledger: Ledger,
        registry: Registry,
        channels: Channels,
        book: Logbook,
        url: str,
    ) -> None:
        """`url` is where the server is, for scripts that have a network."""
        self.registry = registry
        self._config, self._clock, self._ledger = config, clock, ledger
        self._channels = channels
        self._directory = config.state_dir.resolve() / "training"
        self._machine = Machine(os.cpu_count() or 1, config.python or sys.executable)
        self._shop = Shop(config, clock, ledger, channels, book, self._machine, self._keep, url)
        self._runs: dict[Key, Run] = {}
        self._creating: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """End what the server before us left running. The registry has been loaded."""
        for job in self.registry.all(TrainingJob):
            if not job.over:
                self.registry.put(self._cut_short(job))
        if self._directory.is_dir():
            await self._channels.apart(remove, self._directory)

    async def close(self) -> None:
        """End every job that runs; none of them can go on later."""
        await self.reset()
        self._channels.close()

    async def reset(self) -> None:
        """End every job; their records go with the registry's."""
        for run in self._runs.values():
            run.abandon()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def create(self, key: Key, request: JobRequest, tags: Tags) -> TrainingJob:
        """Start a job; InProgress until its script has ended and its results are stored.

        Raises ResourceInUse, ResourceLimitExceeded, or ValidationException for what cannot be
        run here or has no data.
        """
        if self.registry.get(TrainingJob, key) or key in self._creating:
            raise ResourceInUse(
                "Job name must be unique within an AWS account and region, and a job with this "
                f"name already exists ({arn_of(TrainingJob, key)})"
            )
        training = self._checked(key, request)
        self._creating.add(key)
        try:
            await self._check_addresses(key, request, training)
            self._check_quota(key, request)
            now = self._clock.now()
            job = moved(TrainingJob(key, now, request, tags), Stage.STARTING, now)
            self.registry.put(job)
        finally:
            self._creating.discard(key)
        self._start(job, training)
        return job

    def find(self, key: Key, error: type[ValidationException | ResourceNotFound]) -> TrainingJob:
        """Raises `error` in AWS's words."""
        job = self.registry.get(TrainingJob, key)
        if job is None:
            raise error("Requested resource not found.")
        return job

    def stop(self, key: Key) -> None:
        """Have a job end; it may still store its results. Raises ResourceNotFound, or
        ValidationException for one that has ended."""
        job = self.find(key, ResourceNotFound)
        run = self._runs.get(key)
        if job.over or run is None:
            raise ValidationException(
                "The request was rejected because the training job is in status "
                f"{job.status.value}."
            )
        if job.status is not JobStatus.STOPPING:
            self.registry.put(moved(job, Stage.STOPPING, run.now()))
            run.stop()

    def delete(self, key: Key) -> None:
        """Forget a job that has ended; what it used stays on the bill. Raises ResourceNotFound or
        ResourceInUse."""
        job = self.find(key, ResourceNotFound)
        if not job.over or key in self._runs:
            raise ResourceInUse(
                f"The training job {key.name} is in status {job.status.value}: stop it first."
            )
        self.registry.remove(job)

    # -- what may be run ----------------------------------------------------------------------

    def _checked(self, key: Key, request: JobRequest) -> Training:
        resources = request.get("ResourceConfig", {})
        if "AlgorithmSpecification" not in request:
            raise ValidationException("A training job needs an AlgorithmSpecification.")
        if "InstanceType" not in resources:
            raise ValidationException(
                "A training job needs an InstanceType in its ResourceConfig; groups of instances "
                "are not run here."
            )
        if (count := resources.get("InstanceCount", 1)) != 1:
            raise ValidationException(
                f"The training job {key.name} asks for {count} instances; here there is one "
                "machine: set InstanceCount to 1."
            )
        for member, what in REFUSED.items():
            if request.get(member):
                raise ValidationException(f"{member}: {what} are not run here; leave it out.")
        mode = request["AlgorithmSpecification"]["TrainingInputMode"]
        names = [one["ChannelName"] for one in request.get("InputDataConfig", ())]
        for channel in request.get("InputDataConfig", ()):
            if reason := refused(channel, mode):
                raise ValidationException(reason)
            if names.count(channel["ChannelName"]) > 1:
                raise ValidationException(f"The channel {channel['ChannelName']} is given twice.")
        checkpoints = request.get("CheckpointConfig", {}).get("LocalPath", f"{BASE}/checkpoints")
        if checkpoints.rstrip("/") != f"{BASE}/checkpoints":
            raise ValidationException(
                f"Checkpoints are kept in {BASE}/checkpoints here, not in {checkpoints}."
            )
        _check_metrics(request["AlgorithmSpecification"].get("MetricDefinitions", ()))
        return Training(key, arn_of(TrainingJob, key), request, self._machine)

    async def _check_addresses(self, key: Key, request: JobRequest, training: Training) -> None:
        role = request["RoleArn"]
        for channel in training.channels:
            url = channel["DataSource"]["S3DataSource"]["S3Uri"]
            await self._channels.check(url, key.home, role)
        if not training.entrypoint and not training.submitted.startswith(f"{BASE}/"):
            await self._channels.check(training.submitted, key.home, role)
        await self._channels.check_output(request["OutputDataConfig"]["S3OutputPath"], key.home)
        if checkpoints := request.get("CheckpointConfig"):
            await self._channels.check_output(checkpoints["S3Uri"], key.home)

    def _check_quota(self, key: Key, request: JobRequest) -> None:
        wanted = request["ResourceConfig"]["InstanceType"]
        jobs = self.registry.of(TrainingJob, key.home)
        used = sum(job.instance_type == wanted and not job.over for job in jobs)
        limit = self._config.instances_quota
        if used >= limit:
            raise ResourceLimitExceeded(
                f"The account-level service limit '{wanted} for training job usage' is {limit} "
                f"Instances, with current utilization of {used} Instances and a request delta of "
                "1 Instances. Please use AWS Service Quotas to request an increase for this quota."
                " If AWS Service Quotas is not available, contact AWS support to request an "
                "increase for this quota."
            )

    # -- running ------------------------------------------------------------------------------

    def _start(self, job: TrainingJob, training: Training) -> None:
        key = job.key
        folder = self._directory / key.home.account / key.home.region / key.name
        run = self._runs[key] = Run(self._shop, job, training, folder)
        task = asyncio.get_running_loop().create_task(self._follow(key, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, key: Key, run: Run) -> None:
        try:
            await run.carry_out()
        except Exception:
            log.exception("A fault of ours in the training job %s.", key.name)
        finally:
            del self._runs[key]

    def _keep(self, change: Callable[[TrainingJob], TrainingJob], key: Key) -> TrainingJob:
        """Change the record of a job that may have been changed meanwhile. Raises sqlite3.Error."""
        job = change(self.registry.find(TrainingJob, key))
        self.registry.put(job)
        return job

    def _cut_short(self, job: TrainingJob) -> TrainingJob:
        """A job whose server has ended. Its meter was closed at the last beat."""
        home = job.key.home
        window = Window(home.account, home.region, job.key.name, HOST, job.started, 1 << 62)
        held = self._ledger.units(UsageKind.TRAINING, window) if job.started else []
        ended = max([job.modified, *(until for _, until, *_ in held)])
        reason = "InternalServerError: The server ended while the job ran. Please try again."
        return over(job, Stage.FAILED, ended, reason)


def _check_metrics(definitions: Iterable[Mapping[str, str]]) -> None:
    for one in definitions:
        try:
            re.compile(one["Regex"])
        except re.error as error:
            raise ValidationException(
                f"The regular expression {one['Regex']!r} of the metric {one['Name']} cannot be "
                f"used: {error}."
            ) from None
