"""boto3 as people use it, against a server of ours; no retries, which would hide things."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers import Server

ACCOUNT, REGION = "111122223333", "eu-west-1"


def client(
    server: Server, service: str, account: str = ACCOUNT, region: str = REGION, **config: Any
) -> Any:
    """A client whose access key is the account."""
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def scope_of(service: str, account: str = ACCOUNT, region: str = REGION) -> dict[str, str]:
    """The header of a request that says whom it is for, and is not really signed."""
    credential = f"{account}/20260101/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00"
    return {"authorization": text}


def code(error: ClientError) -> str:
    found: str = error.response["Error"]["Code"]
    return found
