"""The command line against a real server, as people type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import SERVERLESS, Account
from tests.load import REALTIME
from tests.load import SERVERLESS as SHIPPED
from tests.servers import ARTIFACTS, KERAS, LIGHT, ROOT, Server, free_port, serving

SNEAKER = ARTIFACTS / "sneaker.json"
COMMANDS = (
    "serve", "env", "endpoints", "invoke", "evict", "status",
    "deploy", "delete", "train", "fit-memory", "ledger",
    "bill", "breakeven", "prices",
)  # fmt: skip


class Line:
    """A command line beside a server, with a home and settings of its own."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server, self.home = server, home

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(words),
            cwd=self.home,
            env=self._environment(settings),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """Run it beside the test."""
        return subprocess.Popen(
            self._command(words),
            cwd=self.home,
            env=self._environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-P", "-m", "emulator.cli", *words]

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "EMULATOR_STATE_DIR": str(self.server.state),
            "COLUMNS": "200",
        }
        return {**kept, **own, **settings}

    def said(self, *words: str, **settings: str) -> str:
        done = self.run(*words, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str, **settings: str) -> str:
        done = self.run(*words, **settings)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def line(server: Server, tmp_path: Path) -> Line:
    return Line(server, tmp_path)


def test_env_finds_the_running_server_and_makes_boto3_work(line: Line) -> None:
    given = json.loads(line.said("env", "--json"))
    assert given["AWS_ENDPOINT_URL"] == line.server.url
    assert Path(given["SAGEMAKER_USER_CONFIG_OVERRIDE"]).is_file()
    script = (
        "import boto3; print(boto3.client('sagemaker').list_endpoints()['Endpoints'][0]"
        "['EndpointArn'], boto3.client('sts').get_caller_identity()['Account'])"
    )
    done = subprocess.run(
        ["sh", "-c", f'eval $({sys.executable} -P -m emulator.cli env) && {sys.executable} -c "$0"',
         script],
        cwd=line.home,
        env={"PATH": os.environ["PATH"], "HOME": str(line.home), "PYTHONPATH": str(ROOT),
             "EMULATOR_STATE_DIR": str(line.server.state), "AWS_PROFILE": "none-such"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("arn:aws:sagemaker:eu-west-3:123456789012:endpoint/")
    assert done.stdout.split()[1] == "123456789012"


def test_env_for_an_address(line: Line) -> None:
    text = line.said("env", "--url", line.server.url + "/", "--shell", "fish")
    assert f"set -gx AWS_ENDPOINT_URL '{line.server.url}';" in text


def test_endpoints_of_all_regions_are_listed(line: Line, account: Account) -> None:
    elsewhere = Account(account.server, "us-east-1", account.account)
    elsewhere.deploy("faraway", SERVERLESS)
    text = line.said("endpoints")
    assert REALTIME in text
    (row,) = [row for row in text.splitlines() if row.startswith("faraway")]
    assert "us-east-1" in row
    assert "InService" in row
    listed = json.loads(line.said("endpoints", "--json"))["endpoints"]
    assert {"faraway", REALTIME, SHIPPED} <= {one["name"] for one in listed}
    elsewhere.delete("faraway")


def test_invoke_prints_the_answer_and_what_it_took(line: Line, account: Account) -> None:
    done = line.run("invoke", SHIPPED, "--file", str(SNEAKER))
    assert len(json.loads(done.stdout)["predictions"][0]) == 10
    assert "ms billed" in done.stderr
    account.deploy("there", SERVERLESS)
    given = ("invoke", "there", "--file", str(SNEAKER), "--account", account.account, "--json")
    answer = json.loads(line.said(*given))
    assert answer["headers"]["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert len(json.loads(answer["body"])["predictions"][0]) == 10


def test_neither_a_profile_nor_a_proxy_of_the_users_gets_in_the_way(line: Line) -> None:
    theirs = {"AWS_PROFILE": "none-such", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    answer = line.said("invoke", SHIPPED, "--file", str(SNEAKER), **theirs)
    assert len(json.loads(answer)["predictions"][0]) == 10


def test_evict_unloads(line: Line) -> None:
    line.said("invoke", SHIPPED, "--file", str(SNEAKER))
    assert line.said("evict", SHIPPED) == f"1 environment of {SHIPPED} unloaded.\n"
    assert json.loads(line.said("evict", SHIPPED, "--json")) == {"evicted": 0}


def test_status_shows_where_and_how_much(line: Line) -> None:
    shown = json.loads(line.said("status", "--json"))
    assert (shown["url"], shown["region"]) == (line.server.url, "eu-west-3")
    assert float(shown["total"]) >= 0
    assert f"{line.server.url}/billing" in line.said("status")


def test_what_goes_wrong_is_one_sentence(line: Line, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert f"No server answers at {nobody}" in line.refused("status", "--url", nobody)
    assert "is no address of a server" in line.refused("env", "--url", "foo")
    elsewhere = line.refused("endpoints", EMULATOR_STATE_DIR=str(tmp_path / "none"))
    assert "No server runs on the state directory" in elsewhere
    assert "always warm" in line.refused("evict", REALTIME)
    assert "Could not find endpoint" in line.refused("evict", "nope")
    assert "cannot be read" in line.refused("invoke", SHIPPED, "--file", "/nowhere")
    missing = line.refused("invoke", "nope", "--file", str(SNEAKER))
    assert missing == "ValidationError: Endpoint nope of account 123456789012 not found.\n"
    assert "EMULATOR_SEED" in line.refused("status", EMULATOR_SEED="many")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(line: Line, command: str) -> None:
    assert "Usage:" in line.said(command, "--help")
    assert command in line.said("--help")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "EMULATOR_AUTH": "sigv4",
        "EMULATOR_ACCESS_KEY_ID": "LKWMTEST",
        "EMULATOR_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
        "EMULATOR_TOKEN": "a-token-of-the-tests",
    }
    with serving(tmp_path_factory.mktemp("guarded"), **settings, **LIGHT) as running:
        yield running


def test_a_server_that_asks_for_signatures_is_reached_with_its_keys(
    guarded: Server, tmp_path: Path
) -> None:
    line = Line(guarded, tmp_path)
    assert "takes a request signed with" in line.refused("env")
    keys = dict(guarded.settings)
    given = json.loads(line.said("env", "--json", **keys))
    assert given["AWS_ACCESS_KEY_ID"] == "LKWMTEST"
    token = {"EMULATOR_TOKEN": keys["EMULATOR_TOKEN"]}
    assert "set EMULATOR_ACCESS_KEY_ID" in line.refused("env", **token)
    answer = line.said("invoke", SHIPPED, "--file", str(SNEAKER), **keys)
    assert len(json.loads(answer)["predictions"][0]) == 10


def test_what_deploy_says_can_be_pasted_where_signatures_are_asked_for(
    guarded: Server, tmp_path: Path
) -> None:
    line, keys = Line(guarded, tmp_path), dict(guarded.settings)
    said = line.said("deploy", str(KERAS), "--name", "signed", **keys)
    (tmp_path / "request.json").write_bytes(SNEAKER.read_bytes())
    done = subprocess.run(
        ["sh", "-c", said.splitlines()[2]],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], **keys},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert len(json.loads(done.stdout)["predictions"][0]) == 10
    line.said("delete", "signed", **keys)


def test_a_stopped_server_is_found_no_more(tmp_path: Path) -> None:
    with serving(tmp_path, **LIGHT) as server:
        line = Line(server, tmp_path)
        assert server.url in line.said("env")
        server.stop()
        assert "No server runs" in line.refused("env")
