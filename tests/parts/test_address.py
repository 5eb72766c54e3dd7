"""Whom a request is for."""

from __future__ import annotations

import pytest
from botocore.auth import S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.address import Address, Addressing, Home

DEFAULT = Home("123456789012", "eu-west-3")


def signed(key: str, service: str, region: str) -> bytes:
    request = AWSRequest("POST", "http://127.0.0.1/")
    SigV4Auth(Credentials(key, "secret"), service, region).add_auth(request)
    header: str = request.headers["Authorization"]
    return header.encode()


@pytest.mark.parametrize(
    ("key", "account"), [("AKIDEXAMPLE", DEFAULT.account), ("000000000001", "000000000001")]
)
def test_the_scope_names_service_region_and_account(key: str, account: str) -> None:
    given = signed(key, "sagemaker", "us-gov-west-1")
    assert Addressing(DEFAULT).of(given) == Address("sagemaker", Home(account, "us-gov-west-1"))


def test_a_presigned_url_names_them_in_its_query() -> None:
    request = AWSRequest("GET", "http://127.0.0.1/bucket/key")
    S3SigV4QueryAuth(Credentials("000000000001", "x"), "s3", "us-east-1", 60).add_auth(request)
    query = request.url.partition("?")[2].encode()
    assert Addressing(DEFAULT).of(b"", query) == Address("s3", Home("000000000001", "us-east-1"))


@pytest.mark.parametrize(
    "header",
    [b"", b"Bearer abc", b"AWS4-HMAC-SHA256 Credential=a/b", b"AWS4-HMAC-SHA256 \xff\xfe", b"AWS "],
)
def test_what_is_not_signed_is_at_home(header: bytes) -> None:
    assert Addressing(DEFAULT).of(header) == Address("", DEFAULT)


def test_a_region_that_is_none_is_the_default() -> None:
    given = signed("AKIDEXAMPLE", "sagemaker", "%2e%2e")
    assert Addressing(DEFAULT).of(given).home == DEFAULT


def test_invented_scopes_take_no_memory_for_good() -> None:
    addressing = Addressing(DEFAULT)
    for number in range(3000):
        scope = f"2026/eu-west-{number % 99}/s{number}/aws4_request"
        addressing.of(f"AWS4 Credential=a/{scope}".encode())
    assert len(addressing._known) <= 1024
