"""Clients as people have them: boto3, told where the server is and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import boto3
from botocore.config import Config

from tests.servers import DEADLINE_S, Server


@contextmanager
def runtime(server: Server, attempts: int = 1) -> Iterator[Any]:
    """boto3's client of the runtime. One attempt a call: retries would hide what is answered."""
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="eu-west-3",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries=retries, read_timeout=DEADLINE_S),
    )
    with closing(client):
        yield client


@contextmanager
def events(answer: Any) -> Iterator[Iterator[Any]]:
    """The events of a stream, which is closed even if it is not read to its end."""
    with closing(answer["Body"]) as body:
        yield iter(body)
