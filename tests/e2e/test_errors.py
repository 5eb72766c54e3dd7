"""Every error of the runtime, met by boto3's own client as its service model has it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
from botocore.exceptions import ClientError, EventStreamError

from emulator.injection import Error
from tests.runtime import events, runtime
from tests.servers import Server, realtime, serverless, until

SCRIPT = """
import os, threading

def model_fn(model_dir): return None
def input_fn(body, content_type): return body.decode()
def output_fn(prediction, accept): return prediction, "text/plain"
def predict_fn(data, model):
    if data == "hang": threading.Event().wait()
    if data == "exit": os._exit(9)
    if data == "large": return "x" * (26 << 20)
    if data.isdecimal():
        fault = ValueError("not like this")
        fault.status_code = int(data)
        raise fault
    return data
"""
SEE = (
    " See https://eu-west-3.console.aws.amazon.com/cloudwatch/home?region=eu-west-3"
    "#logEventViewer:group=/aws/sagemaker/Endpoints/errors in account 123456789012 for more "
    "information."
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("errors") / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(SCRIPT)
        tar.addfile(member, io.BytesIO(SCRIPT.encode()))
    return path


@pytest.fixture(scope="module")
def endpoint(server: Server, model: Path) -> Iterator[str]:
    server.deploy("errors", realtime(model))
    yield "errors"
    server.delete("errors")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with runtime(server) as made:
        yield made


def invoke(client: Any, endpoint: str, body: str | bytes = "x", **more: Any) -> Any:
    return client.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="a/b", **more)


def inject(server: Server, endpoint: str, **fault: Any) -> None:
    answer = server.client.put(f"/_emulator/endpoints/{endpoint}/faults", json=fault)
    assert answer.status_code == 200, answer.text


def set_fault(server: Server, endpoint: str) -> Any:
    return server.client.get(f"/_emulator/endpoints/{endpoint}/faults").json()["fault"]


def failed(client: Any, endpoint: str, body: str = "x", **more: Any) -> Any:
    with pytest.raises(ClientError) as caught:
        invoke(client, endpoint, body, **more)
    return caught.value.response


def row(server: Server, endpoint: str, answer: Any) -> dict[str, Any]:
    request_id = answer["ResponseMetadata"]["RequestId"]
    return next(one for one in server.rows(endpoint) if one["request_id"] == request_id)


# -- what the service model has -------------------------------------------------------------------


def modelled(client: Any) -> dict[str, int]:
    """The errors of both operations, and their statuses; 0 for those in a stream."""
    found = {}
    for name in ("InvokeEndpoint", "InvokeEndpointWithResponseStream"):
        for shape in client.meta.service_model.operation_model(name).error_shapes:
            found[shape.name] = shape.metadata.get("error", {}).get("httpStatusCode", 0)
    return found


def test_every_modelled_error_can_be_injected(client: Any) -> None:
    assert set(get_args(Error)) == {*modelled(client), "ThrottlingException"}


@pytest.mark.parametrize("code", get_args(Error))
def test_each_error_is_raised_as_what_it_is(
    server: Server, endpoint: str, client: Any, code: str
) -> None:
    status = modelled(client).get(code, 400)
    inject(server, endpoint, error=code, message="said so")
    if not status:  # in band
        answer = client.invoke_endpoint_with_response_stream(EndpointName=endpoint, Body=b"x")
        with events(answer) as coming, pytest.raises(EventStreamError) as broken:
            list(coming)
        assert broken.value.response["Error"] == {"Code": code, "Message": "said so"}
        assert row(server, endpoint, answer)["error_code"] == code
        return
    exception = getattr(client.exceptions, code, ClientError)
    for operation in (client.invoke_endpoint, client.invoke_endpoint_with_response_stream):
        inject(server, endpoint, error=code, message="said so")
        with pytest.raises(exception) as caught:
            operation(EndpointName=endpoint, Body=b"x")
        answer = caught.value.response
        assert answer["Error"]["Code"] == code
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
        if code == "ThrottlingException":
            assert answer["Error"]["Message"] is None
        else:
            assert "said so" in answer["Error"]["Message"]
        kept = row(server, endpoint, answer)
        assert (kept["status"], kept["error_code"]) == (status, code)
        assert (kept["billed_ms"], kept["environment"]) == (0, "")


# -- the forms of a ModelError --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "start", "status", "original"),
    [
        ("503", "Received server error (503)", 503, '{"error":"not like this"}'),
        ("404", "Received client error (404)", 404, '{"error":"not like this"}'),
        (
            "exit",
            "Received server error (0)",
            0,
            "An error occurred while handling request as the model process exited. "
            "The process ended with exit code 9.",
        ),
    ],
)
def test_a_model_error_of_the_container(
    endpoint: str, client: Any, body: str, start: str, status: int, original: str
) -> None:
    answer = failed(client, endpoint, body)
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["OriginalStatusCode"] == status
    assert answer["OriginalMessage"] == original
    assert answer["Error"]["Message"] == f'{start} from primary with message "{original}".{SEE}'
    assert answer["LogStreamArn"].startswith(
        "arn:aws:logs:eu-west-3:123456789012:log-group:/aws/sagemaker/Endpoints/errors:"
        "log-stream:AllTraffic/errors-"
    )


def test_a_model_error_of_a_time_limit(server: Server, endpoint: str, client: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(failed, client, endpoint, "hang")
        until(lambda: server.environments(endpoint)[0]["state"] == "busy", "it is at work")
        server.advance(60)
        answer = waiting.result()
    original = (
        "Your invocation timed out while waiting for a response from container primary. Review "
        "the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try "
        "again."
    )
    assert answer["OriginalMessage"].startswith(original)
    assert answer["Error"]["Message"].startswith(
        f'Received server error (0) from primary with message "{original}'
    )


def test_a_model_error_of_too_large_an_answer(endpoint: str, client: Any) -> None:
    assert failed(client, endpoint, "large")["Error"]["Message"] == (
        "Received server error (200) from primary and could not load the entire response body."
        + SEE
    )


def test_a_model_error_of_no_response(server: Server, endpoint: str, client: Any) -> None:
    inject(server, endpoint, error="ModelError")
    answer = failed(client, endpoint)
    assert answer["OriginalStatusCode"] == 0
    assert answer["Error"]["Message"] == (
        'Received server error (0) from model with message "Amazon SageMaker could not get a '
        "response from the errors endpoint. This can occur when CPU or memory utilization is high. "
        "To check your utilization, see Amazon CloudWatch. To fix this problem, use an instance "
        'type with more CPU capacity or memory.".' + SEE
    )
    inject(server, endpoint, error="ModelError", status=418, message="I am a teapot")
    answer = failed(client, endpoint)
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (418, "I am a teapot")


# -- injection ------------------------------------------------------------------------------------


def test_the_next_so_many_calls_fail_and_no_more(
    server: Server, endpoint: str, client: Any
) -> None:
    inject(server, endpoint, error="ServiceUnavailable", times=3)
    for left in (2, 1, 0):
        assert failed(client, endpoint)["Error"]["Code"] == "ServiceUnavailable"
        fault = set_fault(server, endpoint)
        assert (fault["times"] if fault else 0) == left
    assert invoke(client, endpoint)["Body"].read() == b"x"
    inject(server, endpoint, error="ServiceUnavailable", times=100)
    assert server.client.delete(f"/_emulator/endpoints/{endpoint}/faults").json() == {"fault": None}
    assert invoke(client, endpoint)["Body"].read() == b"x"


def test_clients_that_retry_get_through(server: Server, endpoint: str) -> None:
    inject(server, endpoint, error="ThrottlingException", times=2)
    with runtime(server, attempts=3) as patient:
        answer = invoke(patient, endpoint)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    metrics = server.client.get("/metrics").text
    throttles = next(
        line
        for line in metrics.splitlines()
        if line.startswith("sagemaker_throttles_total{") and '"errors"' in line
    )
    assert float(throttles.split()[-1]) >= 2


def test_errors_of_a_stream_leave_other_calls_alone(
    server: Server, endpoint: str, client: Any
) -> None:
    inject(server, endpoint, error="ModelStreamError", error_code="ModelInvocationTimeExceeded")
    assert invoke(client, endpoint)["Body"].read() == b"x"
    path = f"/endpoints/{endpoint}/invocations-response-stream"
    content = server.client.post(path, content=b"x").content
    assert b'"ErrorCode":"ModelInvocationTimeExceeded"' in content
    assert set_fault(server, endpoint) is None


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"error": "Nonsense"}, 422),
        ({"error": "InternalFailure", "times": 0}, 422),
        ({"error": "InternalFailure", "tmies": 1}, 422),
        ({"error": "InternalFailure", "status": 500}, 400),
        ({}, 422),
    ],
)
def test_faults_that_are_refused(
    server: Server, endpoint: str, fault: dict[str, Any], status: int
) -> None:
    path = f"/_emulator/endpoints/{endpoint}/faults"
    answer = server.client.put(path, json=fault)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    for method in ("GET", "PUT", "DELETE"):
        missing = server.client.request(
            method,
            "/_emulator/endpoints/nobody/faults",
            json={"error": "InternalFailure"} if method == "PUT" else None,
        )
        assert missing.status_code == 404


def test_a_fault_does_not_start_an_environment(
    server: Server, name: str, model: Path, client: Any
) -> None:
    server.deploy(name, serverless(model))
    server.evict(name)
    inject(server, name, error="ModelNotReadyException")
    assert failed(client, name)["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert server.environments(name) == []


# -- members --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("inference-id", "x" * 65, "at 'inferenceId' failed to satisfy constraint: Member must "
         "have length less than or equal to 64"),
        ("inference-id", "", "at 'inferenceId' failed to satisfy constraint: Member must have "
         "length greater than or equal to 1"),
        ("inference-id", "caf\u00e9", r"regular expression pattern: \A\S[\p{Print}]*\z"),
        ("prefix-aware-id", "x" * 65, "at 'prefixAwareId'"),
        ("target-variant", "x" * 64, "less than or equal to 63"),
        ("target-variant", "a_b", "Value 'a_b' at 'targetVariant' failed to satisfy constraint: "
         "Member must satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9])*"),
        ("custom-attributes", "x" * 1025, "Value at 'customAttributes' failed to satisfy "
         "constraint: Member must have length less than or equal to 1024"),
        ("custom-attributes", "gr\u00fcezi", "Value at 'customAttributes'"),
    ],
)  # fmt: skip
def test_members_are_held_to_the_service_model(
    server: Server, endpoint: str, header: str, value: str, said: str
) -> None:
    for path in ("invocations", "invocations-response-stream"):
        answer = server.client.post(
            f"/endpoints/{endpoint}/{path}",
            content=b"x",
            headers=[(b"x-amzn-sagemaker-" + header.encode(), value.encode("latin-1"))],
        )
        assert answer.status_code == 400
        assert answer.headers["x-amzn-errortype"] == "ValidationError"
        message = answer.json()["Message"]
        assert said in message
        assert "validation error" in message


def test_all_that_is_wrong_is_told_at_once(server: Server, endpoint: str, client: Any) -> None:
    answer = failed(client, endpoint, Accept="x" * 1025, InferenceId="x" * 65)
    assert answer["Error"]["Message"].startswith("2 validation errors detected: Value 'xxx")
    assert "at 'accept' failed" in answer["Error"]["Message"]
    assert "; Value '" + "x" * 65 + "' at 'inferenceId' failed" in answer["Error"]["Message"]


def test_the_members_that_are_taken(server: Server, endpoint: str, client: Any) -> None:
    answer = invoke(
        client,
        endpoint,
        Accept="text/plain",
        CustomAttributes="a" * 1024,
        TargetVariant="AllTraffic",
        InferenceId="i" * 64,
        PrefixAwareId="p",
    )
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"] == "text/plain"
    assert row(server, endpoint, answer)["inference_id"] == "i" * 64


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("TargetModel", "a.tar.gz"),
        ("TargetContainerHostname", "first"),
        ("EnableExplanations", "`true`"),
        ("InferenceComponentName", "part"),
        ("SessionId", "NEW_SESSION"),
    ],
)
def test_the_members_that_do_not_apply(endpoint: str, client: Any, member: str, value: str) -> None:
    answer = failed(client, endpoint, **{member: value})
    assert answer["Error"]["Code"] == "ValidationError"
    assert "which this endpoint is not; leave it out" in answer["Error"]["Message"]
