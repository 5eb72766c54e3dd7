"""Hostile clients: each is ended with a sentence, memory and descriptors stay as they were, and a
well-behaved client beside them is answered all the while.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.raw import CALL, INVOKE, REALTIME, said, talk
from tests.servers import (
    DEADLINE_S,
    JSON,
    LIGHT,
    SNEAKER,
    Server,
    archive,
    realtime,
    serving,
    until,
)

SERVERLESS = "fashion-mnist-serverless"
TIGHT = {
    "EMULATOR_HEAD_BYTES": "16384",
    "EMULATOR_HEAD_FIELDS": "64",
    "EMULATOR_HEAD_S": "1",
    "EMULATOR_BODIES_BYTES": str(50 << 20),
    "EMULATOR_ACCESS_LOG": "true",
    "EMULATOR_BODY_S": "3",
    "EMULATOR_DELIVERY_S": "2",
}
GROWTH_MB = 64.0  # of the server's memory, with bodies of 25 MB on their way
CROWD = 100


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little patience."""
    with serving(tmp_path_factory.mktemp("tight"), **TIGHT, **LIGHT) as running:
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


def crowd(
    server: Server, data: bytes, more: bytes = b"", pause_s: float = 0.0, count: int = CROWD
) -> list[bytes]:
    async def attack() -> list[bytes]:
        return await asyncio.gather(*(talk(server, data, more, pause_s) for _ in range(count)))

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


def test_a_trailer_takes_no_headers_place(tight: Server) -> None:
    head = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(SNEAKER), SNEAKER)
    statuses, _ = said(tight, INVOKE + head + chunk + b"content-type: text/html\r\n\r\n")
    assert statuses == [200]


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


def test_bodies_of_the_rest_api_have_a_limit_too(tight: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * (1 << 20)

    with unaffected(tight):
        for content in (b" " * (30 << 20), chunks()):
            answer = tight.client.put(
                "/_emulator/endpoints/x", content=content, headers={**JSON, "origin": tight.url}
            )
            assert answer.status_code == 413
            assert "which is the limit here" in answer.json()["detail"]


def test_many_large_bodies_that_do_not_end_are_cut_oldest_first(tight: Server) -> None:
    size = 12 << 20
    head = INVOKE + b"content-length: %d\r\n\r\n" % size
    with unaffected(tight, 2 * 50 + GROWTH_MB):  # the bodies twice: as read, and as kept
        answers = crowd(tight, head + b" " * (size - 1), count=10)
    statuses = [int(answer.split(b" ", 2)[1]) for answer in answers]
    assert set(statuses) == {503, 408}
    assert statuses.count(503) >= 6
    assert any(b"EMULATOR_BODIES_BYTES" in answer for answer in answers)


# -- clients that come and go -----------------------------------------------------------------


def test_clients_gone_before_their_answer(tight: Server) -> None:
    async def leave(data: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", tight.port)
        writer.write(data)
        await writer.drain()
        writer.transport.abort()

    async def attack() -> None:
        for data in (CALL + SNEAKER, CALL + SNEAKER[:100], CALL, INVOKE[:9]):
            await asyncio.gather(*(leave(data) for _ in range(CROWD)))

    with unaffected(tight):
        asyncio.run(attack())
        until(lambda: tight.endpoint(REALTIME)["in_flight"] <= 1, "nothing is left in flight")


def test_pipelined_requests_are_answered_in_order_and_a_few_at_a_time(tight: Server) -> None:
    numbers = list(range(2000))
    ask = b"GET /_emulator/endpoints/n%d HTTP/1.1\r\nhost: localhost\r\n\r\n"
    asked = b"".join(ask % number for number in numbers)
    calls = (CALL + SNEAKER) * 50
    last = b"GET /ping HTTP/1.1\r\nconnection: close\r\n\r\n"
    with unaffected(tight, 16):
        statuses, answer = said(tight, asked + calls + last)
    assert statuses == [404] * len(numbers) + [200] * 51
    assert [int(number) for number in re.findall(rb":endpoint/n(\d+)", answer)] == numbers


LARGE = """
def handler(data, context):
    return b' ' * (16 << 20), 'application/octet-stream'
"""


def test_a_client_that_does_not_read_its_answer_is_cut_off(tight: Server, tmp_path: Path) -> None:
    tight.deploy("large", realtime(archive(tmp_path, LARGE)))
    call = b"POST /endpoints/large/invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    line = r"Connections ended: (\d+)\. An answer was not taken within 2 s"

    def cut() -> int:
        return sum(int(count) for count in re.findall(line, tight.log.read_text()))

    with unaffected(tight, 4 * 2 * 16 + GROWTH_MB), ExitStack() as stack:
        memory = resident_mb(tight)
        for _ in range(4):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", tight.port)))
            deaf.sendall(call * 5)  # the answers behind the first one are not made ahead
        until(lambda: cut() == 4, "all are cut off")
        assert len(tight.invoke("large").content) == 16 << 20
        until(lambda: resident_mb(tight) - memory < GROWTH_MB, "what was not taken is dropped")
    tight.delete("large")


# -- in what order it is told ---------------------------------------------------------------


def test_a_refusal_comes_after_the_answers_that_are_due(tight: Server) -> None:
    for bad, status in ((b"nonsense\r\n\r\n", 400), (b"GET /" + b"x" * 100_000, 431)):
        assert said(tight, (CALL + SNEAKER) * 3 + bad)[0] == [200, 200, 200, status]
    assert said(tight, CALL + SNEAKER + b"GET /ping HTTP/1.1\r\n")[0] == [200, 408]


# -- too many ---------------------------------------------------------------------------------


@pytest.fixture
def idle() -> Iterator[int]:
    """10,000 connections, or what this process and the server may have; descriptors for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(10_000, hard * 3 // 4 - 200, hard - 1000)
    assert number > 100, f"{hard} descriptors are too few for this test"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number + 1000), hard))
    yield number
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_idle_connections_and_no_more(tmp_path: Path, idle: int) -> None:
    most = idle + 100
    with serving(tmp_path, EMULATOR_CONNECTIONS=str(most), **LIGHT) as server, ExitStack() as stack:
        memory = resident_mb(server)

        def connect() -> socket.socket:
            raw = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
            return stack.enter_context(raw)

        with unaffected(server, 16 * idle / 1000):  # 16 KB each
            for _ in range(idle):
                connect()
            until(lambda: descriptors(server) > idle, "all are accepted")
            assert server.evict(SERVERLESS) in (0, 1)
            assert server.invoke(SERVERLESS).status_code == 200  # there are descriptors for a start
            for _ in range(200):
                last = connect()
            answer = last.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"EMULATOR_CONNECTIONS" in answer
            assert server.invoke(REALTIME).status_code == 200  # on a connection that it has had
            stack.close()
        assert resident_mb(server) - memory < 16 * idle / 1000
