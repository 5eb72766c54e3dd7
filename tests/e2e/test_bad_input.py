"""What a caller may get wrong: one clear answer each, and the server goes on."""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import JSON, SNEAKER, Server, archive, realtime, serverless, until

ENDPOINT = "fashion-mnist-serverless"
ROW = "[" + ",".join(["0.5"] * 28) + "]"
IMAGE = "[" + ",".join([ROW] * 28) + "]"


@pytest.fixture(autouse=True)
def _still_up(server: Server) -> Iterator[None]:
    yield
    assert server.invoke("fashion-mnist-realtime").status_code == 200
    assert server.invoke(ENDPOINT).status_code == 200


@pytest.mark.parametrize(
    "name", ["nobody", "NOBODY-2", "caf\u00e9", "a b", "..", "%2e%2e", "x" * 300]
)
def test_unknown_endpoint(server: Server, name: str) -> None:
    answer = server.client.post(
        httpx.URL(f"{server.url}/endpoints/").copy_with(
            raw_path=f"/endpoints/{httpx.QueryParams({'n': name})}/invocations"[:2000].encode()
        ),
        content=SNEAKER,
        headers=JSON,
    )
    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"] == "ValidationError"
    assert "of account 123456789012 not found." in answer.json()["Message"]


def test_unknown_endpoint_in_awss_words(server: Server) -> None:
    answer = server.invoke("nobody")
    assert answer.json() == {"Message": "Endpoint nobody of account 123456789012 not found."}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, ""),
        (b'{"instances": [[1, 2, 3]]}', 400, "28"),
        (b'{"instances": "seven"}', 400, ""),
        (b'{"instances": [[["x"]]]}', 400, ""),
        (f'{{"instances": [{IMAGE}, {ROW}]}}'.encode(), 400, ""),
        (f'{{"instances": [{IMAGE.replace("0.5", "NaN", 1)}]}}'.encode(), 400, ""),
        (f'{{"instances": [{IMAGE.replace("0.5", "1e400", 1)}]}}'.encode(), 400, ""),
        (f'{{"instances": [{IMAGE.replace("0.5", "1e39", 1)}]}}'.encode(), 400, ""),
        (b"[" * 100_000, 400, ""),
        (b"\xff\xfe\x00", 400, ""),
        (b'{"instances": []}', 400, ""),
        (b'{"instances": [], "instances": 3}', 400, ""),
    ],
    ids=[
        "malformed", "empty", "shape", "text", "strings", "ragged", "nan", "infinite", "overflow",
        "deep", "binary", "no-instances", "twice",
    ],
)  # fmt: skip
def test_bodies_that_the_container_refuses(
    server: Server, body: bytes, status: int, said: str
) -> None:
    answer = server.invoke(ENDPOINT, body)
    assert answer.status_code == 424
    assert answer.headers["x-amzn-errortype"] == "ModelError"
    wire = answer.json()
    assert wire["OriginalStatusCode"] == status
    assert said in wire["OriginalMessage"]
    assert wire["Message"].startswith("Received client error (400) from primary with message")
    assert len(wire["OriginalMessage"]) < 600
    assert server.rows(ENDPOINT)[-1]["status"] == 424


def test_content_type_that_the_container_does_not_know(server: Server) -> None:
    answer = server.invoke(ENDPOINT, SNEAKER, {"content-type": "application/xml"})
    assert answer.json()["OriginalStatusCode"] == 415
    assert "Unsupported Media Type: application/xml" in answer.json()["OriginalMessage"]


def test_accept_that_cannot_be_met(server: Server) -> None:
    answer = server.invoke(ENDPOINT, SNEAKER, {**JSON, "accept": "image/png"})
    assert answer.json()["OriginalStatusCode"] == 406
    assert "image/png" in answer.json()["OriginalMessage"]
    assert "application/json" in answer.json()["OriginalMessage"]


def test_chunked_body_without_a_length(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for at in range(0, len(SNEAKER), 1000):
            yield SNEAKER[at : at + 1000]

    answer = server.client.post(
        f"/endpoints/{ENDPOINT}/invocations", content=chunks(), headers=JSON
    )
    assert answer.status_code == 200


def test_chunked_body_over_the_limit(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            yield b" " * (1 << 20)

    answer = server.client.post(
        f"/endpoints/{ENDPOINT}/invocations", content=chunks(), headers=JSON
    )
    assert answer.status_code == 400
    assert "oversize body" in answer.json()["Message"]


def test_a_client_that_leaves_in_the_middle_of_its_body(server: Server) -> None:
    before = len(server.rows(ENDPOINT))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        head = f"POST /endpoints/{ENDPOINT}/invocations HTTP/1.1\r\nhost: x\r\n"
        raw.sendall(head.encode() + b"content-length: 1000\r\n\r\n{")
    until(lambda: server.endpoint(ENDPOINT)["in_flight"] == 0, "nothing is left in flight")
    assert len(server.rows(ENDPOINT)) == before


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("X-Amzn-SageMaker-Target-Model", "multi-model"),
        ("X-Amzn-SageMaker-Session-Id", "stateful session"),
        ("X-Amzn-SageMaker-Inference-Component", "inference component"),
        ("X-Amzn-SageMaker-Target-Container-Hostname", "pipeline"),
    ],
)
def test_what_these_endpoints_do_not_have(server: Server, header: str, said: str) -> None:
    answer = server.invoke(ENDPOINT, SNEAKER, {**JSON, header: "x"})
    assert answer.status_code == 400
    assert said in answer.json()["Message"]


def test_an_endpoint_that_is_not_in_service(server: Server, name: str, tmp_path: Path) -> None:
    script = "raise RuntimeError('the licence has expired')\n"
    server.create(name, realtime(archive(tmp_path, script)))
    assert server.settled(name)["status"] == "Failed"
    answer = server.invoke(name)
    assert answer.status_code == 400
    assert f"Endpoint {name} of account 123456789012 is not in service: Failed." in answer.text
    assert "the licence has expired" in answer.text


def test_a_serverless_endpoint_that_is_still_being_made(
    server: Server, name: str, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    script = (
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
        "def handler(data, context):\n    return b'{}', 'application/json'\n"
    )
    server.create(name, serverless(archive(tmp_path, script)))
    answer = server.invoke(name)
    assert answer.status_code == 429
    assert answer.headers["x-amzn-errortype"] == "ModelNotReadyException"
    assert "still being provisioned" in answer.json()["Message"]
    busy = server.client.delete(f"/_emulator/endpoints/{name}")
    assert "Cannot update in-progress endpoint" in busy.json()["detail"]
    gate.touch()
    assert server.settled(name)["status"] == "InService"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no model at"),
        (b"not gzip", "not a readable .tar.gz"),
        (b"", "not a readable .tar.gz"),
    ],
    ids=["missing", "corrupt", "empty"],
)
def test_model_archives_that_cannot_be_used(
    server: Server, name: str, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "model.tar.gz"
    if content is not None:
        path.write_bytes(content)
    answer = server.create(name, serverless(path))
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert str(path) in answer.json()["detail"]
    assert server.client.get(f"/_emulator/endpoints/{name}").status_code == 404


def test_a_directory_without_a_model_fails_with_a_reason(
    server: Server, name: str, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    server.create(name, serverless(tmp_path / "nothing"))
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "no SavedModel bundles found!" in endpoint["failure_reason"]


def test_a_keras_file_that_is_no_keras_file(server: Server, name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as packed:
        packed.writestr("config.json", "not really")
    server.create(name, serverless(tmp_path / "m.keras"))
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "m.keras" in endpoint["failure_reason"]
    assert "Traceback" not in endpoint["failure_reason"]


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("PUT", "/_emulator/endpoints/x", {"variants": []}, "body.variants is []"),
        ("PUT", "/_emulator/endpoints/x", {}, "body.variants"),
        ("PUT", "/_emulator/endpoints/x", {"variants": [{"model": "m"}]}, "exactly one of"),
        ("PUT", "/_emulator/endpoints/a_b", {"variants": [serverless()]}, "Value 'a_b'"),
        ("PUT", "/_emulator/endpoints/x", {"variants": [serverless(memory_mb=1500)]}, "1500"),
        ("PUT", "/_emulator/endpoints/x", {"variants": [serverless(concurrency=0)]}, "is 0"),
        ("PUT", "/_emulator/endpoints/x", {"variants": [realtime(instance_type="ml.t3.medium")]},
         "ml.t3.medium"),
        ("PUT", "/_emulator/endpoints/fashion-mnist-realtime", {"variants": [serverless()]},
         "already existing"),
        ("PUT", "/_emulator/endpoints/Fashion-MNIST-realtime", {"variants": [serverless()]},
         "already existing"),
        ("DELETE", "/_emulator/endpoints/nobody", None, "Could not find endpoint"),
        ("POST", "/_emulator/endpoints/nobody/evict", None, "Could not find endpoint"),
        ("POST", "/_emulator/clock/advance", {"seconds": "soon"}, "body.seconds is 'soon'"),
        ("POST", "/_emulator/clock/advance", {"seconds": -1}, "body.seconds is -1"),
        ("POST", "/_emulator/clock/advance", {"minutes": 1}, "body."),
        ("GET", "/_emulator/invocations?limit=0", None, "query.limit is '0'"),
        ("GET", "/_emulator/invocations?cursor=abc", None, "query.cursor is 'abc'"),
        ("GET", "/_emulator/invocations?since=yesterday", None, "query.since is 'yesterday'"),
        ("GET", "/_emulator/invocations?since=nan", None, "query.since is 'nan'"),
    ],
)  # fmt: skip
def test_our_own_rest_names_what_is_wrong(
    server: Server, method: str, path: str, body: object, said: str
) -> None:
    answer = server.client.request(method, path, json=body)
    assert 400 <= answer.status_code < 500
    assert said in answer.json()["detail"]


def test_only_post_invokes(server: Server) -> None:
    answer = server.client.get(f"/endpoints/{ENDPOINT}/invocations")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
