"""Where the server listens, and who is told to be far: names, addresses, other servers."""

from __future__ import annotations

import pytest
from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn

from emulator import origin
from emulator.errors import ForeignRequest
from emulator.listening import Listening, is_local, listening


async def app(scope: object, receive: object, send: object) -> None:
    """Any application."""


@pytest.mark.parametrize(
    ("settings", "address", "local", "url"),
    [
        ({}, "127.0.0.1:8000", True, "http://127.0.0.1:8000"),
        ({"host": "localhost", "port": 1}, "localhost:1", True, "http://127.0.0.1:1"),
        ({"host": "::1"}, "[::1]:8000", True, "http://[::1]:8000"),
        ({"host": "127.9.9.9"}, "127.9.9.9:8000", True, "http://127.9.9.9:8000"),
        ({"host": "0.0.0.0"}, "0.0.0.0:8000", False, "http://127.0.0.1:8000"),
        ({"host": "::"}, "[::]:8000", False, "http://127.0.0.1:8000"),
        ({"host": ""}, "every address:8000", False, "http://127.0.0.1:8000"),
        ({"host": "192.0.2.1"}, "192.0.2.1:8000", False, "http://192.0.2.1:8000"),
        ({"uds": "/run/lukewarm"}, "the Unix socket /run/lukewarm", True, ""),
        ({"fd": 3}, "the descriptor 3", False, ""),
    ],
)
def test_uvicorn_tells(settings: dict[str, object], address: str, local: bool, url: str) -> None:
    lifespan = LifespanOn(Config(app, **settings))  # type: ignore[arg-type]
    assert listening(lifespan.receive) == Listening(address, local, url)


def test_a_server_that_does_not_tell_is_taken_for_an_open_one() -> None:
    async def receive() -> None:
        """As other servers call the lifespan: a plain function."""

    assert not listening(receive).local


def test_a_name_without_an_address_is_not_local() -> None:
    assert not is_local("no.such.name.invalid")


@pytest.mark.parametrize("server", [("192.0.2.1", 8000), ("::ffff:192.0.2.1", 8000)])
def test_a_server_that_is_reached_from_outside_though_it_told_otherwise(
    server: tuple[str, int],
) -> None:
    with pytest.raises(ForeignRequest, match=r"EMULATOR_AUTH"):
        origin.check_reached(server)


@pytest.mark.parametrize(
    "server", [("127.0.0.1", 8000), ("::1", 8000), ("/run/socket", None), None]
)
def test_a_server_that_is_reached_as_it_told(server: tuple[str, int | None] | None) -> None:
    origin.check_reached(server)


@pytest.mark.parametrize(
    ("host", "hosts", "fine"),
    [
        (b"box.example", {"localhost"}, False),
        (b"box.example:80", {"localhost", "box.example"}, True),
        (b"BOX.example", {"box.example"}, True),
        (b"evil.example", {"*"}, True),
        (b"127.0.0.1.evil.example", {"localhost"}, False),
        (b"localhost.evil.example", {"localhost"}, False),
        (b"localhost:", {"localhost"}, True),
        (b"bucket.localhost:8000", {"localhost"}, True),
        (b"bucket.s3.eu-west-1.amazonaws.com", {"localhost"}, True),
        (b"amazonaws.com.evil.example", {"localhost"}, False),
        (b"192.0.2.1:8000", {"localhost"}, True),
        (b"", {"localhost"}, False),
    ],
)
def test_names_that_the_server_answers_to(host: bytes, hosts: set[str], fine: bool) -> None:
    if fine:
        origin.check_host({b"host": host}, frozenset(hosts))
    else:
        with pytest.raises(ForeignRequest, match="EMULATOR_HOSTS"):
            origin.check_host({b"host": host}, frozenset(hosts))
