"""pytest's plugin: servers for tests of other people's clients. docs/testing.md is its manual.

Who has it installed and does not use it pays for importing this file, which imports pytest alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from emulator.ephemeral import Ephemeral
    from emulator.testbed import Lukewarm

Scope = Literal["session", "package", "module", "class", "function"]
SCOPES = ("function", "class", "module", "package", "session")
_server_key = pytest.StashKey["Ephemeral"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lukewarm", "Lukewarm, a local SageMaker endpoint emulator")
    group.addoption(
        "--lukewarm-keep",
        action="store_true",
        help="keep the server's state, as the last test left it, and say where it is",
    )
    parser.addini(
        "lukewarm_scope",
        "how long endpoints, usage and objects last: " + ", ".join(SCOPES),
        default="function",
    )


def pytest_configure(config: pytest.Config) -> None:
    scope = config.getini("lukewarm_scope")
    if scope not in SCOPES:
        raise pytest.UsageError(
            f"The setting lukewarm_scope is {scope!r}; it is one of {', '.join(SCOPES)}."
        )


def _scope(fixture_name: str, config: pytest.Config) -> Scope:
    scope: Scope = config.getini("lukewarm_scope")
    return scope


@pytest.fixture(scope="session")
def lukewarm_settings() -> dict[str, str]:
    """EMULATOR_ settings of the server, for a project to override."""
    return {}


@pytest.fixture(scope="session")
def _lukewarm_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Ephemeral]:
    """One server for the tests of one process."""
    from emulator.ephemeral import Ephemeral

    server = Ephemeral(tmp_path_factory.mktemp("lukewarm"))
    pytestconfig.stash[_server_key] = server
    yield server
    server.stop()
    if not pytestconfig.getoption("lukewarm_keep"):
        server.forget_state()


@pytest.fixture(scope=_scope)
def lukewarm(_lukewarm_server: Ephemeral, lukewarm_settings: dict[str, str]) -> Iterator[Lukewarm]:
    """A server with the two endpoints that come along and nothing else, under a virtual clock."""
    from emulator.errors import LukewarmError
    from emulator.testbed import Lukewarm

    try:
        _lukewarm_server.refresh(lukewarm_settings)
    except LukewarmError as error:
        pytest.fail(str(error), pytrace=False)
    with Lukewarm(_lukewarm_server) as testbed:
        yield testbed


@pytest.fixture(scope=_scope)
def lukewarm_boto3(lukewarm: Lukewarm) -> Callable[..., Any]:
    """Makes clients of boto3 that are led to the server: a service's name, and what is for
    botocore's Config."""
    return lukewarm.boto3


@pytest.fixture
def lukewarm_env(
    lukewarm: Lukewarm, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The process's variables lead AWS's clients to the server, for code that makes its own."""
    import boto3

    from emulator.exports import UNSET

    given = lukewarm.environment(tmp_path_factory.mktemp("lukewarm-env"))
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # one that knows other variables
    return given


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what the server said during a test that failed."""
    report = yield
    server = item.config.stash.get(_server_key, None)
    used = server and server.running and "lukewarm" in getattr(item, "fixturenames", ())
    if server and used and report.failed:  # one that has ended is shown with the error
        report.sections.append((f"Lukewarm's log, {server.log}", server.said()))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says where the state is that was asked to be kept."""
    server = config.stash.get(_server_key, None)
    if server and config.getoption("lukewarm_keep"):
        terminalreporter.write_line(f"Lukewarm's state and log are in {server.folder}.")
