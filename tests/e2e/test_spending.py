"""Cost Explorer and the Pricing API by boto3: the bill and the price tables, as AWS shows them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator import catalogue
from tests.aws import client, code
from tests.load import REALTIME, SERVERLESS
from tests.servers import Server

ACCOUNT, REGION = "123456789012", "eu-west-3"
DAY_S = 86_400


@pytest.fixture
def explorer(server: Server) -> Any:
    """Cost Explorer of a server that has been used for two days."""
    for _ in range(2):
        assert server.invoke(SERVERLESS).status_code == 200
        assert server.invoke(REALTIME).status_code == 200
        server.advance(DAY_S)
    return client(server, "ce", ACCOUNT, REGION)


def asked(server: Server, days: int = 40, **more: Any) -> dict[str, Any]:
    """A request for so many days up to tomorrow."""
    now_ns = server.client.get("/_emulator/clock").json()["now_ns"]
    end = datetime.fromtimestamp(now_ns / 1e9, UTC) + timedelta(days=1)
    start = end - timedelta(days=days)
    return {
        "TimePeriod": {"Start": f"{start:%Y-%m-%d}", "End": f"{end:%Y-%m-%d}"},
        "Granularity": "DAILY",
        "Metrics": ["UnblendedCost"],
        **more,
    }


def cost(results: list[dict[str, Any]]) -> Decimal:
    found = [one["Total"] for one in results if one["Total"]]
    found += [group["Metrics"] for one in results for group in one["Groups"]]
    return sum((Decimal(one["UnblendedCost"]["Amount"]) for one in found), Decimal(0))


def billed(server: Server, start: str) -> Decimal:
    """What the account has spent since then."""
    parameters = {"from": start, "group_by": "account"}
    groups = server.client.get("/billing", params=parameters).json()["groups"]
    return Decimal(next(one["total"] for one in groups if one["name"] == ACCOUNT))


def test_all_that_was_spent_is_there_day_by_day(server: Server, explorer: Any) -> None:
    request = asked(server)
    answer = explorer.get_cost_and_usage(**request)
    results = answer["ResultsByTime"]
    assert len(results) == 40
    assert results[0]["TimePeriod"]["Start"] == request["TimePeriod"]["Start"]
    assert results[-1]["TimePeriod"]["End"] == request["TimePeriod"]["End"]
    start = request["TimePeriod"]["Start"]
    assert abs(cost(results) - billed(server, start)) < Decimal("1e-12")
    assert results[-1]["Total"]["UnblendedCost"]["Unit"] == "USD"
    by_month = explorer.get_cost_and_usage(**{**request, "Granularity": "MONTHLY"})
    assert cost(by_month["ResultsByTime"]) == cost(results)
    assert 2 <= len(by_month["ResultsByTime"]) <= 3


def test_groups_and_filters(server: Server, explorer: Any) -> None:
    by_type = [{"Type": "DIMENSION", "Key": "USAGE_TYPE"}]
    metrics = ["UnblendedCost", "UsageQuantity"]
    grouped = explorer.get_cost_and_usage(**asked(server, GroupBy=by_type, Metrics=metrics))
    found = {
        group["Keys"][0]: group["Metrics"]["UsageQuantity"]["Unit"]
        for one in grouped["ResultsByTime"]
        for group in one["Groups"]
    }
    assert found["EUW3-Host:ml.t2.medium"] == "Hrs"
    assert found["EUW3-ServerlessInf:Mem-4GB"] == "Seconds"
    instances = {"Dimensions": {"Key": "INSTANCE_TYPE", "Values": ["ml.t2.medium"]}}
    part = explorer.get_cost_and_usage(**asked(server, Filter=instances))
    rest = explorer.get_cost_and_usage(**asked(server, Filter={"Not": instances}))
    both = {"And": [instances, {"Dimensions": {"Key": "SERVICE", "Values": ["Amazon SageMaker"]}}]}
    again = explorer.get_cost_and_usage(**asked(server, Filter=both))
    assert cost(part["ResultsByTime"]) == cost(again["ResultsByTime"]) > 0
    whole = cost(part["ResultsByTime"]) + cost(rest["ResultsByTime"])
    assert whole == cost(grouped["ResultsByTime"])


def test_other_accounts_have_spent_nothing(server: Server, explorer: Any) -> None:
    other = client(server, "ce", "999988887777", REGION)
    assert cost(other.get_cost_and_usage(**asked(server))["ResultsByTime"]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"TimePeriod": {"Start": "2026-02-01", "End": "2026-02-01"}}, "Start date"),
        (
            {"TimePeriod": {"Start": "2026-02-30", "End": "2026-03-01"}},
            "'2026-02-30' is not a date",
        ),
        ({"Granularity": "HOURLY"}, "Granularity is HOURLY: here it is DAILY or MONTHLY"),
        ({"Metrics": ["Guesses"]}, "Metrics has 'Guesses': it is one of AmortizedCost"),
        ({"GroupBy": [{"Type": "TAG", "Key": "team"}]}, "GroupBy has TAG team: here it is"),
        ({"Filter": {"Tags": {"Key": "team", "Values": ["a"]}}}, "Filter has Tags: here it has"),
    ],
)
def test_what_cannot_be_answered_is_said(server: Server, change: dict[str, Any], said: str) -> None:
    asking = client(server, "ce", ACCOUNT, REGION)
    with pytest.raises(ClientError) as caught:
        asking.get_cost_and_usage(**asked(server, **change))
    assert code(caught.value) == "ValidationException"
    assert said in str(caught.value)


def test_the_future_has_cost_nothing_yet(server: Server) -> None:
    period: dict[str, Any] = {"TimePeriod": {"Start": "2190-01-01", "End": "2190-01-03"}}
    answer = client(server, "ce", ACCOUNT, REGION).get_cost_and_usage(**asked(server, **period))
    assert [one["Total"]["UnblendedCost"]["Amount"] for one in answer["ResultsByTime"]] == [
        "0",
        "0",
    ]


def test_products_have_the_prices_of_the_tables(server: Server) -> None:
    pricing = client(server, "pricing", ACCOUNT, "us-east-1")
    where = [
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": REGION},
        {"Type": "TERM_MATCH", "Field": "instanceType", "Value": "ml.t2.medium-Hosting"},
    ]
    (text,) = pricing.get_products(ServiceCode="AmazonSageMaker", Filters=where)["PriceList"]
    product = json.loads(text)
    assert product["product"]["attributes"]["usagetype"] == "EUW3-Host:ml.t2.medium"
    assert product["product"]["productFamily"] == "ML Instance"
    (term,) = product["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert (dimension["unit"], dimension["pricePerUnit"]) == ("Hrs", {"USD": "0.063"})
    everything = [
        json.loads(text)["product"]["sku"]
        for page in pricing.get_paginator("get_products").paginate(ServiceCode="AmazonSageMaker")
        for text in page["PriceList"]
    ]
    assert len(set(everything)) == len(everything) > 100
    assert len(everything) == sum(len(catalogue.price_table(r).prices) for r in catalogue.regions())
    with pytest.raises(ClientError, match="There is no offer of 'AmazonEC2' here"):
        pricing.get_products(ServiceCode="AmazonEC2")
    with pytest.raises(ClientError, match="The NextToken 'x' is none of ours"):
        pricing.get_products(ServiceCode="AmazonSageMaker", NextToken="x")
