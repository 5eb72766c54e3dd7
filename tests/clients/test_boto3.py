"""boto3 as it is, and as it was two years ago."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.accounts import REALTIME, Account
from tests.clients.conftest import Arriving
from tests.clients.people import REGION
from tests.servers import Server


@pytest.mark.parametrize("client", ["boto3", "boto3-2024"])
def test_an_endpoint_from_its_upload_to_its_end(
    arrive: Arriving, luggage: Path, expected: Any, client: str
) -> None:
    done = arrive(client).runs("whole_life.py", str(luggage), f"life-of-{client}")
    found = done.json
    assert done.attempts == []
    assert found["version"].startswith({"boto3": "1.44.", "boto3-2024": "1.35."}[client])
    prefix = "arn:aws:sagemaker:eu-west-3:123456789012"
    assert found["arns"] == [
        f"{prefix}:model/life-of-{client}",
        f"{prefix}:endpoint/life-of-{client}",
    ]
    assert {"fashion-mnist-realtime", f"life-of-{client}"} <= set(found["listed"])
    assert found["tags"] == [{"Key": "stage", "Value": "test"}]
    assert found["variant"] == "AllTraffic"
    assert found["left"] == []
    assert found["invocations"] == [1.0]
    assert len(found["latencies"]) == 1
    assert {"Invocations", "ModelLatency", "OverheadLatency"} <= set(found["metrics"])
    assert found["stream"].startswith("AllTraffic/")
    assert found["printed"] == ["called"]
    np.testing.assert_allclose(found["predictions"], expected, atol=1e-5)


def test_what_is_asked_for_is_done_at_the_first_look(here: Server) -> None:
    account = Account(here, REGION)
    account.model("at-once")
    account.config("at-once", REALTIME)
    account.config("at-once-larger", {**REALTIME, "InitialInstanceCount": 2}, model="at-once")
    account.endpoint("at-once")
    assert account.describe("at-once")["EndpointStatus"] == "InService"
    account.sagemaker.update_endpoint(EndpointName="at-once", EndpointConfigName="at-once-larger")
    (variant,) = account.describe("at-once")["ProductionVariants"]
    assert variant["CurrentInstanceCount"] == 2
    account.sagemaker.delete_endpoint(EndpointName="at-once")
    names = [one["EndpointName"] for one in account.sagemaker.list_endpoints()["Endpoints"]]
    assert "at-once" not in names
