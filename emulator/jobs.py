"""Records of training jobs, and the way of one through its statuses. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from emulator.address import Home, Key
from emulator.core import SECOND

Request = Mapping[str, Any]
Tags = Mapping[str, str]

REASON = 1024  # characters of a FailureReason
MESSAGES = 256  # of the transitions of a job that are kept


class JobStatus(StrEnum):
    """TrainingJobStatus."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"


class Stage(StrEnum):
    """SecondaryStatus, as far as a job gets there here; the text is AWS's StatusMessage."""

    STARTING = "Starting"
    DOWNLOADING = "Downloading"
    TRAINING = "Training"
    UPLOADING = "Uploading"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    MAX_RUNTIME_EXCEEDED = "MaxRuntimeExceeded"

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES: Mapping[Stage, str] = {
    Stage.STARTING: "Preparing the instances for training",
    Stage.DOWNLOADING: "Downloading input data",
    Stage.TRAINING: "Training image download completed. Training in progress.",
    Stage.UPLOADING: "Uploading generated training model",
    Stage.STOPPING: "Stopping the training job",
    Stage.COMPLETED: "Training job completed",
    Stage.FAILED: "Training job failed",
    Stage.STOPPED: "Training job stopped",
    Stage.MAX_RUNTIME_EXCEEDED: "Training job runtime exceeded MaxRuntimeInSeconds provided",
}
STATUSES: Mapping[Stage, JobStatus] = {
    Stage.STOPPING: JobStatus.STOPPING,
    Stage.COMPLETED: JobStatus.COMPLETED,
    Stage.FAILED: JobStatus.FAILED,
    Stage.STOPPED: JobStatus.STOPPED,
    Stage.MAX_RUNTIME_EXCEEDED: JobStatus.STOPPED,
}
ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED})


@dataclass(frozen=True, slots=True)
class Transition:
    """A stage of a job: from when until when, in nanoseconds; 0 while it lasts."""

    stage: Stage
    began: int
    ended: int
    message: str


@dataclass(frozen=True, slots=True)
class Metric:
    """The last value of a metric that a script has printed, and when."""

    name: str
    value: float
    at: int


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training job. Instants in nanoseconds, 0 for not yet; `request` is CreateTrainingJob's
    without the tags."""

    key: Key
    created: int
    request: Request
    tags: Tags = field(default_factory=dict)
    status: JobStatus = JobStatus.IN_PROGRESS
    modified: int = 0
    started: int = 0  # from here on it is billed
    ended: int = 0
    billed_s: int = 0
    transitions: tuple[Transition, ...] = ()
    failure_reason: str = ""
    artifacts: str = ""  # where model.tar.gz is
    metrics: tuple[Metric, ...] = ()

    @property
    def stage(self) -> Stage:
        return self.transitions[-1].stage if self.transitions else Stage.STARTING

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def instance_type(self) -> str:
        found: str = self.request["ResourceConfig"]["InstanceType"]
        return found

    @property
    def longest_s(self) -> int:
        """MaxRuntimeInSeconds; a day where nothing is said."""
        return int(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400))


def moved(job: TrainingJob, stage: Stage, now: int, message: str = "") -> TrainingJob:
    """The job in its next stage."""
    *before, last = job.transitions or (None,)
    done = [*before, replace(last, ended=now)] if last else []
    begun = Transition(stage, now, now if STATUSES.get(stage) in ENDED else 0, message)
    return replace(
        job,
        status=STATUSES.get(stage, job.status),
        modified=now,
        transitions=(*done, begun)[-MESSAGES:],
    )


def over(job: TrainingJob, stage: Stage, now: int, reason: str = "") -> TrainingJob:
    """The job at its end: Completed, Failed, Stopped or MaxRuntimeExceeded. What is billed is the
    time since it started, in whole seconds."""
    billed_s = -(-(now - job.started) // SECOND) if job.started else 0
    ended = moved(job, stage, now)
    return replace(ended, ended=now, billed_s=billed_s, failure_reason=reason[:REASON])


def made(document: Mapping[str, Any]) -> TrainingJob:
    """The record that a document holds."""
    account, region, name = document["key"]
    transitions = (
        Transition(**{**one, "stage": Stage(one["stage"])}) for one in document["transitions"]
    )
    return TrainingJob(
        **{
            **document,
            "key": Key(Home(account, region), name),
            "status": JobStatus(document["status"]),
            "transitions": tuple(transitions),
            "metrics": tuple(Metric(**one) for one in document["metrics"]),
        }
    )
