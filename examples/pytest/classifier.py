"""A client of an image classifier on SageMaker, as an application has it: it tries again when it is
throttled, and gives up in time.
"""

from __future__ import annotations

import json
import time
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class Busy(Exception):
    """The endpoint has throttled every attempt."""


class TooSlow(Exception):
    """There was no answer in time, as during a cold start."""


class Classifier:
    """Names the piece of clothing on a picture."""

    def __init__(self, runtime: Any, endpoint: str, attempts: int = 8, pause_s: float = 0.05):
        """`runtime` is boto3's client of sagemaker-runtime; its Config has the time limit."""
        self._runtime, self._endpoint = runtime, endpoint
        self._attempts, self._pause_s = attempts, pause_s

    def name(self, picture: list[list[float]]) -> str:
        """`picture` has 28 rows of 28 pixels, from 0 to 1. Raises Busy or TooSlow."""
        body = json.dumps({"instances": [picture]})
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(self._pause_s * 2**attempt)
            try:
                (scores,) = self._ask(body)["predictions"]
            except ClientError as error:
                if error.response["Error"]["Code"] != "ThrottlingException":
                    raise
            else:
                return NAMES[scores.index(max(scores))]
        raise Busy(f"{self._endpoint} has throttled {self._attempts} attempts.")

    def _ask(self, body: str) -> Any:
        try:
            answer = self._runtime.invoke_endpoint(
                EndpointName=self._endpoint, ContentType="application/json", Body=body
            )
            return json.load(answer["Body"])
        except ReadTimeoutError as error:
            raise TooSlow(str(error)) from error
