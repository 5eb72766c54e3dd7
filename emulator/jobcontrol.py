"""SageMaker's control plane for training jobs: what its operations take, and how jobs are
described.

Members without a value are left out, as in `descriptions.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from emulator import descriptions
from emulator.address import Home, Key
from emulator.errors import ValidationException
from emulator.jobs import TrainingJob, Transition
from emulator.paging import Entry, page
from emulator.registry import arn_of
from emulator.training import Trainings
from emulator.trainingrun import output_place

Params = dict[str, Any]
Handler = Callable[[Trainings, Home, Params], Awaitable[Params]]


async def create(trainings: Trainings, home: Home, params: Params) -> Params:
    key = Key(home, params["TrainingJobName"])
    request = {name: value for name, value in params.items() if name != "Tags"}
    tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags", ())}
    await trainings.create(key, request, tags)
    return {"TrainingJobArn": arn_of(TrainingJob, key)}


async def describe(trainings: Trainings, home: Home, params: Params) -> Params:
    job = trainings.find(Key(home, params["TrainingJobName"]), ValidationException)
    return described(job)


async def listed(trainings: Trainings, home: Home, params: Params) -> Params:
    jobs = {one.key.name: one for one in trainings.registry.of(TrainingJob, home)}
    if params.get("WarmPoolStatusEquals") or params.get("TrainingPlanArnEquals"):
        jobs = {}  # none has a warm pool or a plan
    entries = (Entry(r.key.name, r.created, r.modified, r.status.value) for r in jobs.values())
    found, token = page(entries, {"SortOrder": "Ascending", **params})
    given = {"TrainingJobSummaries": [_summary(jobs[entry.name]) for entry in found]}
    return given if token is None else {**given, "NextToken": token}


async def stop(trainings: Trainings, home: Home, params: Params) -> Params:
    trainings.stop(Key(home, params["TrainingJobName"]))
    return {}


async def delete(trainings: Trainings, home: Home, params: Params) -> Params:
    trainings.delete(Key(home, params["TrainingJobName"]))
    return {}


OPERATIONS: Mapping[str, Handler] = {
    "CreateTrainingJob": create,
    "DescribeTrainingJob": describe,
    "ListTrainingJobs": listed,
    "StopTrainingJob": stop,
    "DeleteTrainingJob": delete,
}


def described(job: TrainingJob) -> Params:
    """DescribeTrainingJob."""
    request = {name: value for name, value in job.request.items() if value not in ({}, [])}
    none = job.request["OutputDataConfig"].get("CompressionType") == "NONE"
    given: Params = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        "StoppingCondition": {"MaxRuntimeInSeconds": job.longest_s},
        **request,
        "TrainingJobArn": arn_of(TrainingJob, job.key),
        "TrainingJobStatus": job.status.value,
        "SecondaryStatus": job.stage.value,
        "SecondaryStatusTransitions": [_transition(one) for one in job.transitions],
        "CreationTime": descriptions.seconds(job.created),
        "LastModifiedTime": descriptions.seconds(job.modified),
        "ModelArtifacts": {
            "S3ModelArtifacts": f"{output_place(job)}/{'model/' if none else 'model.tar.gz'}"
        },
    }
    if job.failure_reason:
        given["FailureReason"] = job.failure_reason
    if job.started:
        given["TrainingStartTime"] = descriptions.seconds(job.started)
    if job.ended:
        given["TrainingEndTime"] = descriptions.seconds(job.ended)
        given["TrainingTimeInSeconds"] = given["BillableTimeInSeconds"] = job.billed_s
    if job.metrics:
        given["FinalMetricDataList"] = [
            {
                "MetricName": one.name,
                "Value": one.value,
                "Timestamp": descriptions.seconds(one.at),
            }
            for one in job.metrics
        ]
    return given


def _transition(one: Transition) -> Params:
    given: Params = {
        "Status": one.stage.value,
        "StartTime": descriptions.seconds(one.began),
        "StatusMessage": one.message or one.stage.message,
    }
    return {**given, "EndTime": descriptions.seconds(one.ended)} if one.ended else given


def _summary(job: TrainingJob) -> Params:
    given: Params = {
        "TrainingJobName": job.key.name,
        "TrainingJobArn": arn_of(TrainingJob, job.key),
        "CreationTime": descriptions.seconds(job.created),
        "LastModifiedTime": descriptions.seconds(job.modified),
        "TrainingJobStatus": job.status.value,
        "SecondaryStatus": job.stage.value,
    }
    return {**given, "TrainingEndTime": descriptions.seconds(job.ended)} if job.ended else given
