"""The invocation path, from HTTP to the container: whatever is sent, the fault is the sender's, and
what is right gets its predictions.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.bodies import requests
from tests.fuzz.conftest import EXAMPLES, SENT, examples
from tests.fuzz.sound import Sound, rows_in, sound_requests
from tests.raw import REALTIME
from tests.servers import DEADLINE_S, Server

SERVERLESS = "fashion-mnist-serverless"
SOUND = 0.2  # of all inputs
NAMES = st.sampled_from([REALTIME, SERVERLESS] * 5) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=70
)
Post = Callable[[str, bytes, Mapping[str, str]], tuple[int, http.client.HTTPMessage, bytes]]


@pytest.fixture
def post(target: Server) -> Iterator[Post]:
    """A POST to an endpoint over one connection. Afterwards the same environments are there."""
    for name in (REALTIME, SERVERLESS):
        assert target.invoke(name).status_code == 200
    before = pids(target)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=DEADLINE_S)

    def send(
        endpoint: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        path = f"/endpoints/{quote(endpoint, safe='')}/invocations"
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        try:
            connection.request("POST", path, body, encoded)
            answer = connection.getresponse()
        except ConnectionError:  # it was idle for so long, while Hypothesis thought
            connection.close()
            connection.request("POST", path, body, encoded)
            answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    with closing(connection):
        yield send
    assert pids(target) == before


def pids(target: Server) -> list[int]:
    return [one["pid"] for name in (REALTIME, SERVERLESS) for one in target.environments(name)]


def test_what_is_right_gets_its_predictions(post: Post) -> None:
    @examples(round(EXAMPLES * SOUND))
    @given(st.sampled_from([REALTIME, SERVERLESS]), sound_requests())
    def send(endpoint: str, request: Sound) -> None:
        SENT["sound invocations"] += 1
        status, headers, content = post(endpoint, request.body, request.headers)
        assert status == 200, content
        assert headers["content-type"] == request.due
        assert rows_in(request.due, content) == request.rows

    send()


def test_whatever_is_sent_is_answered_and_hurts_no_environment(post: Post) -> None:
    """Runs last, and makes the inputs up to the number that was asked for."""

    @examples(EXAMPLES - SENT.total())
    @given(NAMES, requests())
    def send(endpoint: str, request: tuple[dict[str, str], bytes]) -> None:
        SENT["invocations"] += 1
        status, headers, content = post(endpoint, request[1], request[0])
        if endpoint not in (REALTIME, SERVERLESS):
            assert status in (400, 404, 405), content
        elif status == 424:
            assert json.loads(content)["OriginalStatusCode"] in (400, 404, 406, 415), content
        elif status == 400:
            assert headers["x-amzn-errortype"] == "ValidationError", content
        else:
            assert status == 200, content

    send()
