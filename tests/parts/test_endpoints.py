"""Records and the rules they are held to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from emulator.address import Home, Key
from emulator.endpoints import (
    Container,
    Deployed,
    Deployment,
    Endpoint,
    EndpointConfig,
    InstanceConfig,
    Model,
    Quotas,
    ServerlessConfig,
    Status,
    Variant,
    check_name,
    check_quotas,
    check_variants,
    config_from,
    document,
    endpoint_from,
    model_from,
    production_variant,
    variant_from,
)
from emulator.errors import ControlError, ResourceLimitExceeded, ValidationException
from emulator.realtime import Routing

SERVERLESS = Variant("AllTraffic", "m", ServerlessConfig(2048, 5))
REALTIME = Variant("AllTraffic", "m", None, InstanceConfig("ml.m5.large"))
LARGE = replace(
    REALTIME,
    instances=InstanceConfig("ml.m5.large", 2, Routing.LEAST_OUTSTANDING_REQUESTS, 30, 600),
)
KEY = Key(Home("123456789012", "eu-west-3"), "k")
DEPLOYMENT = Deployment(
    "c",
    (
        Deployed(SERVERLESS, Container("i", "s3://b/k", {"A": "b"}), "/d"),
        Deployed(LARGE, Container(url="/m", prefix=True)),
    ),
)
ENDPOINT = Endpoint(KEY, 1, 2, DEPLOYMENT, deployment_config={"x": {"y": 1}})
QUOTAS = Quotas(
    serverless_concurrency=10, serverless_memory_mb=3072, serverless_endpoints=2, instances=3
)


@pytest.mark.parametrize("name", ["a", "a-b", "A1", "a" * 63, "a--b"])
def test_names_that_aws_takes(name: str) -> None:
    check_name(name, "endpointName")


@pytest.mark.parametrize("name", ["", "a_b", "-a", "a-", "a" * 64, "a/b", "..", "é", "a\n"])
def test_names_that_aws_refuses_in_its_words(name: str) -> None:
    with pytest.raises(ValidationException, match="1 validation error detected: Value"):
        check_name(name, "endpointName")


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ([], "1 to 10"),
        ([replace(SERVERLESS, serverless=ServerlessConfig(1500, 5))], "one of 1024, 2048"),
        ([replace(SERVERLESS, serverless=ServerlessConfig(7168, 5))], "one of 1024, 2048"),
        ([replace(SERVERLESS, serverless=ServerlessConfig(1024, 0))], "from 1 to 200"),
        ([replace(SERVERLESS, serverless=ServerlessConfig(1024, 201))], "from 1 to 200"),
        ([replace(SERVERLESS, serverless=ServerlessConfig(1024, 5, 6))], "at most MaxConcurrency"),
        ([replace(REALTIME, instances=InstanceConfig("ml.m5.large", 0))], "count 0"),
        ([replace(REALTIME, weight=-1.0)], "weight -1"),
        ([replace(REALTIME, serverless=ServerlessConfig(1024, 1))], "either"),
        ([REALTIME, REALTIME], "not all different"),
        ([SERVERLESS, replace(REALTIME, name="B")], "no other variant"),
    ],
)
def test_configurations_that_are_refused(variants: list[Variant], said: str) -> None:
    with pytest.raises(ValidationException, match=said):
        check_variants(variants)


def test_configurations_that_are_taken() -> None:
    check_variants([SERVERLESS])
    check_variants([REALTIME, replace(REALTIME, name="B", weight=0.0)])


@pytest.mark.parametrize(
    ("new", "held", "quota"),
    [
        (ServerlessConfig(4096, 1), [], "Memory size in MB per serverless endpoint' is 3072 MBs"),
        (ServerlessConfig(1024, 6), [5], "Maximum total concurrency"),
        (ServerlessConfig(1024, 1), [1, 1], "Number of serverless endpoints"),
    ],
)
def test_quotas_bound_the_sum_over_endpoints(
    new: ServerlessConfig, held: list[int], quota: str
) -> None:
    others = [replace(SERVERLESS, serverless=ServerlessConfig(1024, most)) for most in held]
    with pytest.raises(ResourceLimitExceeded, match=quota):
        check_quotas([replace(SERVERLESS, serverless=new)], others, QUOTAS)
    check_quotas([SERVERLESS], [], QUOTAS)
    check_quotas([REALTIME], others, QUOTAS)


def test_the_instances_of_one_type_have_a_quota_over_endpoints_and_variants() -> None:
    others = [replace(REALTIME, instances=InstanceConfig("ml.m5.large", 2))]
    elsewhere = replace(REALTIME, instances=InstanceConfig("ml.c5.large", 3))
    check_quotas([REALTIME, elsewhere], others, QUOTAS)
    said = "'ml.m5.large for endpoint usage' is 3 Instances, with current utilization of 3"
    with pytest.raises(ResourceLimitExceeded, match=said):
        check_quotas([REALTIME, replace(REALTIME, name="B")], others, QUOTAS)


ROUND_TRIPS: list[tuple[Model | EndpointConfig | Endpoint, Callable[..., object]]] = [
    (Model(KEY, 5, {"PrimaryContainer": {"Environment": {"A": "b"}}}, {"k": "v"}), model_from),
    (EndpointConfig(KEY, 5, {"ProductionVariants": [production_variant(REALTIME)]}), config_from),
    (ENDPOINT.turned(Status.FAILED, 3, "why"), endpoint_from),
    (replace(ENDPOINT, target=DEPLOYMENT, tags={"a": ""}), endpoint_from),
]


@pytest.mark.parametrize(
    ("record", "back"), ROUND_TRIPS, ids=["model", "config", "endpoint", "update"]
)
def test_records_survive_being_documents(
    record: Model | EndpointConfig | Endpoint, back: Callable[..., object]
) -> None:
    assert back(json.loads(json.dumps(document(record)))) == record


@pytest.mark.parametrize("variant", [SERVERLESS, replace(SERVERLESS, weight=0.0), REALTIME, LARGE])
def test_variants_survive_being_requests(variant: Variant) -> None:
    assert variant_from(production_variant(variant)) == variant


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"Containers": [{}, {}]}, "inference pipeline"),
        ({"PrimaryContainer": {"Mode": "MultiModel"}}, "multi-model"),
        ({"PrimaryContainer": {"ModelPackageName": "p"}}, "model package"),
    ],
)
def test_models_that_are_not_hosted_here_say_so(request_: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationException, match=said):
        _ = Model(KEY, 1, request_).container


def test_a_container_is_the_first_and_only_one() -> None:
    source = {"S3DataSource": {"S3Uri": "s3://b/p/", "CompressionType": "None"}}
    model = Model(KEY, 1, {"Containers": [{"Image": "i", "ModelDataSource": source}]})
    assert model.container == Container("i", "s3://b/p/", {}, prefix=True)


def test_a_failure_reason_is_cut_at_its_limit() -> None:
    assert len(ENDPOINT.turned(Status.FAILED, 3, "x" * 5000).failure_reason) == 1024


def test_control_errors_share_a_root() -> None:
    assert issubclass(ResourceLimitExceeded, ControlError)
