"""CloudWatch's metrics of endpoints through boto3, in each of the protocols that it has spoken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.model
import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests.aws import client, code
from tests.servers import LIGHT, Server, serverless, serving

ACCOUNT, REGION = "123456789012", "eu-west-3"
NAME = "measured"
DIMENSIONS = [
    {"Name": "EndpointName", "Value": NAME},
    {"Name": "VariantName", "Value": "AllTraffic"},
]
STATISTICS = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"]


@pytest.fixture(scope="module")
def measured(server: Server) -> Iterator[Server]:
    """The server with an endpoint that was called in two minutes, ten apart."""
    server.deploy(NAME, serverless())
    for bodies in ((None, None, b"garbage"), (None,)):
        server.advance(600)
        for body in bodies:
            server.invoke(NAME) if body is None else server.invoke(NAME, body)
    yield server
    server.delete(NAME)


@pytest.fixture(params=["json", "query", "smithy-rpc-v2-cbor"])
def cloudwatch(
    request: pytest.FixtureRequest, measured: Server, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A client that speaks one protocol, as older and other clients do."""
    monkeypatch.setattr(
        botocore.model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (request.param, "rest-xml")
    )
    made = client(measured, "cloudwatch", ACCOUNT, REGION)
    made.get_waiter("alarm_exists")  # loads what it needs while the protocol is chosen
    return made


def period(server: Server) -> dict[str, Any]:
    now = datetime.fromisoformat(server.client.get("/_emulator/clock").json()["now"])
    end = now.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    return {"StartTime": end - timedelta(minutes=30), "EndTime": end}


def wanted(name: str, **more: Any) -> dict[str, Any]:
    return {
        "Namespace": "AWS/SageMaker",
        "MetricName": name,
        "Dimensions": DIMENSIONS,
        "Period": 60,
        **more,
    }


def query(name: str, stat: str, **more: Any) -> dict[str, Any]:
    asked = {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": DIMENSIONS}
    return {"Id": name.lower(), "MetricStat": {"Metric": asked, "Period": 60, "Stat": stat}, **more}


def test_statistics_are_those_of_the_calls(measured: Server, cloudwatch: Any) -> None:
    when = period(measured)
    asked = wanted("Invocations", Statistics=STATISTICS, **when)
    points = sorted(
        cloudwatch.get_metric_statistics(**asked)["Datapoints"], key=lambda one: one["Timestamp"]
    )
    assert [(one["Sum"], one["SampleCount"], one["Unit"]) for one in points] == [
        (3, 3, "None"),
        (1, 1, "None"),
    ]
    assert points[1]["Timestamp"] - points[0]["Timestamp"] == timedelta(minutes=10)
    latencies = [row["model_latency_us"] for row in measured.rows(NAME)]
    asked = wanted("ModelLatency", Statistics=STATISTICS, **when) | {"Period": 1800}
    (whole,) = cloudwatch.get_metric_statistics(**asked)["Datapoints"]
    assert whole["Unit"] == "Microseconds"
    assert whole["Sum"] == pytest.approx(sum(latencies), abs=4)  # whole ones are listed
    assert whole["Minimum"] == pytest.approx(min(latencies), abs=1)
    assert whole["Maximum"] == pytest.approx(max(latencies), abs=1)
    asked |= {"ExtendedStatistics": ["p50", "p99.9"]}
    del asked["Statistics"]
    (whole,) = cloudwatch.get_metric_statistics(**asked)["Datapoints"]
    expected = dict(zip(("p50", "p99.9"), np.percentile(latencies, (50, 99.9)), strict=True))
    assert whole["ExtendedStatistics"] == pytest.approx(expected, abs=1)


def test_without_the_variant_there_is_nothing(measured: Server, cloudwatch: Any) -> None:
    asked = wanted("Invocations", Statistics=["Sum"], **period(measured))
    changes: tuple[dict[str, Any], ...] = (
        {"Dimensions": DIMENSIONS[:1]},
        {"Dimensions": []},
        {"Unit": "Count"},
        {"MetricName": "Nothing"},
    )
    for change in changes:
        assert cloudwatch.get_metric_statistics(**{**asked, **change})["Datapoints"] == []


def test_data_with_math_order_and_pages(measured: Server, cloudwatch: Any) -> None:
    queries = [
        query("Invocations", "Sum", ReturnData=False),
        query("Invocation4XXErrors", "Sum"),
        {"Id": "percent", "Expression": "100 * invocation4xxerrors / invocations", "Label": "%"},
    ]
    asked = {"MetricDataQueries": queries, **period(measured)}
    errors, percent = cloudwatch.get_metric_data(**asked)["MetricDataResults"]
    assert (errors["Id"], errors["Values"], errors["StatusCode"]) == (
        "invocation4xxerrors",
        [0, 1],  # the newest first
        "Complete",
    )
    assert (percent["Label"], percent["Values"]) == ("%", pytest.approx([0, 100 / 3]))
    asked |= {"ScanBy": "TimestampAscending"}
    ascending, _ = cloudwatch.get_metric_data(**asked)["MetricDataResults"]
    assert ascending["Values"] == [1, 0]
    assert ascending["Timestamps"] == errors["Timestamps"][::-1]
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        **asked, PaginationConfig={"PageSize": 1}
    )
    values = [
        (one["Id"], value)
        for page in pages
        for one in page["MetricDataResults"]
        for value in one["Values"]
    ]
    assert values == [
        ("invocation4xxerrors", 1),
        ("invocation4xxerrors", 0),
        ("percent", pytest.approx(100 / 3)),
        ("percent", 0),
    ]


def test_metrics_are_listed(measured: Server, cloudwatch: Any) -> None:
    asked = {"Namespace": "AWS/SageMaker", "Dimensions": DIMENSIONS[:1]}
    names = {one["MetricName"] for one in cloudwatch.list_metrics(**asked)["Metrics"]}
    assert {"Invocations", "ModelLatency", "OverheadLatency"} <= names
    assert "InvocationsPerInstance" not in names
    (listed,) = cloudwatch.list_metrics(
        Namespace="/aws/sagemaker/Endpoints", Dimensions=DIMENSIONS
    )["Metrics"]
    assert (listed["MetricName"], listed["Dimensions"]) == ("MemoryUtilization", DIMENSIONS)


def test_other_namespaces_are_motos(measured: Server, cloudwatch: Any) -> None:
    when = period(measured)
    datum = {"MetricName": "m", "Value": 2.5, "Timestamp": when["StartTime"]}
    namespace = f"mine-{cloudwatch.meta.service_model.resolved_protocol}"
    cloudwatch.put_metric_data(Namespace=namespace, MetricData=[datum])
    asked = {"Namespace": namespace, "MetricName": "m", "Period": 60, "Statistics": ["Sum"]}
    (point,) = cloudwatch.get_metric_statistics(**asked, **when)["Datapoints"]
    assert point["Sum"] == 2.5
    both = [
        query("Invocations", "Sum"),
        {
            "Id": "mine",
            "MetricStat": {
                "Metric": {"Namespace": namespace, "MetricName": "m"},
                "Period": 60,
                "Stat": "Sum",
            },
        },
    ]
    ours, mine = cloudwatch.get_metric_data(MetricDataQueries=both, **when)["MetricDataResults"]
    assert (ours["Values"], mine["Values"]) == ([1, 3], [2.5])
    assert namespace in {one["Namespace"] for one in cloudwatch.list_metrics()["Metrics"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Statistics": None}, "InvalidParameterCombination"),
        ({"Period": 61}, "InvalidParameterValue"),
        ({"StartTime": datetime(2020, 1, 1, tzinfo=UTC)}, "InvalidParameterCombination"),
        ({"EndTime": datetime(2020, 1, 1, tzinfo=UTC)}, "InvalidParameterValue"),
        ({"Statistics": None, "ExtendedStatistics": ["tm99"]}, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    measured: Server, cloudwatch: Any, change: dict[str, Any], expected: str
) -> None:
    asked = wanted("Invocations", Statistics=["Sum"], **period(measured))
    given = {name: value for name, value in {**asked, **change}.items() if value}
    with pytest.raises(ClientError) as caught:
        cloudwatch.get_metric_statistics(**given)
    assert code(caught.value) == expected


def test_another_emulator_is_not_asked_for_our_metrics(
    measured: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("measuring")
    with serving(
        folder, EMULATOR_COMPANION_URL=measured.url, EMULATOR_CLOCK="virtual", **LIGHT
    ) as front:
        front.invoke("fashion-mnist-serverless")
        front.invoke("fashion-mnist-realtime")
        cloudwatch = client(front, "cloudwatch", ACCOUNT, REGION)
        listed = cloudwatch.list_metrics(Namespace="AWS/SageMaker")["Metrics"]
        names = {one["Dimensions"][0]["Value"] for one in listed}
        assert names == {"fashion-mnist-serverless", "fashion-mnist-realtime"}
        cloudwatch.put_metric_data(
            Namespace="elsewhere", MetricData=[{"MetricName": "m", "Value": 1}]
        )
    there = client(measured, "cloudwatch", ACCOUNT, REGION).list_metrics(Namespace="elsewhere")
    assert len(there["Metrics"]) == 1


def test_an_alarm_is_in_alarm_while_its_metric_breaches(server: Server, name: str) -> None:
    server.deploy(name, serverless())
    cloudwatch = client(server, "cloudwatch", ACCOUNT, REGION)

    def state() -> str:
        (alarm,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
        found: str = alarm["StateValue"]
        return found

    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation4XXErrors",
        Dimensions=[
            {"Name": "EndpointName", "Value": name},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=2,
        DatapointsToAlarm=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        ActionsEnabled=False,
    )
    assert state() == "INSUFFICIENT_DATA"
    server.invoke(name, b"garbage")
    server.advance(60)
    assert state() == "ALARM"
    server.invoke(name)
    server.advance(60)
    assert state() == "ALARM"  # one of two
    server.invoke(name)
    server.advance(60)
    assert state() == "OK"
    server.advance(600)
    assert state() == "INSUFFICIENT_DATA"
    cloudwatch.delete_alarms(AlarmNames=[name])
