"""The AWS services around SageMaker, as boto3 meets them on the server's one port."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.aws import ACCOUNT, client, code, scope_of
from tests.servers import LIGHT, Server, serving

S3_BODY = bytes(range(256)) * 40


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> str:
    """A new bucket of this test's own, with one object, `a/b`."""
    name = "b-" + hashlib.md5(request.node.name.encode()).hexdigest()
    s3 = client(server, "s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket=name, Key="a/b", Body=S3_BODY, Metadata={"origin": "here"})
    return name


def refused(call: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(*given, **named)
    return code(caught.value)


def test_an_access_key_of_twelve_digits_is_the_account_and_any_other_the_servers(
    server: Server,
) -> None:
    identity = client(server, "sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    assert client(server, "sts", "test").get_caller_identity()["Account"] == "123456789012"
    assert (identity["UserId"], identity["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")


def test_objects_come_back_as_they_were_put(server: Server, bucket: str) -> None:
    s3 = client(server, "s3")
    got = s3.get_object(Bucket=bucket, Key="a/b")
    assert got["Body"].read() == S3_BODY
    assert got["Metadata"] == {"origin": "here"}
    assert got["ETag"] == f'"{hashlib.md5(S3_BODY).hexdigest()}"'
    part = s3.get_object(Bucket=bucket, Key="a/b", Range="bytes=250-259")
    assert part["Body"].read() == S3_BODY[250:260]
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [(one["Key"], one["Size"]) for one in listed] == [("a/b", len(S3_BODY)), ("empty", 0)]


def test_parts_copies_and_chunked_bodies_make_the_same_object(server: Server, bucket: str) -> None:
    s3 = client(server, "s3")
    body = S3_BODY * 1000  # two parts of what boto3 uploads at a time
    s3.upload_fileobj(io.BytesIO(body), bucket, "parts")
    s3.copy({"Bucket": bucket, "Key": "parts"}, bucket, "copied in parts")
    s3.copy_object(Bucket=bucket, Key="copied", CopySource=f"{bucket}/parts")
    s3.put_object(Bucket=bucket, Key="chunked", Body=io.BytesIO(body), ChecksumAlgorithm="SHA256")
    for key in ("parts", "copied in parts", "copied", "chunked"):
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body, key
    assert s3.head_object(Bucket=bucket, Key="parts")["ETag"].endswith('-2"')


def test_the_older_signature_and_addresses_that_are_signed_work(
    server: Server, bucket: str
) -> None:
    for version in ("s3", "s3v4"):
        s3 = client(server, "s3", signature_version=version)
        where = {"Bucket": bucket, "Key": "a/b"}
        assert httpx.get(s3.generate_presigned_url("get_object", where)).content == S3_BODY
        put = httpx.put(s3.generate_presigned_url("put_object", where), content=b"new")
        assert put.status_code == 200
        assert s3.get_object(**where)["Body"].read() == b"new"
        s3.put_object(**where, Body=S3_BODY)


def test_a_bucket_in_the_hosts_name_is_found(server: Server, bucket: str) -> None:
    for host in (f"{bucket}.localhost:8000", f"{bucket}.s3.eu-west-1.amazonaws.com"):
        got = server.client.get("/a/b", headers={"host": host, **scope_of("s3")})
        assert got.content == S3_BODY


def test_accounts_do_not_see_each_other(server: Server, bucket: str) -> None:
    other = client(server, "s3", "999988887777")
    assert other.list_buckets()["Buckets"] == []
    assert refused(other.get_object, Bucket=bucket, Key="a/b") in ("AccessDenied", "403")


def test_a_damaged_body_is_not_taken(server: Server, bucket: str) -> None:
    s3 = client(server, "s3")
    where = {"Bucket": bucket, "Key": "damaged", "Body": b"abc"}
    assert refused(s3.put_object, **where, ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==") == "BadDigest"
    assert refused(s3.put_object, **where, ChecksumCRC32="AAAAAA==") == "BadDigest"
    assert refused(s3.head_object, Bucket=bucket, Key="damaged") == "404"


def test_notifications_reach_a_queue(server: Server) -> None:
    sns, sqs = client(server, "sns"), client(server, "sqs")
    topic = sns.create_topic(Name="results")["TopicArn"]
    queue = sqs.create_queue(QueueName="results")["QueueUrl"]
    wanted = {"QueueUrl": queue, "AttributeNames": ["QueueArn"]}
    arn = sqs.get_queue_attributes(**wanted)["Attributes"]["QueueArn"]
    assert arn == f"arn:aws:sqs:eu-west-1:{ACCOUNT}:results"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="done")
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(message["Body"])["Message"] == "done"


def test_every_role_is_allowed_everything(server: Server) -> None:
    iam = client(server, "iam")
    actions = ["sagemaker:CreateModel", "s3:GetObject"]
    pages = iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:role/anybody", ActionNames=actions
    )
    results = [result for page in pages for result in page["EvaluationResults"]]
    decided = {result["EvalActionName"]: result["EvalDecision"] for result in results}
    assert decided == dict.fromkeys(actions, "allowed")


def test_other_services_and_regions(server: Server) -> None:
    role = client(server, "iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/r"
    repository = client(server, "ecr").create_repository(repositoryName="images")["repository"]
    assert repository["repositoryUri"] == f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/images"
    client(server, "logs").create_log_group(logGroupName="/g")
    assert len(client(server, "logs").describe_log_groups()["logGroups"]) == 1
    assert client(server, "logs", region="us-east-1").describe_log_groups()["logGroups"] == []


@pytest.mark.parametrize(
    ("dimension", "metric"),
    [
        ("DesiredInstanceCount", "SageMakerVariantInvocationsPerInstance"),
        ("DesiredProvisionedConcurrency", "SageMakerVariantProvisionedConcurrencyUtilization"),
    ],
)
def test_variants_can_be_registered_for_scaling(
    server: Server, dimension: str, metric: str
) -> None:
    scaling = client(server, "application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/e/variant/AllTraffic",
        "ScalableDimension": f"sagemaker:variant:{dimension}",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=4)
    scaling.put_scaling_policy(
        **target,
        PolicyName=dimension,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 70.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
        },
    )
    found = scaling.describe_scaling_policies(**target)["ScalingPolicies"]
    assert [one["PolicyName"] for one in found] == [dimension]
    (registered,) = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ScalableDimension=target["ScalableDimension"]
    )["ScalableTargets"]
    assert (registered["MinCapacity"], registered["MaxCapacity"]) == (1, 4)


def test_unknown_services_and_operations_are_refused_in_their_clients_form(
    server: Server,
) -> None:
    unknown = "UnknownOperationException"
    assert refused(client(server, "lambda").list_functions) == unknown
    assert refused(client(server, "dynamodb").list_tables) == unknown
    target = {"x-amz-target": "Nothing_20200101.Do", **scope_of("logs")}
    answer = server.client.post("/", headers=target, content=b"{}")
    assert (answer.status_code, answer.json()["__type"]) == (400, unknown)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/{bucket}?tagging", b"<<<"),
        ("POST", "/{bucket}?delete", b"no XML"),
        ("PATCH", "/{bucket}/key", b""),
        ("PUT", "/{bucket}/a/b?tagging", b"\xff\xfe"),
        ("POST", "/{bucket}/key", b"abc"),
        ("GET", "/{bucket}/a/b?versionId=..", b""),
        ("GET", "/%00", b""),
        ("PUT", "/{bucket}/key?partNumber=x&uploadId=1", b"abc"),
        ("GET", "/{bucket}?list-type=2&max-keys=-x", b""),
    ],
)
def test_garbage_for_s3_gets_an_error_as_s3_has_it(
    server: Server, bucket: str, method: str, path: str, body: bytes
) -> None:
    answer = server.client.request(
        method, path.format(bucket=bucket), content=body, headers=scope_of("s3")
    )
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/xml"
    assert b"<Code>" in answer.content
    assert b"Traceback" not in answer.content


@pytest.mark.parametrize("service", ["sts", "iam", "sns", "logs", "ecr", "monitoring", "sqs"])
def test_garbage_for_others_gets_an_error_too(server: Server, service: str) -> None:
    for headers in (
        {"x-amz-target": "Some.Thing", "content-type": "application/x-amz-json-1.1"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor"},
    ):
        for body in (b"\x00\xff garbage", b"Action=Nothing&Version=1", b"[]", b'{"a":'):
            answer = server.client.post("/", headers=headers | scope_of(service), content=body)
            assert 400 <= answer.status_code < 500, (headers, body, answer.text)
            assert answer.content
            assert b"Traceback" not in answer.content
            assert b"<!doctype html" not in answer.content.lower()


def test_another_emulator_answers_where_there_is_one(
    server: Server, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with serving(
        tmp_path_factory.mktemp("forwarding"), EMULATOR_COMPANION_URL=server.url, **LIGHT
    ) as front:
        s3 = client(front, "s3")
        assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == S3_BODY
        body = S3_BODY * 1000
        s3.put_object(Bucket=bucket, Key="through", Body=body)
        s3.upload_fileobj(io.BytesIO(body), bucket, "in parts")
        for key in ("through", "in parts"):
            got = client(server, "s3").get_object(Bucket=bucket, Key=key)
            assert got["Body"].read() == body
        assert refused(s3.get_object, Bucket=bucket, Key="none") == "NoSuchKey"
        assert client(front, "sts").get_caller_identity()["Account"] == ACCOUNT
        assert "objects" not in {path.name for path in front.state.iterdir()}


def test_another_emulator_that_is_not_there_is_named(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("alone")
    with serving(folder, EMULATOR_COMPANION_URL="http://127.0.0.1:1/", **LIGHT) as front:
        with pytest.raises(ClientError, match=r"companion http://127.0.0.1:1/ .* does not answer"):
            client(front, "sts").get_caller_identity()
        with pytest.raises(ClientError) as caught:
            client(front, "s3").put_object(Bucket="b", Key="k", Body=S3_BODY * 1000)
        assert code(caught.value) == "ServiceUnavailable"
