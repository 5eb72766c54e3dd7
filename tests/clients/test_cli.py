"""The AWS CLI, as people type it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Arriving
from tests.clients.people import ACCOUNT, REGION, ROLE, Person
from tests.servers import until

NAME = "typed"
BUCKET = "typed-models"
IMAGE = f"763104351884.dkr.ecr.{REGION}.amazonaws.com/tensorflow-inference:2.19-cpu"
FAILED = 255  # the exit code, where the service has refused
PART = 8 << 20  # bytes from which on the CLI sends an object in parts


@pytest.fixture
def aws(arrive: Arriving) -> Person:
    return arrive("awscli")


def text(aws: Person, *arguments: str) -> str:
    return aws.calls(*arguments, "--output", "text").stdout.strip()


def test_an_endpoint_from_its_upload_to_its_end(aws: Person, luggage: Path, expected: Any) -> None:
    data = f"s3://{BUCKET}/models/printing.tar.gz"
    aws.calls("s3", "mb", f"s3://{BUCKET}")
    aws.calls("s3", "cp", str(luggage / "printing.tar.gz"), f"s3://{BUCKET}/models/")
    container = f"Image={IMAGE},ModelDataUrl={data}"
    made = text(aws, "sagemaker", "create-model", "--model-name", NAME,
                "--execution-role-arn", ROLE, "--primary-container", container)  # fmt: skip
    assert made == f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/{NAME}"
    variant = f"VariantName=AllTraffic,ModelName={NAME},"
    variant += "ServerlessConfig={MemorySizeInMB=2048,MaxConcurrency=2}"
    aws.calls("sagemaker", "create-endpoint-config", "--endpoint-config-name", NAME,
              "--production-variants", variant)  # fmt: skip
    named = ("--endpoint-name", NAME)
    arn = text(aws, "sagemaker", "create-endpoint", *named, "--endpoint-config-name", NAME,
               "--tags", "Key=team,Value=shoes")  # fmt: skip

    status = ("describe-endpoint", *named, "--query", "EndpointStatus")
    until(lambda: text(aws, "sagemaker", *status) == "InService", "it is in service")
    aws.calls("sagemaker", "wait", "endpoint-in-service", *named)
    assert text(aws, "sagemaker", "list-endpoints", "--name-contains", NAME,
                "--query", "Endpoints[].EndpointName") == NAME  # fmt: skip
    assert text(aws, "sagemaker", "list-tags", "--resource-arn", arn,
                "--query", "Tags[?Key=='team'].Value") == "shoes"  # fmt: skip

    out = aws.home / "out.json"
    body = ("--content-type", "application/json", "--body", f"file://{luggage}/images.json")
    answer = aws.calls("sagemaker-runtime", "invoke-endpoint", *named, *body, str(out))
    assert json.loads(answer.stdout)["InvokedProductionVariant"] == "AllTraffic"
    found = json.loads(out.read_text())["predictions"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert invocations(aws) == 1
    assert "called" in text(aws, "logs", "filter-log-events", "--log-group-name",
                            f"/aws/sagemaker/Endpoints/{NAME}", "--query", "events[].message",
                            )  # fmt: skip

    aws.calls("sagemaker", "delete-endpoint", *named)
    aws.calls("sagemaker", "wait", "endpoint-deleted", *named)
    aws.calls("sagemaker", "delete-endpoint-config", "--endpoint-config-name", NAME)
    aws.calls("sagemaker", "delete-model", "--model-name", NAME)
    refused = aws.calls("sagemaker", *status, code=FAILED)
    assert f'Could not find endpoint "{arn}"' in refused.stderr
    assert aws.attempts() == []


def invocations(aws: Person) -> float:
    now = datetime.now(UTC)
    asked = {
        "--namespace": "AWS/SageMaker",
        "--metric-name": "Invocations",
        "--start-time": (now - timedelta(hours=1)).isoformat(),
        "--end-time": (now + timedelta(hours=1)).isoformat(),
        "--period": "3600",
        "--statistics": "Sum",
        "--query": "sum(Datapoints[].Sum)",
    }
    dimensions = [f"Name=EndpointName,Value={NAME}", "Name=VariantName,Value=AllTraffic"]
    given = [word for pair in asked.items() for word in pair]
    found = text(aws, "cloudwatch", "get-metric-statistics", *given, "--dimensions", *dimensions)
    return float(found)


def test_who_one_is_and_what_one_copies(aws: Person) -> None:
    assert text(aws, "sts", "get-caller-identity", "--query", "Account") == ACCOUNT
    folder = aws.home / "folder"
    folder.mkdir()
    (folder / "large").write_bytes(bytes(range(256)) * (PART // 256 + 1))
    (folder / "small").write_text("small")
    aws.calls("s3", "mb", "s3://typed-copies")
    aws.calls("s3", "sync", str(folder), "s3://typed-copies/there")
    assert text(aws, "s3", "ls", "s3://typed-copies/there/").count("\n") == 1
    aws.calls("s3", "cp", "--recursive", "s3://typed-copies/there", str(aws.home / "back"))
    for name in ("large", "small"):
        assert (aws.home / "back" / name).read_bytes() == (folder / name).read_bytes()
    aws.calls("s3", "rb", "--force", "s3://typed-copies")
    assert aws.attempts() == []
