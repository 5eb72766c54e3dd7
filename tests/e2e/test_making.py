"""`lukewarm deploy`, `delete`, `train` and `fit-memory`, as people type them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.e2e.test_cli import SNEAKER, Line
from tests.servers import ARTIFACTS, KERAS, ROOT, Server, until

MODEL = ARTIFACTS / "fashion-mnist"
HUNGRY = """
import numpy
def model_fn(model_dir):
    return numpy.ones(1_300 << 20, dtype="uint8")
def predict_fn(data, model):
    return [int(model[0])]
"""
TRAINS = """
import os, shutil, sys
print("arguments", sys.argv[1:], flush=True)
print("loss: 0.25", flush=True)
shutil.copytree(os.environ["SM_CHANNEL_TRAINING"], os.path.join(os.environ["SM_MODEL_DIR"], "1"))
"""


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
    until(
        lambda: line.server.client.get(f"/_emulator/endpoints/{name}").status_code == 404,
        f"{name} is gone",
    )


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
    made = deployed(line, str(KERAS), "--serverless", *words, "--env", "A=b=c")
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
        ([str(KERAS), "--env", "A"], "--env A is not understood: it has the form NAME=VALUE."),
    ],
)
def test_what_cannot_be_deployed(line: Line, words: list[str], said: str) -> None:
    assert said in line.refused("deploy", *words)


def test_a_model_that_fails_says_why_and_can_be_removed(line: Line, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = line.refused("deploy", "empty")
    assert "no SavedModel bundles found!" in said
    assert "`lukewarm delete empty` removes it." in said
    line.said("delete", "empty")


def test_memory_that_is_named_is_enough_and_the_size_below_is_not(
    line: Line, tmp_path: Path
) -> None:
    code = tmp_path / "hungry" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(HUNGRY)
    body = tmp_path / "body.json"
    body.write_text("[1]")
    found = json.loads(line.said("fit-memory", "hungry", "--body", "body.json", "--json"))
    assert found["memory_mb"] == 2048
    assert 1300 << 20 < found["peak_bytes"] < 2048 << 20
    assert deployed(line, "hungry", "--memory", "2048", "--name", "enough")["status"] == "InService"
    assert line.said("invoke", "enough", "--file", "body.json") == "[1]"
    said = line.refused("deploy", "hungry", "--memory", "1024", "--name", "too-little")
    assert re.search("needed 1[0-9]{3} MB of memory, which is more than its limit of 1024 MB", said)
    for name in ("enough", "too-little"):
        line.said("delete", name)


def test_the_shipped_model_fits_into_the_size_that_is_named(line: Line) -> None:
    said = line.said("fit-memory", str(MODEL), "--body", str(SNEAKER))
    assert re.search(r"^After loading +\d+ MiB, tensorflow included$", said, re.M)
    assert re.search(r"^At the peak +\d+ MiB, measured over 5 answers$", said, re.M)
    size = r"^Memory size +1024 MB, which leaves \d+ MiB and gives 0.58 vCPU$"
    assert re.search(size, said, re.M)


def test_what_has_no_memory_to_measure(line: Line, tmp_path: Path) -> None:
    assert line.refused("fit-memory", "nowhere").startswith("There is no model at ")
    body = tmp_path / "body.json"
    body.write_text('{"instances": [[1, 2]]}')
    said = line.refused("fit-memory", str(MODEL), "--body", "body.json")
    assert said.startswith("The model answers the request with 400: ")


def test_a_script_is_trained_and_what_comes_out_deployed(line: Line, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINS)
    words = ["--channel", f"training={MODEL / '1'}", "--hyperparameter", "epochs=3"]
    words += ["--hyperparameter", "word=one two", "--metric", "loss=loss: (.*)"]
    said = line.said("train", "train.py", "--name", "by-hand", *words)
    assert "arguments ['--epochs', '3', '--word', 'one two']" in said
    assert re.search(r"^by-hand is Completed: \d+ s billed, 0\.0000\d+ USD\.$", said, re.M)
    assert "  loss: 0.25\n" in said
    deploy = next(each for each in said.splitlines() if "lukewarm deploy" in each)
    assert str(tmp_path / "by-hand" / "output" / "model.tar.gz") in deploy
    line.said(*shlex.split(deploy)[1:])
    assert sneaker_of(line, "by-hand") == 7
    line.said("delete", "by-hand")


def test_a_script_of_a_folder_that_fails(line: Line, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text("WORD = 'imported'")
    (tmp_path / "code" / "run.py").write_text("from own import WORD; raise ValueError(WORD)")
    done = line.run("train", "code/run.py", "--source-dir", "code")
    assert done.returncode == 2
    assert 'ErrorMessage "ValueError: imported"' in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.py"], "There is nothing at nothing.py."),
        (["here.py", "--channel", "training"], "--channel training is not understood"),
        (["here.py", "--channel", "training=nowhere"], 'There is no file or folder at "file://'),
        (["here.py", "--metric", "loss=("], "'('"),
        (["here.py", "--source-dir", "/usr"], "here.py is not in the folder /usr."),
        (["here.py", "--instance", "ml.none"], "ml.none"),
        (["here.py", "--output", "s3://no-such-bucket/x"], "There is no bucket no-such-bucket"),
    ],
)
def test_what_cannot_be_trained(line: Line, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "here.py").write_text("pass")
    assert said in line.refused("train", *words)


def test_ctrl_c_stops_the_job(line: Line, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time; print('waiting', flush=True); time.sleep(600)")
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "emulator.cli", "train", "waits.py", "--name", "broken-off"],
        cwd=tmp_path,
        env=kept
        | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        | {"EMULATOR_STATE_DIR": str(line.server.state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = iter(process.stdout.readline, "")
    assert any(each == "waiting\n" for each in said)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert stderr == "Stopping broken-off; Ctrl-C again leaves it to itself.\n"
    assert "broken-off is Stopped: " in stdout
