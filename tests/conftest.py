"""Servers shared by the whole session: starting one imports TensorFlow, which takes seconds."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import pytest

from tests.accounts import REGION, Account
from tests.servers import Server, serving

# A shell's background job ignores Ctrl-C, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server under the virtual clock. Tests make endpoints of their own on it."""
    settings = {"EMULATOR_CLOCK": "virtual", "EMULATOR_TRAINING_STOP_S": "1"}
    with serving(tmp_path_factory.mktemp("virtual"), **settings) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    """An endpoint name of this test's own; the endpoint is deleted afterwards if it was made."""
    words = request.node.name.lower().replace("[", "_").split("_")
    own = "-".join(word for word in words if word.isalnum())[:50].strip("-")
    yield own
    if server.client.get(f"/_emulator/endpoints/{own}").status_code == 200:
        server.settled(own)
        server.delete(own)


_ACCOUNTS = itertools.count(100_000_000_001)


@pytest.fixture
def account(server: Server) -> Iterator[Account]:
    """An account of the test's own, so that names and quotas are its own, too."""
    own = Account(server, REGION, str(next(_ACCOUNTS)))
    yield own
    for one in own.sagemaker.list_endpoints(MaxResults=100)["Endpoints"]:
        name = one["EndpointName"]
        if own.settled(name)["EndpointStatus"] != "Deleting":
            own.delete(name)
