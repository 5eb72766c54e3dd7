"""SageMaker's control plane as boto3 users meet it, against a real server with real models."""

from __future__ import annotations

import gzip
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests.accounts import (
    ACCOUNT,
    BREAKS,
    IMAGE,
    RAISES,
    REALTIME,
    REGION,
    ROLE,
    SERVERLESS,
    SHIPPED,
    Account,
    refusal,
)
from tests.aws import client, code, scope_of
from tests.servers import LIGHT, SNEAKER, Server, archive, predictions, serving

# -- the life of an endpoint ----------------------------------------------------------------------


@pytest.mark.parametrize("variant", [REALTIME, SERVERLESS], ids=["realtime", "serverless"])
def test_an_endpoint_lives_as_boto3_has_it(account: Account, variant: dict[str, Any]) -> None:
    name = "Sneakers"
    assert account.model(name) == account.arn("model", name)
    assert account.config(name, variant) == account.arn("endpoint-config", name)
    account.endpoint(name)
    begun = account.describe(name)
    assert begun["EndpointStatus"] == "Creating"
    assert begun["PendingDeploymentSummary"]["EndpointConfigName"] == name
    waiter = account.sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    described = account.describe(name)
    assert described["EndpointArn"] == account.arn("endpoint", name)
    assert (
        described["LastModifiedTime"]
        >= described["CreationTime"]
        > datetime.fromtimestamp(0, described["CreationTime"].tzinfo)
    )
    (summary,) = described["ProductionVariants"]
    assert (summary["CurrentWeight"], summary["DesiredWeight"]) == (1.0, 1.0)
    assert summary["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    assert summary["CurrentInstanceCount"] == variant.get("InitialInstanceCount", 0)
    assert summary.get("CurrentServerlessConfig") == variant.get("ServerlessConfig")
    shipped = predictions(account.server.invoke("fashion-mnist-serverless"))
    assert np.allclose(account.invoke(name), shipped, atol=1e-6)
    account.sagemaker.delete_endpoint(EndpointName=name)
    waiter = account.sagemaker.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    account.sagemaker.delete_endpoint_config(EndpointConfigName=name)
    account.sagemaker.delete_model(ModelName=name)
    for listed in ("list_endpoints", "list_endpoint_configs", "list_models"):
        answer = getattr(account.sagemaker, listed)()
        assert [value for key, value in answer.items() if key != "ResponseMetadata"] == [[]]


def test_what_is_described_is_what_was_given_and_nothing_empty(account: Account) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": SHIPPED, "Environment": {"A": "1"}}
    account.sagemaker.create_model(
        ModelName="m", PrimaryContainer={**container, "MultiModelConfig": {}}, Containers=[],
        ExecutionRoleArn=ROLE, Tags=[{"Key": "k", "Value": "v"}],
    )  # fmt: skip
    model = account.sagemaker.describe_model(ModelName="m")
    assert model["PrimaryContainer"] == {**container, "MultiModelConfig": {}}
    assert {"Containers", "VpcConfig", "Tags"}.isdisjoint(model)
    assert model["EnableNetworkIsolation"] is False
    variant = {**REALTIME, "VolumeSizeInGB": 20, "RoutingConfig": {"RoutingStrategy": "RANDOM"}}
    capture = {
        "InitialSamplingPercentage": 10,
        "DestinationS3Uri": "s3://b/k",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    account.config("m", variant, DataCaptureConfig=capture, KmsKeyId="key")
    config = account.sagemaker.describe_endpoint_config(EndpointConfigName="m")
    given = {"VariantName": "AllTraffic", "ModelName": "m", "InitialVariantWeight": 1.0, **variant}
    assert config["ProductionVariants"] == [given]
    assert (config["DataCaptureConfig"], config["KmsKeyId"]) == (capture, "key")
    assert {"AsyncInferenceConfig", "VpcConfig", "ShadowProductionVariants"}.isdisjoint(config)


def test_regions_and_accounts_do_not_see_each_other(server: Server, account: Account) -> None:
    account.model("m")
    other_region = Account(server, "us-other-1", account.account)
    other_account = Account(server, account.region, "999999999999")
    for other in (other_region, other_account):
        assert other.sagemaker.list_models()["Models"] == []
        describe = partial(other.sagemaker.describe_model, ModelName="m")
        assert refusal(describe) == (
            "ValidationException",
            f'Could not find model "{other.arn("model", "m")}".',
        )
        other.model("m")  # the name is free there
        other.sagemaker.delete_model(ModelName="m")
    account.sagemaker.describe_model(ModelName="m")


def test_one_name_in_two_regions_is_two_endpoints_and_two_bills(server: Server) -> None:
    name, regions = "twins", ("eu-west-1", "us-east-1")
    twins = [Account(server, region) for region in regions]
    for twin in twins:
        twin.deploy(name, SERVERLESS)
    for _ in range(3):
        twins[0].invoke(name)
    assert refusal(lambda: Account(server, REGION).invoke(name)) == (
        "ValidationError",
        f"Endpoint {name} of account {ACCOUNT} not found.",
    )
    bills = {
        one["region"]: one
        for one in server.client.get("/billing").json()["endpoints"]
        if one["name"] == name
    }
    assert {region: bills[region]["invocations"] for region in regions} == {
        "eu-west-1": 3,
        "us-east-1": 0,
    }
    assert all(line["usage_type"].startswith("EU-") for line in bills["eu-west-1"]["lines"])
    for twin in twins:
        twin.delete(name)


def test_a_12_digit_access_key_is_the_account_and_another_one_is_not(server: Server) -> None:
    body = json.dumps({"ModelName": "nobodys"})
    said = {}
    for key in ("AKIDEXAMPLE", "000000000007"):
        headers = {"x-amz-target": "SageMaker.DescribeModel", **scope_of("sagemaker", key, REGION)}
        answer = server.client.post("/", content=body, headers=headers)
        said[key] = answer.json()["message"]
    assert f":{ACCOUNT}:" in said["AKIDEXAMPLE"]
    assert ":000000000007:" in said["000000000007"]


# -- lists ----------------------------------------------------------------------------------------


def test_lists_are_paged_sorted_and_filtered(server: Server, account: Account) -> None:
    names = [f"m{number:02}" for number in range(25)] + ["other"]
    for name in names:
        account.model(name)
        server.client.post("/_emulator/clock/advance", json={"seconds": 1})
    sagemaker = account.sagemaker
    first = sagemaker.list_models()
    assert [one["ModelName"] for one in first["Models"]] == names[:-11:-1]  # newest first, ten
    paginator = sagemaker.get_paginator("list_models")
    pages = list(
        paginator.paginate(
            SortBy="Name",
            SortOrder="Ascending",
            NameContains="M",
            PaginationConfig={"PageSize": 7},
        )
    )
    assert [len(page["Models"]) for page in pages] == [7, 7, 7, 4]
    assert [m["ModelName"] for page in pages for m in page["Models"]] == names[:-1]
    middle = sagemaker.describe_model(ModelName="m12")["CreationTime"]
    after = sagemaker.list_models(CreationTimeAfter=middle, MaxResults=100)["Models"]
    before = sagemaker.list_models(CreationTimeBefore=middle, MaxResults=100)["Models"]
    assert (len(after), len(before)) == (13, 12)
    for nonsense in ("bm9uZQ==", "WyJhIl0=", "!", first["NextToken"][:-4]):
        for order in ("Name", "CreationTime"):
            wrong = partial(sagemaker.list_models, NextToken=nonsense, SortBy=order)
            code_, message = refusal(wrong)
            assert (code_, "NextToken" in message) == ("ValidationException", True)
    other_order = partial(sagemaker.list_models, NextToken=first["NextToken"], SortBy="Name")
    assert refusal(other_order)[0] == "ValidationException"
    # What comes and goes between two pages neither repeats nor hides an entry.
    page = sagemaker.list_models(SortBy="Name", SortOrder="Ascending", MaxResults=5)
    sagemaker.delete_model(ModelName="m02")
    account.model("m00a")
    rest = sagemaker.list_models(
        SortBy="Name", SortOrder="Ascending", MaxResults=100, NextToken=page["NextToken"]
    )
    assert [one["ModelName"] for one in rest["Models"]] == names[5:]


def test_endpoints_are_filtered_by_status_and_change(account: Account) -> None:
    account.model("broken", "file:///nowhere/model.tar.gz")
    account.config("broken", SERVERLESS)
    account.endpoint("broken")
    account.deploy("whole", SERVERLESS)
    assert account.settled("broken")["EndpointStatus"] == "Failed"
    listed = account.sagemaker.list_endpoints
    assert [one["EndpointName"] for one in listed(StatusEquals="Failed")["Endpoints"]] == ["broken"]
    (whole,) = listed(StatusEquals="InService")["Endpoints"]
    assert set(whole) == {
        "EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus"
    }  # fmt: skip
    assert len(listed(LastModifiedTimeBefore=whole["CreationTime"])["Endpoints"]) == 0
    found = account.sagemaker.list_endpoint_configs(NameContains="hole")["EndpointConfigs"]
    assert [one["EndpointConfigName"] for one in found] == ["whole"]


# -- tags -----------------------------------------------------------------------------------------


def test_tags_are_added_replaced_listed_and_taken_away(account: Account) -> None:
    arn = account.model("m")
    sagemaker = account.sagemaker
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == []
    sagemaker.add_tags(
        ResourceArn=arn, Tags=[{"Key": "b", "Value": "1"}, {"Key": "a", "Value": ""}]
    )
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "ü"}])
    wanted = [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "ü"}]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == wanted
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a", "none"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == wanted[1:]
    many = [{"Key": f"k{number}", "Value": "v"} for number in range(50)]
    code_, message = refusal(lambda: sagemaker.add_tags(ResourceArn=arn, Tags=many))
    assert (code_, "has at most 50" in message) == ("ValidationException", True)
    none = account.arn("endpoint", "none")
    assert "Could not find" in refusal(lambda: sagemaker.list_tags(ResourceArn=none))[1]


# -- what is refused ------------------------------------------------------------------------------


def test_names_that_are_taken_and_names_of_nothing(account: Account) -> None:
    sagemaker = account.sagemaker
    account.deploy("One", SERVERLESS)
    already = "Cannot create already existing"
    assert refusal(lambda: account.model("One"))[1] == (
        f'{already} model "{account.arn("model", "One")}".'
    )
    assert refusal(lambda: account.config("One", SERVERLESS))[1] == (
        f'{already} endpoint configuration "{account.arn("endpoint-config", "One")}".'
    )
    assert refusal(lambda: account.endpoint("ONE", "One"))[1] == (
        f'{already} endpoint "{account.arn("endpoint", "One")}".'
    )
    missing = [
        ("model", lambda: sagemaker.describe_model(ModelName="x")),
        ("model", lambda: sagemaker.delete_model(ModelName="x")),
        ("model", lambda: account.config("x", SERVERLESS)),
        ("endpoint-config", lambda: sagemaker.describe_endpoint_config(EndpointConfigName="x")),
        ("endpoint-config", lambda: sagemaker.delete_endpoint_config(EndpointConfigName="x")),
        ("endpoint-config", lambda: account.endpoint("x")),
        ("endpoint", lambda: sagemaker.describe_endpoint(EndpointName="x")),
        ("endpoint", lambda: sagemaker.delete_endpoint(EndpointName="x")),
        (
            "endpoint",
            lambda: sagemaker.update_endpoint(EndpointName="x", EndpointConfigName="One"),
        ),
    ]
    words = {"endpoint-config": "endpoint configuration"}
    for kind, work in missing:
        expected = f'Could not find {words.get(kind, kind)} "{account.arn(kind, "x")}".'
        assert refusal(work) == ("ValidationException", expected)


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ([{**REALTIME, **SERVERLESS}], "either a serverless configuration or instances"),
        ([{}], "either a serverless configuration or instances"),
        ([{"ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 1}}], "one of 1024"),
        (
            [
                {
                    "ServerlessConfig": {
                        "MemorySizeInMB": 1024,
                        "MaxConcurrency": 1,
                        "ProvisionedConcurrency": 2,
                    }
                }
            ],
            "at most MaxConcurrency",
        ),
        ([SERVERLESS, REALTIME], "no other variant"),
        (
            [{**REALTIME, "RoutingConfig": {"RoutingStrategy": "KV_AWARE"}}],
            "KV_AWARE is not hosted",
        ),
        ([{"InstanceType": "ml.m5.large"}], "instance count 0"),
    ],
)
def test_configurations_that_no_endpoint_can_have(
    account: Account, variants: list[dict[str, Any]], said: str
) -> None:
    account.model("m")
    code_, message = refusal(lambda: account.config("m", *variants))
    assert code_ == "ValidationException"
    assert said in message
    assert account.sagemaker.list_endpoint_configs()["EndpointConfigs"] == []


def test_what_is_not_hosted_here_says_so_when_an_endpoint_is_made_of_it(account: Account) -> None:
    account.model("m")
    output = {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}
    account.config("async", REALTIME, model="m", AsyncInferenceConfig=output)
    code_, message = refusal(lambda: account.endpoint("async"))
    assert code_ == "ValidationException"
    assert "AsyncInferenceConfig, which is not hosted here" in message
    account.model("multi", Mode="MultiModel")
    account.config("multi", REALTIME)
    assert "multi-model" in refusal(lambda: account.endpoint("multi"))[1]


def test_quotas_count_the_endpoints_of_the_account_in_the_region(account: Account) -> None:
    account.model("m")
    large = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 200}}
    for name in ("one", "two", "three"):
        account.config(name, large, model="m")
    account.endpoint("one")
    account.endpoint("two")
    code_, message = refusal(lambda: account.endpoint("three"))
    assert code_ == "ResourceLimitExceeded"
    assert (
        "is 500 requests, with current utilization of 400 requests and a request delta of 200"
        in (message)
    )
    account.config("many", {**REALTIME, "InitialInstanceCount": 21}, model="m")
    assert refusal(lambda: account.endpoint("many")) == (
        "ResourceLimitExceeded",
        "The account-level service limit 'ml.m5.large for endpoint usage' is 20 Instances, with "
        "current utilization of 0 Instances and a request delta of 21 Instances. Please use AWS "
        "Service Quotas to request an increase for this quota. If AWS Service Quotas is not "
        "available, contact AWS support to request an increase for this quota.",
    )


def test_of_many_creates_of_one_name_exactly_one_wins(account: Account) -> None:
    account.model("m")
    account.config("m", SERVERLESS)
    start = threading.Barrier(8)

    def create(_: int) -> str:
        own = Account(account.server, account.region, account.account)
        start.wait(30)
        try:
            own.endpoint("m")
        except ClientError as error:
            return code(error)
        return "created"

    with ThreadPoolExecutor(8) as pool:
        ends = sorted(pool.map(create, range(8)))
    assert ends == ["ValidationException"] * 7 + ["created"]
    assert account.settled("m")["EndpointStatus"] == "InService"


def test_what_is_in_progress_is_neither_deleted_nor_updated(
    account: Account, tmp_path: Path
) -> None:
    slow = archive(tmp_path, "import time\ntime.sleep(3)\n" + RAISES)
    account.model("slow", f"file://{slow}")
    account.config("slow", SERVERLESS)
    account.endpoint("slow")
    in_progress = f'Cannot update in-progress endpoint "{account.arn("endpoint", "slow")}".'
    for work in (
        lambda: account.sagemaker.delete_endpoint(EndpointName="slow"),
        lambda: account.sagemaker.update_endpoint(EndpointName="slow", EndpointConfigName="slow"),
        lambda: account.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="slow",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredWeight": 2}],
        ),
    ):
        assert refusal(work) == ("ValidationException", in_progress)
    assert account.settled("slow")["EndpointStatus"] == "InService"


# -- models that cannot be served -----------------------------------------------------------------


def test_a_failed_endpoint_says_why_and_can_only_be_deleted(
    account: Account, tmp_path: Path
) -> None:
    account.model("broken", f"file://{archive(tmp_path, BREAKS)}")
    account.config("broken", SERVERLESS)
    account.endpoint("broken")
    failed = account.settled("broken")
    assert failed["EndpointStatus"] == "Failed"
    assert "no use" in failed["FailureReason"]
    assert "ProductionVariants" not in failed
    refused = refusal(
        lambda: account.sagemaker.update_endpoint(
            EndpointName="broken", EndpointConfigName="broken"
        )
    )
    assert "with status Failed; it can only be deleted" in refused[1]
    assert refusal(lambda: account.invoke("broken"))[0] == "ValidationError"
    waiter = account.sagemaker.get_waiter("endpoint_in_service")
    with pytest.raises(Exception, match="terminal failure state"):
        waiter.wait(EndpointName="broken", WaiterConfig={"Delay": 1, "MaxAttempts": 2})
    account.delete("broken")


@pytest.mark.parametrize(
    ("image", "url", "said"),
    [
        (IMAGE, "/nowhere/model.tar.gz", "There is no model at /nowhere/model.tar.gz."),
        (IMAGE, "file://elsewhere/m.tar.gz", "it is on another machine"),
        (IMAGE, "/a\0b", "no path has a NUL in it"),
        ("own:1", SHIPPED, "own:1"),
        (IMAGE, "https://example.com/m.tar.gz", "no address of S3"),
    ],
)
def test_what_is_missing_is_said(account: Account, image: str, url: str, said: str) -> None:
    if url.startswith("https"):
        assert said in refusal(lambda: account.model("m", url, image))[1]
        return
    account.model("m", url, image)
    account.config("m", SERVERLESS)
    account.endpoint("m")
    failed = account.settled("m")
    assert failed["EndpointStatus"] == "Failed"
    assert said in failed["FailureReason"]


@pytest.mark.parametrize("packed", [False, True], ids=["no gzip", "zeros in gzip"])
def test_an_archive_of_2_gb_is_refused_without_reading_it_all(
    account: Account, tmp_path: Path, packed: bool
) -> None:
    path = tmp_path / "model.tar.gz"
    with path.open("wb") as file:
        if packed:
            file.write(gzip.compress(bytes(1 << 26), 1) * 32)
        else:
            file.truncate(2 << 30)
    account.model("large", f"file://{path}")
    account.config("large", SERVERLESS)
    account.endpoint("large")
    failed = account.settled("large")
    assert failed["EndpointStatus"] == "Failed"
    assert f"The archive file://{path} is refused" in failed["FailureReason"]


def test_an_archive_in_s3_is_served_and_a_missing_one_is_refused(
    account: Account, tmp_path: Path
) -> None:
    s3 = client(account.server, "s3", account.account, account.region)
    bucket = f"models-{account.account}"
    s3.create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region}
    )
    s3.upload_file(str(archive(tmp_path, RAISES)), bucket, "m/model.tar.gz")
    s3.put_object(Bucket=bucket, Key="none.tar.gz", Body=b"not an archive")
    url = f"s3://{bucket}/m/model.tar.gz"
    missing = refusal(lambda: account.model("missing", f"s3://{bucket}/nothing.tar.gz"))
    assert missing[0] == "ValidationException"
    assert f"Could not find model data at s3://{bucket}/nothing.tar.gz." in missing[1]
    account.deploy("here", SERVERLESS, url=url)
    with pytest.raises(ClientError) as caught:
        account.invoke("here")
    assert code(caught.value) == "ModelError"
    assert json.loads(caught.value.response["OriginalMessage"]) == {"error": "no"}
    account.model("garbage", f"s3://{bucket}/none.tar.gz")
    account.config("garbage", SERVERLESS)
    account.endpoint("garbage")
    reason = account.settled("garbage")["FailureReason"]
    assert f"s3://{bucket}/none.tar.gz" in reason
    assert ".fetched" not in reason
    # The copy is the endpoint's: what happens to the object later does not matter to it.
    s3.delete_object(Bucket=bucket, Key="m/model.tar.gz")
    account.endpoint("again", "here")
    failed = account.settled("again")
    assert failed["EndpointStatus"] == "Failed"
    assert url in failed["FailureReason"]
    with pytest.raises(ClientError):
        account.invoke("here")


def test_an_endpoint_outlives_its_model_and_its_configuration(account: Account) -> None:
    account.deploy("free", SERVERLESS)
    account.sagemaker.delete_model(ModelName="free")
    account.sagemaker.delete_endpoint_config(EndpointConfigName="free")
    assert len(account.invoke("free")[0]) == 10
    assert account.describe("free")["EndpointConfigName"] == "free"


def test_two_variants_share_the_traffic_by_weight(account: Account) -> None:
    one = {**REALTIME, "InitialVariantWeight": 3.0}
    account.deploy("two", one, {**REALTIME, "InitialVariantWeight": 0.0})
    ask = account.runtime.invoke_endpoint
    given = {"EndpointName": "two", "Body": SNEAKER, "ContentType": "application/json"}
    assert {ask(**given)["InvokedProductionVariant"] for _ in range(20)} == {"AllTraffic"}
    assert ask(**given, TargetVariant="B1")["InvokedProductionVariant"] == "B1"


# -- malformed requests ---------------------------------------------------------------------------


def post(server: Server, target: str, body: bytes, **headers: str) -> httpx.Response:
    return server.client.post("/", content=body, headers={"x-amz-target": target, **headers})


@pytest.mark.parametrize("target", ["SageMaker.Nothing", "SageMaker.", "SageMaker.createModel"])
def test_an_operation_that_is_not_there(server: Server, target: str) -> None:
    answer = post(server, target, b"{}")
    assert answer.status_code == 400
    assert answer.json() == {"__type": "UnknownOperationException"}
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"


def test_a_target_of_no_service(server: Server) -> None:
    answer = post(server, "Nonsense.CreateModel", b"{}")
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "The body is not JSON"),
        (b"\xff\xfe", "The body is not JSON"),
        (b"[" * 100_000, "The body is not JSON"),
        (b"[]", "Start of list found where not expected."),
        (b"7", "expected a structure"),
        (b'{"EndpointName": 7}', "NUMBER_VALUE can not be converted to a String"),
        (b'{"EndpointName": {}}', "Start of structure or map found where not expected."),
    ],
)
def test_a_body_that_is_not_what_the_operation_takes(
    server: Server, body: bytes, said: str
) -> None:
    answer = post(server, "SageMaker.DescribeEndpoint", body)
    assert answer.status_code == 400
    assert answer.json()["__type"] == "SerializationException"
    assert said in answer.json()["message"]


def test_a_message_stays_short_whatever_is_wrong(server: Server) -> None:
    body = json.dumps({"ModelName": "m", "Tags": [{}] * 200_000}).encode()
    answer = post(server, "SageMaker.CreateModel", body)
    assert answer.json()["message"].startswith("50 validation errors detected: ")
    assert len(answer.content) < 50_000


def test_a_body_of_50_mb_is_refused_and_the_server_goes_on(server: Server) -> None:
    answer = post(server, "SageMaker.DescribeEndpoint", b" " * (50 << 20))
    assert answer.status_code == 413
    assert answer.json()["__type"] == "RequestEntityTooLargeException"
    assert server.client.get("/ping").status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "garbage",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=",
        "AWS4-HMAC-SHA256 Credential=a/19700101/us-east-1/sagemaker/aws4_request",
        "AWS4-HMAC-SHA256 Credential=" + "a" * 10_000,
    ],
)
def test_garbage_for_a_signature_is_no_fault(server: Server, authorization: str) -> None:
    headers = {"authorization": authorization, "x-amz-date": "19700101T000000Z"}
    answer = post(server, "SageMaker.ListModels", b"{}", **headers)
    assert answer.status_code == 200
    assert "Models" in answer.json()


def test_an_unsigned_call_is_in_the_servers_own_region(server: Server) -> None:
    listed = post(server, "SageMaker.ListEndpoints", b'{"NameContains": "fashion-mnist-real"}')
    (one,) = listed.json()["Endpoints"]
    assert one["EndpointArn"].startswith(f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/")


def test_members_that_the_model_does_not_know_are_ignored(server: Server) -> None:
    answer = post(server, "SageMaker.ListModels", b'{"Future": {"a": [1]}, "NextToken": null}')
    assert answer.status_code == 200


# -- over a restart -------------------------------------------------------------------------------


def test_a_server_killed_while_an_endpoint_is_made_goes_on_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        account = Account(server, "eu-west-1")
        slow = archive(tmp_path, "import time\ntime.sleep(2)\n" + RAISES)
        for name, url in (("slow", f"file://{slow}"), ("missing", "file:///nowhere.tar.gz")):
            account.model(name, url)
            account.config(name, SERVERLESS)
            account.endpoint(name, Tags=[{"Key": "k", "Value": "v"}])
        account.deploy("old", SERVERLESS)
        account.config("next", REALTIME, model="slow")
        account.sagemaker.update_endpoint(EndpointName="old", EndpointConfigName="next")
        server.stop(signal.SIGKILL)
        server.start()
        account = Account(server, "eu-west-1")
        assert account.settled("slow")["EndpointStatus"] == "InService"
        assert account.settled("missing")["EndpointStatus"] == "Failed"
        updated = account.settled("old")
        assert (updated["EndpointStatus"], updated["EndpointConfigName"]) == ("InService", "next")
        arn = account.arn("endpoint", "slow")
        assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
        left = [path.suffix for path in (server.state / "models").iterdir()]
        assert left in ([""] * 2, [""] * 3)  # slow's and old's may be one copy
