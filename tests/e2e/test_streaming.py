"""InvokeEndpointWithResponseStream, by boto3's own client and by hand."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EventStreamError

from tests.runtime import events, runtime
from tests.servers import SNEAKER, Server, archive, realtime, serverless, until

SCRIPT = """
import json, os, threading, time

gate = threading.Event()

def model_fn(model_dir): return None
def input_fn(body, content_type): return body.decode()
def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "parts=1")
    return prediction, accept if "/" in accept else "text/plain"

def predict_fn(data, model):
    command, _, argument = data.partition(" ")
    return globals()["do_" + command](argument)

def do_count(last):
    for number in range(int(last)): yield f"{number};"
def do_wait(path):
    yield "begun;"
    while not os.path.exists(path): time.sleep(0.005)
    yield "ended;"
def do_plain(text): return text
def do_fail(text): raise ValueError(text)
def do_late(text):
    yield "begun;"
    raise ValueError(text)
def do_exit(code):
    yield "begun;"
    os._exit(int(code))
def do_hang(_):
    yield "begun;"
    gate.wait()
def do_large(size):
    for _ in range(int(size) >> 16): yield bytes(1 << 16)
def do_odd(_):
    yield "begun;"
"""
HANDLER = """
import json

def input_handler(data, context):
    return data.read().decode()

def output_handler(response, context):
    def words():
        for row in json.loads(response.content)["predictions"]:
            yield str(row.index(max(row))) + ";"
    return words(), context.accept_header
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(SCRIPT)
        tar.addfile(member, io.BytesIO(SCRIPT.encode()))
    return path


@pytest.fixture(scope="module")
def endpoint(server: Server, model: Path) -> Iterator[str]:
    server.deploy("streams", realtime(model))
    yield "streams"
    server.delete("streams")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with runtime(server) as made:
        yield made


def streamed(client: Any, endpoint: str, body: str, **more: str) -> Any:
    return client.invoke_endpoint_with_response_stream(
        EndpointName=endpoint, Body=body.encode(), **{"ContentType": "text/plain"} | more
    )


def parts(answer: Any) -> list[bytes]:
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def broken(answer: Any) -> tuple[list[bytes], Any]:
    """The parts up to the error in band, and that."""
    found: list[bytes] = []
    try:
        with events(answer) as coming:
            for event in coming:
                found.append(event["PayloadPart"]["Bytes"])
    except EventStreamError as error:
        return found, error
    raise AssertionError("it ended in order")


def row(server: Server, endpoint: str, answer: Any) -> dict[str, Any]:
    """What the ledger keeps of a call."""
    request_id = answer["ResponseMetadata"]["RequestId"]
    return next(one for one in server.rows(endpoint) if one["request_id"] == request_id)


def test_parts_arrive_as_they_are_yielded(
    server: Server, endpoint: str, client: Any, tmp_path: Path
) -> None:
    """The second part waits for a file that is made after the first has come."""
    flag = server.state / "gate"
    answer = streamed(client, endpoint, f"wait {flag}", Accept="text/x-own", InferenceId="i1")
    assert answer["ContentType"] == "text/x-own"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "parts=1"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"] == (
        "application/vnd.amazon.eventstream"
    )
    with events(answer) as coming:
        assert next(coming) == {"PayloadPart": {"Bytes": b"begun;"}}
        flag.touch()
        assert next(coming) == {"PayloadPart": {"Bytes": b"ended;"}}
        assert list(coming) == []
    kept = row(server, endpoint, answer)
    assert (kept["status"], kept["error_code"], kept["response_bytes"]) == (200, "", 12)
    assert kept["inference_id"] == "i1"
    assert kept["model_latency_us"] > 0


def test_many_parts_and_none_lost(endpoint: str, client: Any) -> None:
    assert parts(streamed(client, endpoint, "count 2000")) == [b"%d;" % n for n in range(2000)]


def test_what_is_not_yielded_is_one_part(server: Server, endpoint: str, client: Any) -> None:
    answer = streamed(client, endpoint, "plain whole")
    assert answer["ContentType"] == "application/json"
    assert parts(answer) == [b"whole"]
    assert row(server, endpoint, answer)["response_bytes"] == 5


def test_invoke_endpoint_collects(server: Server, endpoint: str, client: Any) -> None:
    answer = client.invoke_endpoint(EndpointName=endpoint, Body=b"count 3", ContentType="a/b")
    assert answer["Body"].read() == b"0;1;2;"
    late = server.invoke(endpoint, b"late no such luck", {"content-type": "a/b"})
    assert (late.status_code, late.json()["OriginalStatusCode"]) == (424, 500)


def test_an_error_before_the_first_part_is_a_plain_one(
    server: Server, endpoint: str, client: Any
) -> None:
    with pytest.raises(client.exceptions.ModelError) as caught:
        streamed(client, endpoint, "fail no such luck")
    assert caught.value.response["OriginalStatusCode"] == 500
    assert "no such luck" in caught.value.response["OriginalMessage"]
    assert row(server, endpoint, caught.value.response)["error_code"] == "ModelError"
    with pytest.raises(client.exceptions.ValidationError, match="Endpoint nobody of account"):
        streamed(client, "nobody", "plain x")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("late no such luck", 'Received server error (500) from primary with message "'),
        ("exit 3", "the model process exited. The process ended with exit code 3."),
    ],
)
def test_an_error_in_the_middle_is_in_band(
    server: Server, endpoint: str, client: Any, body: str, said: str
) -> None:
    answer = streamed(client, endpoint, body)
    found, error = broken(answer)
    assert found == [b"begun;"]
    assert error.response["Error"]["Code"] == "ModelStreamError"
    assert said in error.response["Error"]["Message"]
    kept = row(server, endpoint, answer)
    assert (kept["status"], kept["error_code"]) == (424, "ModelStreamError")
    assert kept["response_bytes"] >= 6
    until(lambda: server.environments(endpoint)[0]["state"] == "idle", "it is replaced")


def test_the_error_code_is_in_the_event(server: Server, endpoint: str) -> None:
    """boto3 does not show it, so the event is looked at as it is on the wire."""
    path = f"/endpoints/{endpoint}/invocations-response-stream"
    answer = server.client.post(path, content=b"late x", headers={"content-type": "text/plain"})
    assert answer.status_code == 200
    assert b'"ErrorCode":"StreamBroken"' in answer.content


def test_eight_minutes_and_not_one_second_more(server: Server, endpoint: str, client: Any) -> None:
    answer = streamed(client, endpoint, "hang")
    with events(answer) as coming:
        assert next(coming) == {"PayloadPart": {"Bytes": b"begun;"}}
        server.advance(479)
        assert server.endpoint(endpoint)["in_flight"] == 1
        server.advance(1)
        with pytest.raises(EventStreamError, match=r"ModelStreamError.*Your invocation timed out"):
            next(coming)
    assert row(server, endpoint, answer)["error_code"] == "ModelStreamError"


def test_a_client_that_leaves_frees_the_environment(server: Server, endpoint: str) -> None:
    (before,) = server.environments(endpoint)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        body = b"large %d" % (20 << 20)
        connection.sendall(
            b"POST /endpoints/%s/invocations-response-stream HTTP/1.1\r\nhost: localhost\r\n"
            b"x-amzn-sagemaker-inference-id: leaves\r\n"
            b"content-type: text/plain\r\ncontent-length: %d\r\n\r\n%s"
            % (endpoint.encode(), len(body), body)
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert server.environments(endpoint)[0]["state"] == "busy"  # it waits for this client
    until(lambda: server.environments(endpoint)[0]["state"] == "idle", "it is free again")
    (after,) = server.environments(endpoint)
    assert after["pid"] == before["pid"]
    (kept,) = [one for one in server.rows(endpoint) if one["inference_id"] == "leaves"]
    assert kept["status"] == 200
    assert 0 < kept["response_bytes"] < 20 << 20


def test_a_slow_client_does_not_make_the_server_grow(server: Server, endpoint: str) -> None:
    def resident() -> int:
        text = Path(f"/proc/{server.process.pid}/statm").read_text()
        return int(text.split()[1]) * 4096

    before = resident()
    path = f"/endpoints/{endpoint}/invocations-response-stream"
    headers = {"content-type": "text/plain"}
    size = 0
    with server.client.stream("POST", path, content=b"large 20000000", headers=headers) as got:
        for chunk in got.iter_raw(1 << 20):
            size += len(chunk)
            assert resident() - before < 8 << 20
    assert size > 19_900_000


def test_over_the_limit_of_an_answer(server: Server, endpoint: str, client: Any) -> None:
    found, error = broken(streamed(client, endpoint, f"large {30 << 20}"))
    assert sum(map(len, found)) <= 25 << 20
    assert "could not load the entire response body" in str(error)


def test_a_serverless_endpoint_streams_in_its_own_limits(
    server: Server, name: str, model: Path, client: Any
) -> None:
    server.deploy(name, serverless(model, concurrency=1))
    server.evict(name)
    answer = streamed(client, name, "hang")  # a cold start
    with events(answer) as coming:
        next(coming)
        with pytest.raises(client.exceptions.ClientError) as caught:
            streamed(client, name, "plain x")
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
        server.advance(60)
        with pytest.raises(EventStreamError, match="ModelStreamError"):
            next(coming)
    kept = next(one for one in server.rows(name) if one["cold_start"])
    assert kept["billed_ms"] >= 60_000


def test_a_stopped_endpoint_ends_its_streams(
    server: Server, name: str, model: Path, client: Any
) -> None:
    server.deploy(name, realtime(model))
    with events(streamed(client, name, "hang")) as coming:
        next(coming)
        server.delete(name)
        with pytest.raises(EventStreamError, match="InternalStreamFailure"):
            next(coming)


def test_a_handler_of_tensorflow_may_yield(
    server: Server, name: str, tmp_path: Path, client: Any
) -> None:
    server.deploy(name, serverless(archive(tmp_path, HANDLER)))
    answer = client.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=SNEAKER, ContentType="application/json", Accept="text/x-words"
    )
    assert answer["ContentType"] == "text/x-words"
    assert parts(answer) == [b"7;"]
    assert server.invoke(name).content == b"7;"


def test_a_model_without_code_answers_one_part(server: Server, client: Any) -> None:
    answer = client.invoke_endpoint_with_response_stream(
        EndpointName="fashion-mnist-realtime", Body=SNEAKER, ContentType="application/json"
    )
    (only,) = parts(answer)
    assert len(json.loads(only)["predictions"][0]) == 10


def test_streams_side_by_side(server: Server, name: str, model: Path, client: Any) -> None:
    server.deploy(name, serverless(model, concurrency=4))
    found: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda: found.append(parts(streamed(client, name, "count 300"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[b"%d;" % number for number in range(300)]] * 4
