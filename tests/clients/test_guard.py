"""What the other tests rely on: a client that wants to leave this machine is seen and stopped."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from emulator.sandbox import landlock
from tests.clients.conftest import Arriving
from tests.clients.people import Person
from tests.servers import Server

CONFIGURED = ("SAGEMAKER_USER_CONFIG_OVERRIDE", "SAGEMAKER_ADMIN_CONFIG_OVERRIDE")


def test_a_client_reaches_the_server_and_nothing_else(arrive: Arriving, here: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = arrive("boto3").runs("leaving.py", str(here.port), str(port))
    refused = "PermissionError"
    past_python = refused if landlock.abi() >= landlock.NETWORK else "connected"
    assert done.json == {
        "server": "connected",
        "address": refused,
        "name": refused,
        "datagram": refused,
        "child": refused,
        "past python": past_python,
    }
    assert sorted(done.attempts) == [
        "socket.getaddrinfo 192.0.2.1",
        "socket.getaddrinfo 192.0.2.1",
        "socket.getaddrinfo example.org",
        "socket.sendto 192.0.2.1",
    ]


def test_an_sdk_that_is_not_told_its_bucket_asks_aws_for_the_account_and_is_seen(
    arrive: Arriving,
) -> None:
    somebody = arrive("sagemaker2", unset=CONFIGURED)
    code = "import sagemaker; sagemaker.Session().default_bucket()"
    done = somebody.end(somebody.begin("-c", code), code=1)
    assert set(done.attempts) == {"socket.getaddrinfo sts.eu-west-3.amazonaws.com"}


def test_a_client_has_nothing_of_the_developers(
    arrive: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    somebody: Person = arrive("boto3")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = somebody.end(somebody.begin("-c", code)).json
    assert seen["HOME"] == str(somebody.home)
    assert "mine" not in seen.values()
    assert not {name for name in seen if "proxy" in name.lower()}
    assert Path(seen["HOME"]) != Path.home()
