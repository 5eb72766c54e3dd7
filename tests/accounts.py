"""An account in one region as boto3 users have it, with what tests do in it again and again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws import client, code
from tests.servers import ARTIFACTS, SNEAKER, Server, until

ACCOUNT, REGION = "123456789012", "eu-west-3"
IMAGE = "763104351884.dkr.ecr.eu-west-3.amazonaws.com/tensorflow-inference:2.16.1-cpu"
ROLE = "arn:aws:iam::123456789012:role/service-role/execution"
SHIPPED = f"file://{ARTIFACTS / 'fashion-mnist'}"
RAISES = "def handler(data, context):\n    raise ValueError('no')\n"
BREAKS = "raise RuntimeError('no use')\n"
REALTIME = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
SERVERLESS = {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 2}}


class Account:
    """boto3's clients of one account in one region, and what tests do with them."""

    def __init__(self, server: Server, region: str, account: str = ACCOUNT) -> None:
        self.server, self.region, self.account = server, region, account
        self.sagemaker = client(server, "sagemaker", account, region)
        self.runtime = client(server, "sagemaker-runtime", account, region)

    def model(self, name: str, url: str = SHIPPED, image: str = IMAGE, **container: Any) -> str:
        given = {"Image": image, "ModelDataUrl": url, **container}
        made = self.sagemaker.create_model(
            ModelName=name, PrimaryContainer=given, ExecutionRoleArn=ROLE
        )
        return str(made["ModelArn"])

    def config(self, name: str, *variants: dict[str, Any], model: str = "", **more: Any) -> str:
        given = [
            {"VariantName": "AllTraffic" if not n else f"B{n}", "ModelName": model or name, **one}
            for n, one in enumerate(variants)
        ]
        made = self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=given, **more
        )
        return str(made["EndpointConfigArn"])

    def endpoint(self, name: str, config: str = "", **more: Any) -> None:
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config or name, **more)

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return found

    def settled(self, name: str) -> dict[str, Any]:
        """The endpoint once nothing is being done to it."""

        def found() -> dict[str, Any] | None:
            one = self.describe(name)
            moving = ("Creating", "Updating", "RollingBack")
            return None if one["EndpointStatus"] in moving else one

        return until(found, f"{name} is settled")

    def deploy(self, name: str, *variants: dict[str, Any], url: str = SHIPPED) -> dict[str, Any]:
        self.model(name, url)
        self.config(name, *variants)
        self.endpoint(name)
        described = self.settled(name)
        assert described["EndpointStatus"] == "InService", described["FailureReason"]
        return described

    def delete(self, name: str) -> None:
        self.sagemaker.delete_endpoint(EndpointName=name)
        self.gone(name)

    def gone(self, name: str) -> None:
        def found() -> bool:
            try:
                self.describe(name)
            except ClientError as error:
                return "Could not find endpoint" in str(error)
            return False

        until(found, f"{name} is gone")

    def invoke(self, name: str, **more: Any) -> Any:
        answer = self.runtime.invoke_endpoint(
            EndpointName=name, Body=SNEAKER, ContentType="application/json", **more
        )
        return json.loads(answer["Body"].read())["predictions"]

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name.lower()}"


def refusal(work: Callable[[], object]) -> tuple[str, str]:
    """The code and the message that a call is refused with."""
    with pytest.raises(ClientError) as caught:
        work()
    return code(caught.value), caught.value.response["Error"]["Message"]
