"""A training job from the command line: asked for, followed while it prints, stopped on Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.errors import SetupError

GROUP = "/aws/sagemaker/TrainingJobs"
IMAGE = "tensorflow-training"  # no image is run; this one's toolkit warns of what cannot be served
POLL_S = 0.3
ENDED = ("Completed", "Failed", "Stopped")
REMOTE = "s3://"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be trained."""

    name: str
    script: Path
    source_dir: Path | None = None
    channels: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    instance_type: str = "ml.m5.large"
    output: str = "."
    longest_s: int = 86_400

    @contextmanager
    def request(self, account: str) -> Iterator[dict[str, Any]]:
        """CreateTrainingJob's; the folder of a lone script is there as long as this lasts. Raises
        SetupError for what is not there."""
        if self.source_dir is not None:
            yield self._request(account, self._program(self.source_dir), self.source_dir)
            return
        if not self.script.is_file():
            raise SetupError(f"There is no script {self.script}.")
        with tempfile.TemporaryDirectory(prefix="lukewarm-train-") as folder:
            shutil.copy(self.script, folder)
            yield self._request(account, self.script.name, Path(folder))

    def _program(self, source_dir: Path) -> str:
        """Named from the folder, as estimators do it, or from here."""
        folder = source_dir.expanduser().resolve()
        for place in (folder / self.script, self.script.expanduser().resolve()):
            if place.is_file() and place.resolve().is_relative_to(folder):
                return str(place.resolve().relative_to(folder))
        raise SetupError(f"There is no script {self.script} in the folder {source_dir}.")

    def _request(self, account: str, program: str, code: Path) -> dict[str, Any]:
        metrics = [{"Name": name, "Regex": regex} for name, regex in self.metrics.items()]
        channels = [
            {
                "ChannelName": name,
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": address(value)}},
            }
            for name, value in self.channels.items()
        ]
        return {
            "TrainingJobName": self.name,
            "RoleArn": f"arn:aws:iam::{account}:role/lukewarm",
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                **({"MetricDefinitions": metrics} if metrics else {}),
            },
            "HyperParameters": {
                **{name: encoded(value) for name, value in self.hyperparameters.items()},
                "sagemaker_program": json.dumps(program),
                "sagemaker_submit_directory": json.dumps(address(str(code))),
            },
            **({"InputDataConfig": channels} if channels else {}),
            "OutputDataConfig": {"S3OutputPath": address(self.output)},
            "ResourceConfig": {
                "InstanceType": self.instance_type, "InstanceCount": 1, "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": self.longest_s},
        }  # fmt: skip


def address(place: str) -> str:
    """s3:// as it is; a path of this machine as file://."""
    return place if place.startswith(REMOTE) else Path(place).expanduser().resolve().as_uri()


def encoded(value: str) -> str:
    """A hyperparameter as SDKs write it: JSON."""
    try:
        json.loads(value)
    except ValueError:
        return json.dumps(value)
    return value


def pairs(given: Sequence[str], option: str, empty: bool = False) -> dict[str, str]:
    """NAME=VALUE options; `empty` allows an empty value. Raises SetupError for another form."""
    made = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals and (value or empty)):
            raise SetupError(f"{option} {one} is not understood: it has the form NAME=VALUE.")
        made[name] = value
    return made


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The first one interrupts nothing, since between a line's print
    and its count it would have the line printed again; the next one does what it did before."""
    seen = []

    def note(*_: object) -> None:
        seen.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


class Follower:
    """Prints what a job prints, until it has ended."""

    def __init__(self, sagemaker: Any, logs: Any, name: str, say: Callable[[str], None]) -> None:
        self._sagemaker, self._logs, self._name, self._say = sagemaker, logs, name, say
        self._stream = ""
        self._last_ms = self._of_last_ms = 0  # when the last line was printed; how many were then

    def follow(self, stopping: Callable[[], None]) -> dict[str, Any]:
        """The description of the job when it has ended. The first Ctrl-C has it stopped and tells
        so by `stopping`; a second one raises KeyboardInterrupt."""
        with first_interrupt() as interrupted:
            stopped = False
            while True:
                described: dict[str, Any] = self._described()
                self._print()
                if described["TrainingJobStatus"] in ENDED:
                    return described
                if interrupted() and not stopped:
                    stopped = True
                    stopping()
                    self._stop()
                time.sleep(POLL_S)

    def _stop(self) -> None:
        try:
            self._sagemaker.stop_training_job(TrainingJobName=self._name)
        except self._sagemaker.exceptions.ClientError:
            if self._described()["TrainingJobStatus"] not in ENDED:  # it was faster
                raise

    def _described(self) -> dict[str, Any]:
        found: dict[str, Any] = self._sagemaker.describe_training_job(TrainingJobName=self._name)
        return found

    def _print(self) -> None:
        """What has come, page by page. From a time on, not from a token: in another emulator that
        may be a place in a list which loses its oldest lines."""
        begin_ms, known, more = self._last_ms, self._of_last_ms, dict[str, str]()
        while given := self._page(begin_ms, more):
            for event in given["events"]:
                at_ms = event["timestamp"]
                if at_ms == begin_ms and known:
                    known -= 1
                    continue
                self._say(event["message"])
                before = self._of_last_ms if at_ms == self._last_ms else 0
                self._last_ms, self._of_last_ms = at_ms, before + 1
            more = {"nextToken": given["nextForwardToken"]}

    def _page(self, begin_ms: int, more: dict[str, str]) -> dict[str, Any] | None:
        """None where nothing is left, or nothing was printed yet."""
        try:
            if not self._stream:
                found = self._logs.describe_log_streams(
                    logGroupName=GROUP, logStreamNamePrefix=f"{self._name}/"
                )["logStreams"]
                if not found:
                    return None
                self._stream = found[0]["logStreamName"]
            given: dict[str, Any] = self._logs.get_log_events(
                logGroupName=GROUP,
                logStreamName=self._stream,
                startFromHead=True,
                startTime=begin_ms,
                **more,
            )
        except self._logs.exceptions.ResourceNotFoundException:
            return None
        return given if given["events"] else None
