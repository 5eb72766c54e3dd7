"""`lukewarm deploy` and `delete`, as people type them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.accounts import SERVERLESS, Account
from tests.e2e.test_cli import SNEAKER, Line
from tests.servers import ARTIFACTS, KERAS, Server

MODEL = ARTIFACTS / "fashion-mnist"


@pytest.fixture
def line(server: Server, tmp_path: Path) -> Line:
    return Line(server, tmp_path)


def deployed(line: Line, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(line.said("deploy", *words, "--json"))
    return found


def sneaker_of(line: Line, name: str) -> int:
    (row,) = json.loads(line.said("invoke", name, "--file", str(SNEAKER)))["predictions"]
    return max(range(10), key=row.__getitem__)


@pytest.mark.parametrize(
    ("path", "name"),
    [(KERAS, "fashion-mnist"), (MODEL / "1", "fashion-mnist"), (MODEL, "fashion-mnist")],
    ids=["keras", "bare SavedModel", "model directory"],
)
def test_any_form_of_a_model_becomes_an_endpoint(line: Line, path: Path, name: str) -> None:
    said = line.said("deploy", str(path))
    assert said.startswith(f"{name} (serverless) is InService after ")
    assert sneaker_of(line, name) == 7
    (variant,) = line.server.endpoint(name)["variants"]
    assert (variant["memory_mb"], variant["max_concurrency"]) == (4096, 10)
    assert line.said("delete", name) == f"{name} is deleted.\n"
    assert line.server.client.get(f"/_emulator/endpoints/{name}").status_code == 404


def test_what_it_says_can_be_pasted(line: Line, tmp_path: Path) -> None:
    packed = tmp_path / "a model.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(MODEL / "1", "1")
    said = line.said("deploy", str(packed), "--instance", "ml.m5.large", "--count", "2")
    assert said.startswith("a-model (realtime) is InService")
    (tmp_path / "request.json").write_bytes(SNEAKER.read_bytes())
    _, invoke, curl = said.splitlines()
    answers = [
        line.said(*shlex.split(invoke)[1:]),
        subprocess.run(
            shlex.split(curl), cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        ).stdout,
    ]
    assert all(json.loads(answer)["predictions"] for answer in answers)
    (variant,) = line.server.endpoint("a-model")["variants"]
    assert (variant["instance_type"], variant["instance_count"]) == ("ml.m5.large", 2)
    assert "is an endpoint a-model already" in line.refused("deploy", str(packed))
    line.said("delete", "a-model")


def test_options_of_a_serverless_endpoint(line: Line) -> None:
    words = ("--memory", "2048", "--concurrency", "3", "--provisioned", "1", "--name", "chosen")
    made = deployed(line, str(KERAS), "--serverless", *words, "--env", "A=b=c", "--env", "B=")
    assert made["status"] == "InService"
    (variant,) = line.server.endpoint("chosen")["variants"]
    assert variant["memory_mb"] == 2048
    assert variant["max_concurrency"] == 3
    assert variant["provisioned_concurrency"] == 1
    line.said("delete", "chosen")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.keras"], "There is nothing at nothing.keras."),
        ([str(KERAS), "--memory", "1000"], "--memory is 1000; it is one of 1024, 2048,"),
        ([str(KERAS), "--instance", "ml.m5.large", "--memory", "1024"], "leave out one or the"),
        ([str(KERAS), "--count", "2"], "--count is for real-time endpoints"),
        ([str(KERAS), "--instance", "ml.m5.lage", "--name", "x"], "did you mean ml.m5.large"),
        ([str(KERAS), "--name", "no_name"], "Member must satisfy regular expression pattern"),
        ([str(KERAS), "--concurrency", "500", "--name", "x"], "500"),
        ([str(KERAS), "--memory", "0"], "--memory is 0; it is one of 1024, 2048,"),
        ([str(KERAS), "--count", "0"], "Invalid value for '--count'"),
        ([str(KERAS), "--concurrency", "-1"], "Invalid value for '--concurrency'"),
        (["."], "holds no model: neither a SavedModel, nor a .keras file, nor a script"),
        ([str(KERAS), "--env", "A"], "--env A is not understood: it has the form NAME=VALUE."),
    ],
)
def test_what_cannot_be_deployed(line: Line, words: list[str], said: str) -> None:
    assert said in line.refused("deploy", *words)


def test_what_it_says_names_the_server_that_was_named(line: Line, tmp_path: Path) -> None:
    nowhere = {"EMULATOR_STATE_DIR": str(tmp_path / "none")}
    said = line.said("deploy", str(KERAS), "--name", "named", "--url", line.server.url, **nowhere)
    (tmp_path / "request.json").write_bytes(SNEAKER.read_bytes())
    invoke = shlex.split(said.splitlines()[1])[1:]
    assert json.loads(line.said(*invoke, **nowhere))["predictions"]
    line.said("delete", "named", "--url", line.server.url, **nowhere)


def test_another_region_may_have_an_endpoint_of_that_name(line: Line, account: Account) -> None:
    elsewhere = Account(account.server, "us-east-1", account.account)
    elsewhere.deploy("of-both", SERVERLESS)
    assert deployed(line, str(KERAS), "--name", "of-both")["region"] == "eu-west-3"
    line.said("delete", "of-both")  # and is not kept waiting by the other one
    elsewhere.delete("of-both")


def script(folder: Path, text: str) -> str:
    code = folder / "scripted" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(text)
    return str(folder / "scripted")


def test_a_model_that_fails_says_why_and_can_be_removed(line: Line, tmp_path: Path) -> None:
    model = script(tmp_path, "def model_fn(model_dir):\n    raise ValueError('no weights')")
    done = line.run("deploy", model, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "Failed"
    assert "scripted has failed: " in done.stderr
    assert "ValueError: no weights" in done.stderr
    assert "`lukewarm delete scripted` removes it." in done.stderr
    line.said("delete", "scripted")


def test_a_directory_around_the_servers_own_files_is_no_model(line: Line) -> None:
    shutil.copy(KERAS, line.server.state)
    try:
        said = line.refused("deploy", str(line.server.state), "--name", "around")
    finally:
        (line.server.state / KERAS.name).unlink()
    assert "holds the server's own files (EMULATOR_STATE_DIR)" in said
