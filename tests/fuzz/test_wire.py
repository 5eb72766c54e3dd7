"""The invocation path, from HTTP to the container: whatever is sent, the fault is the sender's."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.bodies import requests
from tests.fuzz.conftest import EXAMPLES, SENT, examples
from tests.raw import REALTIME
from tests.servers import DEADLINE_S, Server

ENDPOINTS = (REALTIME, "fashion-mnist-serverless")


def post(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, bytes]
) -> http.client.HTTPResponse:
    """Once more where the connection was idle for so long, while thinking, that it was closed."""
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse()
    except ConnectionError:
        connection.close()
        connection.request("POST", path, body, headers)
        return connection.getresponse()


def test_whatever_is_sent_to_a_model_is_answered_and_hurts_no_environment(target: Server) -> None:
    """Runs last, and makes the inputs up to the number that was asked for."""
    environments = {name: target.environments(name) for name in ENDPOINTS}
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=DEADLINE_S)

    @examples(EXAMPLES - SENT.total())
    @given(st.sampled_from(ENDPOINTS), requests())
    def send(endpoint: str, request: tuple[dict[str, str], bytes]) -> None:
        headers, body = request
        SENT["invocations"] += 1
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = post(connection, f"/endpoints/{endpoint}/invocations", body, encoded)
        content = answer.read()
        if answer.status == 424:
            assert json.loads(content)["OriginalStatusCode"] in (400, 404, 406, 415), content
        elif answer.status == 400:
            assert answer.headers["x-amzn-errortype"] == "ValidationError", content
        else:
            assert answer.status == 200, content

    with closing(connection):
        send()
    for name, before in environments.items():
        assert [one["pid"] for one in target.environments(name)] == [one["pid"] for one in before]
