"""Clients as people have them: boto3, told where the server is and nothing else."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from tests.servers import DEADLINE_S, Server


def runtime(server: Server, **settings: Any) -> Any:
    """boto3's client of the runtime. One attempt a call: retries would hide what is answered."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=DEADLINE_S, **settings)
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="eu-west-3",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=config,
    )
