"""Hostile clients: each is ended with a sentence, memory and descriptors stay as they were, and a
well-behaved client beside them is answered all the while.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import DEADLINE_S, JSON, SNEAKER, Server, serving, until

REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"
INVOKE = f"POST /endpoints/{REALTIME}/invocations HTTP/1.1\r\nhost: x\r\n".encode()
CALL = INVOKE + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(SNEAKER)
TIGHT = {
    "EMULATOR_HEAD_BYTES": "16384",
    "EMULATOR_HEAD_FIELDS": "64",
    "EMULATOR_HEAD_S": "1",
    "EMULATOR_BODY_S": "3",
    "EMULATOR_DELIVERY_S": "2",
}
GROWTH_MB = 64.0  # of the server's memory, with bodies of 25 MB on their way
CROWD = 100


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little patience."""
    with serving(tmp_path_factory.mktemp("tight"), **TIGHT) as running:
        yield running


def resident_mb(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1]) / 1024


def descriptors(server: Server) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


@contextmanager
def unaffected(server: Server, growth_mb: float = GROWTH_MB) -> Iterator[None]:
    """While this is open another client is served; afterwards nothing is left of what happened."""
    server.invoke(REALTIME)  # so that the client's own connection is there
    memory, opened = resident_mb(server), descriptors(server)
    peaks, over, other = [memory], threading.Event(), httpx.Client(timeout=DEADLINE_S)
    statuses: list[int] = []

    def serve() -> None:
        url = f"{server.url}/endpoints/{REALTIME}/invocations"
        while not over.wait(0.02):
            statuses.append(other.post(url, content=SNEAKER, headers=JSON).status_code)
            peaks.append(resident_mb(server))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
        seen = len(statuses)
        until(lambda: len(statuses) > seen, "the other client is still answered")
    finally:
        over.set()
        thread.join(DEADLINE_S)
        other.close()
    assert set(statuses) == {200}
    assert max(peaks) - memory < growth_mb
    until(lambda: descriptors(server) <= opened, "every descriptor is closed", 20)
    assert "Traceback" not in server.log.read_text()


async def talk(server: Server, data: bytes, more: bytes = b"", pause_s: float = 0.0) -> bytes:
    """Send `data`, then `more` a byte at a time, and return all that comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        answer = asyncio.ensure_future(reader.read(-1))
        for at in range(len(more)):
            await asyncio.wait({answer}, timeout=pause_s)
            if answer.done():
                break
            writer.write(more[at : at + 1])
        return await asyncio.wait_for(answer, DEADLINE_S)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def said(server: Server, data: bytes) -> tuple[list[int], bytes]:
    """The statuses of all answers until the connection is closed, and what was received."""
    answer = asyncio.run(talk(server, data))
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer)], answer


def crowd(server: Server, data: bytes, more: bytes, pause_s: float) -> list[bytes]:
    async def attack() -> list[bytes]:
        return await asyncio.gather(*(talk(server, data, more, pause_s) for _ in range(CROWD)))

    return asyncio.run(attack())


# -- slow clients -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "more", "named"),
    [
        (b"G", b"ET /ping HTTP/1.1\r\n" + b"a: b\r\n" * 1000, b"EMULATOR_HEAD_S"),
        (CALL, SNEAKER, b"EMULATOR_BODY_S"),
        (INVOKE + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n[\r\n" * 1000, b"EMULATOR_BODY_S"),
        (b"PUT /_emulator/endpoints/x HTTP/1.1\r\ncontent-length: 9\r\n\r\n", b"{", b"BODY_S"),
    ],
    ids=["head", "body", "chunks", "rest"],
)
def test_a_byte_at_a_time_is_too_slow(
    tight: Server, data: bytes, more: bytes, named: bytes
) -> None:
    with unaffected(tight):
        for answer in crowd(tight, data, more, 0.2):
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert named in answer
            assert b"connection: close" in answer


def test_connections_that_say_nothing_are_closed(tight: Server) -> None:
    with unaffected(tight):
        assert crowd(tight, b"", b"", 0) == [b""] * CROWD
        assert crowd(tight, b"\r\n", b"\r\n" * 100, 0.2) == [b""] * CROWD
        (answer, *_) = crowd(tight, b"GET /ping HTTP/1.1\r\n\r\n", b"\r\n" * 100, 0.2)
        assert answer.count(b"HTTP/1.1") == 1


# -- large ones -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"GET /" + b"x" * 1_000_000, "EMULATOR_HEAD_BYTES"),
        (b"GET / HTTP/1.1\r\n" + b"x" * 1_000_000, "EMULATOR_HEAD_BYTES"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 1_000_000, "EMULATOR_HEAD_BYTES"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 30_000 + b"\r\n\r\n", "EMULATOR_HEAD_BYTES"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3_000_000, "EMULATOR_HEAD_BYTES"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 65 + b"\r\n", "EMULATOR_HEAD_FIELDS"),
        (INVOKE + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 100_000, "HEAD_BYTES"),
        (INVOKE + b"transfer-encoding: chunked\r\n\r\n5;" + b"x" * 1_000_000, "HEAD_BYTES"),
        (b"\r\n" * 500_000, "EMULATOR_HEAD_BYTES"),
    ],
    ids=[
        "path", "name", "value", "whole", "endless", "many", "trailers", "extension", "blank-lines",
    ],
)  # fmt: skip
def test_header_bombs(tight: Server, data: bytes, named: str) -> None:
    with unaffected(tight, 16):
        statuses, answer = said(tight, data)
    assert statuses == [431]
    assert named in answer.decode()


def test_a_large_head_within_the_limit_is_served(tight: Server) -> None:
    head = b"GET /ping HTTP/1.1\r\nconnection: close\r\n"
    for more in (b"a: " + b"x" * 16_000 + b"\r\n", b"a: b\r\n" * 63):
        assert said(tight, head + more + b"\r\n")[0] == [200]


@pytest.mark.parametrize(("endpoint", "status"), [(REALTIME, 413), (SERVERLESS, 400)])
def test_a_body_of_thirty_megabytes(tight: Server, endpoint: str, status: int) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * (1 << 20)

    path = f"/endpoints/{endpoint}/invocations"
    with unaffected(tight):
        for content in (b" " * (30 << 20), chunks()):
            answer = tight.client.post(path, content=content, headers=JSON)
            assert answer.status_code == status


@pytest.mark.parametrize(
    "path", [f"/endpoints/{REALTIME}/invocations", "/endpoints/nobody/invocations"]
)
def test_a_body_without_end(tight: Server, path: str) -> None:
    async def pour() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", tight.port)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        poured, chunk = 0, b"10000\r\n" + b" " * 65536 + b"\r\n"
        answer = asyncio.ensure_future(reader.read(-1))
        try:
            while not answer.done():
                writer.write(chunk)
                await writer.drain()
                poured += len(chunk)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            await asyncio.gather(answer, return_exceptions=True)
        return poured

    with unaffected(tight):
        assert asyncio.run(asyncio.wait_for(pour(), DEADLINE_S)) > 1 << 20
