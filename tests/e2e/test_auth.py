"""Authentication on a real server: boto3 as it is, AWS's errors, the token, and web pages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.auth import Keys
from tests.servers import (
    DEADLINE_S,
    LIGHT,
    ROOT,
    SNEAKER,
    Server,
    environment,
    free_port,
    predictions,
    serving,
    until,
)
from tests.signing import Wired, signed

REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"
LIMIT = 1 << 20
OPEN = {"UVICORN_HOST": "0.0.0.0"}  # uvicorn's own option, as a variable


@dataclass(frozen=True)
class Guarded:
    """A server that others can reach, and what it has printed for its clients."""

    server: Server
    keys: Keys
    token: str

    @property
    def bare(self) -> httpx.Client:
        """A client without the token."""
        return httpx.Client(base_url=self.server.url, timeout=DEADLINE_S)

    def boto3(self, secret: str = "", key_id: str = "", region: str = "eu-west-3") -> Any:
        return boto3.client(
            "sagemaker-runtime",
            region_name=region,
            endpoint_url=self.server.url,
            aws_access_key_id=key_id or self.keys.access_key_id,
            aws_secret_access_key=secret or self.keys.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def signed(self, method: str, path: str, **more: Any) -> Wired:
        host = self.server.url.removeprefix("http://")
        return signed(method, path, keys=self.keys, host=host, **more)

    def send(self, wired: Wired) -> httpx.Response:
        query = b"?" + wired.query if wired.query else b""
        with self.bare as client:
            return client.request(
                wired.method,
                (wired.path + query).decode(),
                headers=list(wired.headers),
                content=wired.body,
            )


def printed(log: Path) -> dict[str, str]:
    return dict(re.findall(r"^export (\w+)=(\S+)$", log.read_text(), re.M))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    settings = {
        "EMULATOR_ACCESS_LOG": "true",
        "EMULATOR_SERVERLESS_PAYLOAD_BYTES": str(LIMIT),
        "EMULATOR_REALTIME_PAYLOAD_BYTES": str(LIMIT),
    }
    with serving(tmp_path_factory.mktemp("guarded"), **OPEN, **settings, **LIGHT) as server:
        made = printed(server.log)
        keys = Keys(made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"])
        server.client.headers["authorization"] = f"Bearer {made['EMULATOR_TOKEN']}"
        yield Guarded(server, keys, made["EMULATOR_TOKEN"])


def refused(answer: httpx.Response, code: str) -> str:
    """The message of an answer that has AWS's form."""
    assert answer.status_code == 403, answer.text
    assert answer.headers["x-amzn-errortype"] == code
    assert answer.headers["content-type"] in ("application/json", "application/x-amz-json-1.1")
    assert answer.headers["x-amzn-requestid"]
    message: str = answer.json()["message"]
    return message


# -- signatures -----------------------------------------------------------------------------------


def test_boto3_invokes_with_the_keys_that_were_printed(guarded: Guarded) -> None:
    answer = guarded.boto3().invoke_endpoint(
        EndpointName=SERVERLESS,
        ContentType="application/json",
        Body=SNEAKER,
        CustomAttributes="two  words",
        InferenceId="mine",
    )
    assert len(json.load(answer["Body"])["predictions"][0]) == 10
    assert guarded.server.rows(SERVERLESS)[-1]["inference_id"] == "mine"


def test_a_body_in_many_pieces_arrives_whole(guarded: Guarded) -> None:
    body = SNEAKER + b" " * (LIMIT - len(SNEAKER))
    answer = guarded.boto3().invoke_endpoint(
        EndpointName=REALTIME, ContentType="application/json", Body=body
    )
    assert len(json.load(answer["Body"])["predictions"][0]) == 10
    assert guarded.server.rows(REALTIME)[-1]["request_bytes"] == LIMIT


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        (
            {"secret": "not-the-secret-of-this-key"},
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details.",
        ),
        (
            {"key_id": "AKIDNOBODY"},
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        (
            {"region": "mars"},
            "InvalidSignatureException",
            "Credential should be scoped to a valid region, not 'mars'. ",
        ),
    ],
    ids=["secret", "key", "region"],
)
def test_boto3_raises_awss_errors(
    guarded: Guarded, wrong: dict[str, str], code: str, message: str
) -> None:
    before = guarded.server.bill(REALTIME)["invocations"]
    with pytest.raises(ClientError) as caught:
        guarded.boto3(**wrong).invoke_endpoint(EndpointName=REALTIME, Body=SNEAKER)
    response: Any = caught.value.response
    assert (response["Error"]["Code"], response["Error"]["Message"]) == (code, message)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert response["ResponseMetadata"]["RequestId"]
    assert guarded.server.bill(REALTIME)["invocations"] == before


def test_nobody_learns_which_endpoints_there_are(guarded: Guarded) -> None:
    with guarded.bare as client:
        for name in (REALTIME, "nobody"):
            answer = client.post(f"/endpoints/{name}/invocations", content=b"{}")
            message = refused(answer, "MissingAuthenticationTokenException")
            assert message == "Missing Authentication Token"


def test_the_token_is_no_signature(guarded: Guarded) -> None:
    answer = guarded.server.invoke(REALTIME)
    assert "Authorization header" in refused(answer, "IncompleteSignatureException")


def test_a_large_unsigned_body_gets_its_answer(guarded: Guarded) -> None:
    """It is read to its end: a connection that is closed before is an error of its sender."""
    connection = HTTPConnection("127.0.0.1", guarded.server.port, timeout=DEADLINE_S)
    path, close = f"/endpoints/{REALTIME}/invocations", {"connection": "close"}
    connection.request("POST", path, body=bytes(20 << 20), headers=close)
    answer = connection.getresponse()
    assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    connection.close()


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_clock_that_is_wrong(guarded: Guarded, minutes: int) -> None:
    at = datetime.fromtimestamp(time.time() + minutes * 60, UTC).strftime("%Y%m%dT%H%M%SZ")
    path = f"/endpoints/{REALTIME}/invocations"
    message = refused(
        guarded.send(guarded.signed("POST", path, at=at)), "InvalidSignatureException"
    )
    if minutes < 0:
        assert re.fullmatch(rf"Signature expired: {at} is now earlier than .* - 5 min\.\)", message)
    else:
        assert message.startswith(f"Signature not yet current: {at} is still later than ")


@pytest.mark.parametrize("part", ["body", "path", "query", "header", "method"])
def test_what_was_changed_on_the_way(guarded: Guarded, part: str) -> None:
    path = f"/_emulator/endpoints/{SERVERLESS}/evict"
    right = guarded.signed("POST", path, headers=(("X-Word", "right"),))
    changed = {
        "body": replace(right, body=b"{} "),
        "path": replace(right, path=path.replace(SERVERLESS, REALTIME).encode()),
        "query": replace(right, query=b"a=b"),
        "header": right.having(b"x-word", b"wrong"),
        "method": replace(right, method="PUT"),
    }
    assert guarded.send(right).status_code == 200
    message = refused(guarded.send(changed[part]), "InvalidSignatureException")
    assert message.startswith("The request signature we calculated does not match")


@pytest.mark.parametrize("more", [1, 3 << 20], ids=["just over", "far over"])
def test_a_signed_body_over_the_limit_is_the_services_matter(guarded: Guarded, more: int) -> None:
    runtime, body = guarded.boto3(), bytes(LIMIT + more)
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=SERVERLESS, Body=body)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert "has oversize body." in caught.value.response["Error"]["Message"]
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=REALTIME, Body=body)
    assert caught.value.response["Error"]["Code"] == "413"


# -- our own REST ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/billing", "/_emulator/clock", "/metrics", "/docs", "/nowhere"])
def test_the_rest_takes_a_signature_or_the_token(guarded: Guarded, path: str) -> None:
    found = 404 if path == "/nowhere" else 200
    with guarded.bare as client:
        nothing = client.get(path)
        assert nothing.status_code == 401
        assert nothing.headers["www-authenticate"].startswith("Bearer")
        assert "?token=" in nothing.json()["detail"]
        assert client.get(path, headers={"authorization": "Bearer x"}).status_code == 401
        assert client.get(path, headers={"cookie": "lukewarm=x"}).status_code == 401
        assert client.get(f"{path}?token=x").status_code == 401
        bearer = {"authorization": f"Bearer {guarded.token}"}
        assert client.get(path, headers=bearer).status_code == found
        assert client.get("/ping").status_code == 200
    # What is signed and none of our pages is a request to AWS, for an operation that is not there.
    signed = guarded.send(guarded.signed("GET", path, body=b""))
    assert signed.status_code == (400 if path == "/nowhere" else found)
    wrong = guarded.signed("GET", path, body=b"").having(b"host", b"elsewhere")
    refused(guarded.send(wrong), "InvalidSignatureException")


def test_a_browser_gets_in_with_the_token_once(guarded: Guarded) -> None:
    with guarded.bare as browser:
        first = browser.get(f"/_emulator/invocations?limit=1&token={guarded.token}")
        assert (first.status_code, first.content) == (303, b"")
        assert first.headers["location"] == "/_emulator/invocations?limit=1"
        flags = first.headers["set-cookie"].split("; ")[1:]
        assert flags == ["Path=/", "HttpOnly", "SameSite=Strict"]
        assert guarded.token not in first.headers["set-cookie"]
        assert browser.get(first.headers["location"]).status_code == 200
        page = browser.get("/billing", headers={"accept": "text/html"})
        assert "<h1>What it costs</h1>" in page.text
        advance = "/_emulator/endpoints/fashion-mnist-serverless/evict"
        own = {"origin": guarded.server.url}
        assert browser.post(advance, headers=own).status_code == 200
        for page_of in ("http://elsewhere.example", "http://127.0.0.1:1", "null"):
            foreign = browser.post(advance, headers={"origin": page_of})
            assert foreign.status_code == 403
            assert page_of in foreign.json()["detail"]
        assert browser.post(advance, headers={"sec-fetch-site": "same-site"}).status_code == 403


def test_a_token_in_an_address_does_nothing_but_set_the_cookie(guarded: Guarded) -> None:
    with guarded.bare as browser:
        path = f"/_emulator/endpoints/{SERVERLESS}/evict?token={guarded.token}"
        assert browser.post(path).status_code == 401
    connection = HTTPConnection("127.0.0.1", guarded.server.port, timeout=DEADLINE_S)
    connection.request("GET", f"//elsewhere.example/?token={guarded.token}")
    location = connection.getresponse().headers["location"]
    connection.close()
    assert location[0] == "/" != location[1:2]


def test_secrets_are_printed_once_and_nowhere_else(guarded: Guarded) -> None:
    server = guarded.server
    pages = ["/", "/ping", "/docs", "/openapi.json", "/metrics", "/billing"]
    pages += ["/_emulator/endpoints", "/_emulator/invocations", "/_emulator/clock"]
    for page in pages:
        for accept in ("text/html", "application/json"):
            answer = server.client.get(page, headers={"accept": accept})
            assert answer.status_code == 200
            for secret in (guarded.keys.secret_access_key, guarded.token):
                assert secret not in answer.text + str(answer.headers)
    with guarded.bare as client:
        client.get(f"/billing?token={guarded.token}")
    until(lambda: "GET /billing HTTP/1.1" in server.log.read_text(), "the access log is written")
    log = server.log.read_text()
    for secret in (guarded.keys.access_key_id, guarded.keys.secret_access_key, guarded.token):
        assert log.count(secret) == 1


# -- on or off ------------------------------------------------------------------------------------


def test_on_loopback_it_is_off(server: Server) -> None:
    assert predictions(server.invoke(REALTIME)).shape == (1, 10)
    assert server.client.get("/billing").status_code == 200
    assert printed(server.log) == {}


def test_when_off_other_names_and_other_pages_are_refused(server: Server) -> None:
    path = f"/_emulator/endpoints/{SERVERLESS}/evict"
    for host in ("localhost", f"localhost:{server.port}", "[::1]:8000", "lukewarm.localhost"):
        assert server.client.get("/billing", headers={"host": host}).status_code == 200
    for method, where in (("GET", "/billing"), ("POST", path), ("GET", "/docs")):
        foreign = server.client.request(method, where, headers={"host": "rebound.example:8000"})
        assert foreign.status_code == 403
        assert "'rebound.example'" in foreign.json()["detail"]
        assert "EMULATOR_HOSTS" in foreign.json()["detail"]
    assert server.client.get("/ping", headers={"host": "rebound.example"}).status_code == 200
    for headers in (
        {"origin": "https://elsewhere.example"},
        {"origin": server.url, "sec-fetch-site": "cross-site"},
        {"origin": "null"},
    ):
        assert server.client.post(path, headers=headers).status_code == 403
        assert server.client.get("/billing", headers=headers).status_code == 200
    assert server.client.post(path, headers={"origin": server.url}).status_code == 200
    own = {"origin": server.url, "sec-fetch-site": "same-origin"}
    assert server.client.post(path, headers=own).status_code == 200


def first_words(tmp_path: Path, *command: str, **settings: str) -> tuple[int, int, str]:
    """Start a server, ask it for the bill and for an invocation before it is ready, end it: both
    statuses and what it printed."""
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=ROOT,
            env=environment(tmp_path / "state", **settings),
            stdout=out,
            stderr=out,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client:
            until(lambda: _answers(client), "the server answers")
            bill = client.get("/billing").status_code
            call = client.post("/endpoints/nobody/invocations", content=b"{}").status_code
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
    return bill, call, log.read_text()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ping").status_code in (200, 503)
    except httpx.TransportError:
        return False


UVICORN = ("uvicorn", "emulator.app:app")


def test_the_command_turns_it_on_too(tmp_path: Path) -> None:
    bill, call, said = first_words(
        tmp_path, "emulator.cli", "serve", "--host", "0.0.0.0", EMULATOR_TOKEN="my-own-token-of-16"
    )
    assert (bill, call) == (401, 403)
    assert said.count("export AWS_SECRET_ACCESS_KEY=") == 1
    assert "export EMULATOR_TOKEN" not in said
    assert "my-own-token-of-16" not in said


def test_what_is_configured_is_not_printed(tmp_path: Path) -> None:
    own = {
        "EMULATOR_ACCESS_KEY_ID": "MYOWNKEY",
        "EMULATOR_SECRET_ACCESS_KEY": "my-own-secret-of-some-length",
        "EMULATOR_TOKEN": "my-own-token-of-16",
    }
    bill, call, said = first_words(tmp_path, *UVICORN, EMULATOR_AUTH="sigv4", **own)
    assert (bill, call) == (401, 403)
    assert "export" not in said
    assert not [value for value in own.values() if value in said]


def test_off_is_off_wherever_it_listens_and_says_so(tmp_path: Path) -> None:
    bill, call, said = first_words(tmp_path, *UVICORN, EMULATOR_AUTH="off", **OPEN)
    assert (bill, call) == (200, 400)
    assert re.search(r"WARNING: +There is no authentication on 0\.0\.0\.0:", said)
