"""Invocation rows for tests: a warm serverless answer, with whatever a test wants changed."""

from __future__ import annotations

from typing import Any

from emulator.address import Home, Key
from emulator.ledger import InvocationRow

HOME = Home("123456789012", "eu-west-3")
DIGITS = Key(HOME, "digits")

WARM = InvocationRow(
    request_id="r-0",
    at_ns=1_000,
    endpoint="digits",
    variant="AllTraffic",
    persona="serverless",
    region=HOME.region,
    environment="env-1",
    status=200,
    error_code="",
    cold_start=False,
    provisioned=False,
    memory_mb=4096,
    instance_type="",
    request_bytes=512,
    response_bytes=300,
    bytes_billed=True,
    queue_ns=0,
    provision_ns=0,
    runtime_ns=0,
    load_ns=0,
    model_ns=45_000_000,
    overhead_ns=1_000_000,
    cpu_ns=40_000_000,
    peak_bytes=300_000_000,
    billed_ms=45,
    billed_startup_ms=45,
    inference_id="",
    account=HOME.account,
)


def row(**changes: Any) -> InvocationRow:
    return WARM._replace(**changes)


def throttled(**changes: Any) -> InvocationRow:
    refusal: dict[str, Any] = {
        "status": 400,
        "error_code": "ThrottlingException",
        "environment": "",
        "billed_ms": 0,
        "billed_startup_ms": 0,
        "bytes_billed": False,
        "model_ns": 0,
    }
    return row(**refusal | changes)
