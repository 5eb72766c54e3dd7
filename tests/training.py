"""Training jobs as boto3 users have them, and what tests do with them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.accounts import ROLE, Account
from tests.aws import client
from tests.servers import until

IMAGE = "763104351884.dkr.ecr.eu-west-3.amazonaws.com/tensorflow-training:2.19-cpu-py312"
GROUP = "/aws/sagemaker/TrainingJobs"
BUCKET = "training-{}"  # of an account


def packed(files: Mapping[str, str]) -> bytes:
    """A .tar.gz of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def channel(name: str, url: str, **more: Any) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": url}}
    return {"ChannelName": name, "DataSource": source, **more}


class Trainer:
    """An account's training jobs, and a bucket for them."""

    def __init__(self, account: Account, new: bool = True) -> None:
        """`new` says that there is no bucket yet."""
        self.account, self.sagemaker = account, account.sagemaker
        self.bucket = BUCKET.format(account.account)
        self.s3 = client(account.server, "s3", account.account, account.region)
        self.logs = client(account.server, "logs", account.account, account.region)
        if new:
            self.s3.create_bucket(
                Bucket=self.bucket,
                CreateBucketConfiguration={"LocationConstraint": account.region},
            )

    def put(self, key: str, body: bytes) -> str:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def submit(self, name: str, script: str, **files: str) -> dict[str, str]:
        """The hyperparameters that SDKs give for a script, which is uploaded."""
        code = packed({"train.py": script, **files})
        url = self.put(f"{name}/source/sourcedir.tar.gz", code)
        return {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": f'"{url}"'}

    def request(self, name: str, parameters: Mapping[str, str], **more: Any) -> dict[str, Any]:
        return {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "HyperParameters": dict(parameters),
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/results"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            **more,
        }  # fmt: skip

    def start(
        self, name: str, script: str, parameters: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        given = {**self.submit(name, script), **(parameters or {})}
        self.sagemaker.create_training_job(**self.request(name, given, **more))

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def ended(self, name: str) -> dict[str, Any]:
        """The job once it has ended."""

        def found() -> dict[str, Any] | None:
            one = self.describe(name)
            return None if one["TrainingJobStatus"] in ("InProgress", "Stopping") else one

        return until(found, f"{name} has ended")

    def run(self, name: str, script: str, **more: Any) -> dict[str, Any]:
        self.start(name, script, **more)
        return self.ended(name)

    def lines(self, name: str, **page: Any) -> list[str]:
        """What the job has printed, as the SDKs find it."""
        asked = {"startFromHead": True, **page}
        found = self.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")[
            "logStreams"
        ]
        events: list[str] = []
        for one in found:
            given = self.logs.get_log_events(
                logGroupName=GROUP, logStreamName=one["logStreamName"], **asked
            )["events"]
            events += [event["message"] for event in given]
        return events

    def printed(self, name: str, line: str) -> list[str]:
        """The lines of a job that may still run, once this one is among them."""

        def there() -> list[str] | None:
            try:
                found = self.lines(name)
            except self.logs.exceptions.ResourceNotFoundException:
                return None
            return found if line in found else None

        return until(there, f"{line!r} is in the log")

    def stored(self) -> list[str]:
        """The keys in the bucket."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return [one["Key"] for one in listed]

    def unpacked(self, key: str) -> dict[str, bytes]:
        """The files of an archive in the bucket."""
        body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            return {
                one.name: file.read()
                for one in archive.getmembers()
                if (file := archive.extractfile(one)) is not None
            }


def left_over(state: Path) -> list[str]:
    """The files that are left of jobs under a state directory, some of which may just be going."""
    return [name for _, _, names in os.walk(state / "training") for name in names]
