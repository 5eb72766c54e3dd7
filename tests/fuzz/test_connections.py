"""Bytes on a connection: requests with parts replaced, doubled, cut, and several in a row."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.conftest import EXAMPLES, SENT, examples
from tests.raw import CALL, INVOKE
from tests.servers import DEADLINE_S, SNEAKER, Server

SHARE = 0.2  # of all inputs
PARTS = (
    b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"/ping", b"/billing", b"/", b"*",
    b"?a=b", b"/_emulator/endpoints", b"/_emulator/endpoints/x",
    b"/_emulator/invocations?limit=1",
    b"http://localhost/ping", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\n", b"\r\n\r\n",
    b"host: localhost\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n",
    b"connection: upgrade\r\n", b"upgrade: websocket\r\n", b"upgrade: h2c\r\n",
    b"content-length: 4\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n",
    b"expect: 100-continue\r\n", b"4\r\nbody\r\n", b"0\r\n\r\n", b"body", b"a: b\r\n", INVOKE,
    CALL + SNEAKER, b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n",
)  # fmt: skip


@st.composite
def conversations(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    parts: list[bytes] = draw(
        st.lists(st.sampled_from(PARTS) | st.binary(max_size=6), min_size=1, max_size=12)
    )
    return b"".join(parts)


def test_whatever_bytes_arrive_the_answers_are_http_and_no_fault_of_the_servers(
    target: Server,
) -> None:
    @examples(round(EXAMPLES * SHARE))
    @given(conversations())
    def send(data: bytes) -> None:
        SENT["connections"] += 1
        with socket.create_connection(("127.0.0.1", target.port), timeout=DEADLINE_S) as raw:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := raw.recv(1 << 16):
                received += chunk
        statuses = re.findall(rb"HTTP/1\.1 (\d+) [A-Z]", received)
        assert received.startswith(b"HTTP/1.1 ") or not received
        assert all(status < b"500" for status in statuses), received

    send()
