"""Requests that are not what they should be: one clear answer, and no trace."""

from __future__ import annotations

import http.client
import json
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.raw import CALL, INVOKE, REALTIME, said
from tests.servers import DEADLINE_S, JSON, SNEAKER, Server, serverless

# -- what is not HTTP, or is it twice -----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET /\r /x HTTP/1.1\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\na\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\na : b\r\n\r\n",
        INVOKE + b"content-length: -1\r\n\r\n",
        INVOKE + b"content-length: +1\r\n\r\n1",
        INVOKE + b"content-length: 1, 1\r\n\r\n1",
        INVOKE + b"content-length: 0x1\r\n\r\n1",
        INVOKE + b"content-length: 1\r\ncontent-length: 1\r\n\r\n1",
        INVOKE + b"content-length: 1\r\ncontent-length: 2\r\n\r\n1",
        INVOKE + b"content-length: 99999999999999999999999999\r\n\r\n1",
        INVOKE + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: identity\r\n\r\n",
        INVOKE + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: chunked\r\n\r\n5\r\nhe\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
        INVOKE + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        INVOKE + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(server: Server, data: bytes) -> None:
    before = len(server.rows(REALTIME))
    statuses, answer = said(server, data + CALL + SNEAKER)
    assert statuses == [400]
    assert b"content-type: text/plain" in answer
    assert len(server.rows(REALTIME)) == before


def test_a_length_that_is_too_small_does_not_pass_for_another_request(server: Server) -> None:
    short = INVOKE + b"content-length: 1\r\n\r\n" + SNEAKER
    assert said(server, short)[0] == [424, 400]


@pytest.mark.parametrize("path", ["/", "/ping", "/metrics", f"/endpoints/{REALTIME}/invocations"])
def test_there_are_no_websockets(server: Server, path: str) -> None:
    head = (
        f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    statuses, answer = said(server, head.encode())
    assert statuses in ([200], [405])
    assert b"connection: close" in answer


def test_a_body_is_asked_for_only_where_it_is_wanted(server: Server) -> None:
    expect = b"expect: 100-continue\r\nconnection: close\r\n"
    good = CALL.replace(b"\r\n\r\n", b"\r\n" + expect + b"\r\n")
    assert said(server, good + SNEAKER)[0] == [100, 200]
    nobody = good.replace(REALTIME.encode(), b"nobody")
    assert said(server, nobody)[0] == [400]


# -- names ------------------------------------------------------------------------------------


def kinds() -> list[str]:
    """Names that no endpoint may have: one character in the middle, of every kind there is."""
    found: dict[tuple[str, str, int], str] = {}
    for number in range(0x110000):
        one = chr(number)
        kind = (unicodedata.category(one), unicodedata.bidirectional(one), number.bit_length())
        if not (one.isascii() and (one.isalnum() or one == "-")):
            found.setdefault(kind, one)
    return sorted(found.values()) + [chr(number) for number in range(32)]


ODD = (
    "..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "..%5c..%5c", "%2fetc%2fpasswd", "a%2fb", "%00",
    "a%00.keras", "%ff", "%c0%ae%c0%ae", "%ed%a0%80", "%f0%28%8c%28", "%", "%zz", "a" * 64, "-a",
    "a-", "a--%20", "a%0d%0aX-Evil:%20yes", "a%0aINFO:%20all%20is%20well", "%1b[31mred",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E", "%22%27%60", "$(id)", "{{7*7}}", "a;b", "*", "~", "NUL ",
    "%e2%80%ae", "%ef%bb%bfa",
)  # fmt: skip


def names() -> list[str]:
    """As they stand in a path, percent-encoded where they have to be."""
    encoded = [f"a{quote(one, safe='', errors='surrogatepass')}b" for one in kinds()]
    return encoded + [quote(one, safe="%.*~$(){};:'-") for one in ODD]


def files(server: Server) -> set[Path]:
    """What is in the state directory and beside it, but for the ledger, which comes and goes."""
    found = server.state.parent.rglob("*")
    return {path for path in found if not path.name.startswith("ledger.sqlite")}


def test_names_of_every_kind_are_refused_and_leave_no_trace(server: Server) -> None:
    before, logged = files(server), len(server.log.read_text())
    listed = server.client.get("/_emulator/endpoints").json()["endpoints"]
    body = json.dumps({"variants": [serverless()]})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    for name in names():
        for method, path in (
            ("POST", f"/endpoints/{name}/invocations"),
            ("PUT", f"/_emulator/endpoints/{name}"),
            ("GET", f"/_emulator/endpoints/{name}"),
            ("DELETE", f"/_emulator/endpoints/{name}"),
            ("POST", f"/_emulator/endpoints/{name}/evict"),
            ("GET", f"/_emulator/invocations?endpoint={name}&cursor={name}"),
        ):
            connection.request(method, path, body, JSON)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            assert 400 <= answer.status < 500, (method, path, answer.status)
            assert said.get("detail") or said.get("Message")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-evil"] is None
    connection.close()
    now = server.client.get("/_emulator/endpoints").json()["endpoints"]
    assert [one["name"] for one in now] == [one["name"] for one in listed]
    assert files(server) == before
    assert server.log.read_text()[logged:] == ""


@pytest.mark.parametrize(
    "header", ["X-Amzn-SageMaker-Target-Variant", "X-Amzn-SageMaker-Inference-Id", "Content-Type"]
)
def test_headers_of_every_kind_get_a_clear_answer(server: Server, header: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    for number in (9, *range(32, 127), *range(128, 256)):
        headers = {**JSON, header: f"<b>{chr(number)}</b>"}
        connection.request("POST", f"/endpoints/{REALTIME}/invocations", SNEAKER, headers)
        answer = connection.getresponse()
        answer.read()
        if header.endswith("Id"):  # the service model has what can be printed, and is ASCII
            assert answer.status == (200 if 32 <= number < 127 else 400)
        else:
            assert answer.status in (400, 424)
    connection.close()


def test_nothing_that_was_sent_is_in_a_page(server: Server) -> None:
    name = "<img src=x onerror=alert(1)>"
    server.invoke(quote(name), headers={**JSON, "X-Amzn-SageMaker-Inference-Id": name})
    server.invoke(REALTIME, headers={**JSON, "X-Amzn-SageMaker-Inference-Id": name})
    refused = server.client.get(f"/billing?{quote(name)}", headers={"accept": "text/html"})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/json"
    page = server.client.get("/billing", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "onerror" not in page.text


# -- bodies of our own REST -------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        rb'{"variants": [{"model": "\ud800", "realtime": {}}]}',
        rb'{"variants": [{"model": "/\udcff.keras", "realtime": {}}]}',
        rb'{"variants": [{"model": "a\u0000b.keras", "realtime": {}}]}',
        rb'{"variants": [{"model": "~\u0000/x", "realtime": {}}]}',
        rb'{"variants": [{"model": "x", "realtime": {}, "\ud800\n<b>": 1}]}',
        rb'{"variants": [{"model": "x", "realtime": {}, "variables": {"\ud800": "\u0000"}}]}',
        rb'{"variants": [{"model": "x", "realtime": {"instance_type": "\udfff"}}]}',
        b'{"variants": [{"model": "' + b"x/" * 100_000 + b'", "realtime": {}}]}',
        b'{"variants": [{"model": "' + b"x" * 5000 + b'.keras", "realtime": {}}]}',
        b'{"variants": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"variants": ' + b'{"a":' * 100_000,
        b'{"variants": [{"model": "x", "weight": 1' + b"0" * 5000 + b', "realtime": {}}]}',
        b'{"variants": [{"model": "x", "weight": NaN, "realtime": {}}]}',
        b'{"variants": [{"model": "x", "weight": "1", "realtime": {}}]}',
        b'{"variants": [{"model": "x", "realtime": {"instance_count": true}}]}',
        b'\xef\xbb\xbf{"variants": []}',
        b'{"variants": []}\x00',
        b"\xff\xfe{\x00}\x00",
        b"",
        b"null",
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-\xff", ""])
def test_bodies_of_every_kind_create_nothing(server: Server, body: bytes, kind: str) -> None:
    logged = len(server.log.read_text())
    headers = {b"content-type": kind.encode("latin-1")}
    answer = server.client.put("/_emulator/endpoints/odd", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"].endswith((".", "?"))
    assert len(answer.content) < 1000
    assert server.client.get("/_emulator/endpoints/odd").status_code == 404
    assert server.log.read_text()[logged:] == ""
