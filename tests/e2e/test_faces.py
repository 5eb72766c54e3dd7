"""Who is let in to the AWS services beside the runtime: with authentication on, by each service's
own protocol; with it off, no web page from elsewhere."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import boto3
import httpx
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.servers import DEADLINE_S, LIGHT, Server, predictions, serving

SERVERLESS = "fashion-mnist-serverless"
KEY, SECRET, REGION = "LKWMFACES", "a-secret-of-the-tests", "eu-west-3"
CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sagemaker": (lambda one: one.list_endpoints(), "UnrecognizedClientException"),
    "sts": (lambda one: one.get_caller_identity(), "UnrecognizedClientException"),
    "iam": (lambda one: one.list_roles(), "UnrecognizedClientException"),
    "sns": (lambda one: one.list_topics(), "UnrecognizedClientException"),
    "sqs": (lambda one: one.list_queues(), "UnrecognizedClientException"),
    "logs": (lambda one: one.describe_log_groups(), "UnrecognizedClientException"),
    "cloudwatch": (lambda one: one.list_metrics(), "UnrecognizedClientException"),
    "s3": (lambda one: one.list_buckets(), "InvalidAccessKeyId"),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "EMULATOR_AUTH": "sigv4",
        "EMULATOR_ACCESS_KEY_ID": KEY,
        "EMULATOR_SECRET_ACCESS_KEY": SECRET,
        "EMULATOR_TOKEN": "a-token-of-the-tests",
    }
    with serving(tmp_path_factory.mktemp("faces"), **settings, **LIGHT) as running:
        yield running


def client(server: Server, service: str, key: str = KEY, secret: str = SECRET) -> Any:
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.mark.parametrize("service", CALLS)
def test_who_has_no_key_is_told_in_the_services_own_form(guarded: Server, service: str) -> None:
    call, code = CALLS[service]
    assert call(client(guarded, service))["ResponseMetadata"]["HTTPStatusCode"] == 200
    with pytest.raises(ClientError) as caught:
        call(client(guarded, service, key="AKIDNOBODY"))
    assert caught.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError) as caught:
        call(client(guarded, service, secret="another-secret-of-nobody"))
    wrong = "SignatureDoesNotMatch" if service == "s3" else "InvalidSignatureException"
    assert caught.value.response["Error"]["Code"] == wrong


def test_unsigned_calls_reach_no_service(guarded: Server) -> None:
    targets = {"x-amz-target": "SageMaker.ListEndpoints"}
    with httpx.Client(base_url=guarded.url, timeout=DEADLINE_S) as bare:
        assert bare.post("/", content=b"{}", headers=targets).status_code == 403
        assert bare.post("/", content=b"{}", headers={"x-amz-target": "Logs.X"}).status_code == 403
        assert bare.get("/_emulator/endpoints").status_code == 401


@pytest.mark.parametrize(
    ("announced", "code"),
    [
        (hashlib.sha256(b"another").hexdigest(), "XAmzContentSHA256Mismatch"),
        (hashlib.sha256(b"body").hexdigest().upper(), "SignatureDoesNotMatch"),
        ("nonsense", "SignatureDoesNotMatch"),
    ],
)
def test_an_object_is_the_one_that_was_signed(guarded: Server, announced: str, code: str) -> None:
    s3 = client(guarded, "s3")
    s3.create_bucket(Bucket="signed", CreateBucketConfiguration={"LocationConstraint": REGION})
    headers = {"x-amz-content-sha256": announced}
    request = AWSRequest("PUT", f"{guarded.url}/signed/key", data=b"body", headers=headers)
    request.context["payload_signing_enabled"] = True
    signer = S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION)
    signer.payload = lambda _: announced  # what is announced is what is signed
    signer.add_auth(request)
    with httpx.Client(timeout=DEADLINE_S) as bare:
        answer = bare.put(request.url, content=b"body", headers=dict(request.headers))
    assert f"<Code>{code}</Code>" in answer.text
    assert "Contents" not in s3.list_objects_v2(Bucket="signed")
    s3.delete_bucket(Bucket="signed")


CROSS_SITE = [
    {"sec-fetch-site": "cross-site", "origin": "https://elsewhere.example"},
    {"origin": "https://elsewhere.example"},
]


@pytest.mark.parametrize("browser", CROSS_SITE)
@pytest.mark.parametrize(
    "path",
    [
        "/?Action=CreateTopic&Name=evil&X-Amz-Credential=1/2/eu-west-1/sns/aws4_request",
        "/bucket/key?X-Amz-Credential=1/2/eu-west-1/s3/aws4_request",
    ],
)
def test_a_page_from_elsewhere_orders_nothing_by_get(
    server: Server, browser: dict[str, str], path: str
) -> None:
    answer = server.client.get(path, headers=browser)
    assert answer.status_code == 403
    assert "asks for this" in answer.text
    assert "asks for this" not in server.client.get(path).text  # it would have been taken


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[::ffff:7f00:1]"])
def test_addresses_to_which_browsers_do_not_say_where_a_page_is_from(
    server: Server, host: str
) -> None:
    assert server.client.get("/billing", headers={"host": f"{host}:1"}).status_code == 403


def test_notifications_reach_no_route_of_our_own(server: Server) -> None:
    sns = boto3.client(
        "sns", endpoint_url=server.url, region_name=REGION, aws_access_key_id="123456789012",
        aws_secret_access_key="any",
    )  # fmt: skip
    evict = f"_emulator/endpoints/{SERVERLESS}/evict"
    predictions(server.invoke(SERVERLESS))
    for way in ("", "./", "x/../", "%5F"):
        topic = sns.create_topic(Name="own")["TopicArn"]
        subscriber = f"{server.url}/{way}{evict[1:] if way == '%5F' else evict}"
        sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=subscriber)
        sns.publish(TopicArn=topic, Message="now")
        sns.delete_topic(TopicArn=topic)
    predictions(server.invoke(SERVERLESS))
    assert not server.rows(SERVERLESS)[-1]["cold_start"]


class Elsewhere(BaseHTTPRequestHandler):
    """Any other server: it leads on to another place, and answers in JSON that is not ours."""

    met: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        self._answer(307)

    def _answer(self, status: int) -> None:
        self.met.append(self.path)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(status)
        self.send_header("location", "/second")
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"[1]")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    Elsewhere.met.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{other.server_port}"
        other.shutdown()
        thread.join()


def test_notifications_go_where_they_were_sent_and_no_further(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emulator.quirks import _post_here

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for nowhere in ("http://elsewhere.example\\@127.0.0.1/", "http://[::1", "ftp://127.0.0.1/x"):
        assert _post_here(nowhere, json={}) is None
    assert _post_here(f"{elsewhere}/first", json={}).status_code == 307
    assert Elsewhere.met == ["/first"]


def test_the_command_line_says_what_another_server_answers(elsewhere: str) -> None:
    from emulator import caller, config
    from emulator.errors import SetupError

    with pytest.raises(SetupError, match=r"^What answers at http://127\.0\.0\.1:\d+ is not"):
        caller.find(elsewhere, config.read({}, Path())).get("/billing")


def test_a_server_that_starts_forgets_where_the_one_before_it_was(tmp_path: Path) -> None:
    from emulator.state import StateDirectory

    (tmp_path / "url").write_text("http://127.0.0.1:9")
    state = StateDirectory(tmp_path)
    assert not (tmp_path / "url").exists()
    state.close()


def test_the_command_line_trusts_no_address_that_a_killed_server_left(tmp_path: Path) -> None:
    from emulator import caller, config
    from emulator.errors import SetupError

    with serving(tmp_path, **LIGHT) as server:
        settings = config.read({"EMULATOR_STATE_DIR": str(server.state)}, tmp_path)
        assert caller.find("", settings).url == server.url
        server.stop(signal.SIGKILL)
        assert (server.state / "url").is_file()
        with pytest.raises(SetupError, match="No server runs"):
            caller.find("", settings)
    for wrong in ("http://[::1", "foo", "http://"):
        with pytest.raises(SetupError, match="is no address of a server"):
            caller.find(wrong, settings)
