"""Archives that a script serves: scikit-learn's contract, on a real server."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from tests.servers import (
    JSON,
    ROOT,
    Server,
    environment,
    failed_start,
    realtime,
    serverless,
    serving,
)

LINEAR = """
import json, os

class Linear:
    def __init__(self, weights, bias):
        self.weights, self.bias = weights, bias
    def predict(self, rows):
        return [sum(w * float(x) for w, x in zip(self.weights, row)) + self.bias for row in rows]

def model_fn(model_dir):
    with open(os.path.join(model_dir, "linear.json")) as file:
        return Linear(**json.load(file))
"""
PICKLED = """
import pickle

def model_fn(model_dir):
    with open(model_dir + "/model.joblib", "rb") as file:
        return pickle.load(file)

def input_fn(body, content_type): return body
def predict_fn(data, model): return str(model * int(data))
def output_fn(prediction, accept): return prediction, "text/plain"
"""
WEIGHTS = b'{"weights": [2, 3], "bias": 1}'


def packed(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"code/inference.py": LINEAR.encode(), "linear.json": WEIGHTS}
    return packed(tmp_path_factory.mktemp("linear") / "model.tar.gz", files)


@pytest.mark.parametrize("variant", [serverless, realtime])
def test_a_script_is_served_by_both_personas(
    server: Server, name: str, linear: Path, variant: object
) -> None:
    assert callable(variant)
    endpoint = server.deploy(name, variant(linear))
    assert endpoint["variants"][0]["runtime"] == "script"
    answer = server.invoke(name, b"[[1, 1], [10, 20]]")
    assert (answer.status_code, answer.json()) == (200, [6.0, 81.0])
    answer = server.invoke(
        name, b"1,1\n10,20\n", {"content-type": "text/csv", "accept": "text/csv"}
    )
    assert (answer.headers["content-type"], answer.content) == ("text/csv", b"6.0\n81.0\n")
    (environment,) = server.environments(name)
    assert environment["memory_bytes"] < 200 << 20
    refused = server.invoke(name, b"x", {"content-type": "image/png"})
    assert (refused.status_code, refused.json()["OriginalStatusCode"]) == (424, 415)
    refused = server.invoke(name, b"[[1, 1]]", {**JSON, "accept": "image/png"})
    assert refused.json()["OriginalStatusCode"] == 406
    broken = server.invoke(name, b"[[")
    assert broken.json()["OriginalStatusCode"] == 500


def test_a_pickle_is_the_scripts_own_business(server: Server, name: str, tmp_path: Path) -> None:
    files = {
        "code/serve.py": PICKLED.encode(),
        "model.joblib": pickle.dumps(Fraction(3, 4)),
    }
    archive = packed(tmp_path / "model.tar.gz", files)
    server.deploy(name, serverless(archive, variables={"SAGEMAKER_PROGRAM": "serve.py"}))
    answer = server.invoke(name, b"5", {"content-type": "text/csv"})
    assert (answer.text, answer.headers["content-type"]) == ("15/4", "text/plain")
    server.evict(name)
    assert server.invoke(name, b"4", {"content-type": "text/csv"}).text == "3"  # a cold start
    refused = server.create("no-script", serverless(archive))
    assert refused.status_code == 400
    assert "pack it with a script" in refused.text


def test_a_script_that_cannot_be_loaded_fails_with_its_words(
    server: Server, name: str, tmp_path: Path
) -> None:
    source = "import library_of_nobody\ndef model_fn(d): pass\n"
    archive = packed(tmp_path / "model.tar.gz", {"code/inference.py": source.encode()})
    assert server.create(name, serverless(archive)).status_code == 201
    settled = server.settled(name)
    assert settled["status"] == "Failed"
    assert "No module named 'library_of_nobody'" in settled["failure_reason"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with another interpreter for scripts, which has no package at all."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    settings = {
        "EMULATOR_PYTHON": str(venv / "bin" / "python"),
        "EMULATOR_SANDBOX": "spawn",
    }
    with serving(tmp_path_factory.mktemp("other"), **settings) as running:
        yield running


def test_scripts_run_in_the_interpreter_that_is_set(other: Server, linear: Path) -> None:
    other.deploy("linear", serverless(linear))
    answer = other.invoke("linear", b"[[1, 1]]")
    assert (answer.status_code, json.loads(answer.content)) == (200, [6])
    npy = other.invoke("linear", b"x", {"content-type": "application/x-npy"})
    assert npy.json()["OriginalStatusCode"] == 415  # there is no NumPy
    assert other.invoke("fashion-mnist-serverless").status_code == 200  # the server's own


def test_a_wrong_interpreter_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    said = failed_start(tmp_path / "state", EMULATOR_PYTHON=str(tmp_path / "gone"))
    assert "(EMULATOR_PYTHON) is not there" in said


def test_the_command_line_names_the_interpreter(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    done = subprocess.run(
        [sys.executable, "-m", "emulator.cli", "serve", "--port", "0", "--python", gone],
        env=environment(tmp_path / "state"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"The interpreter {gone} (EMULATOR_PYTHON) is not there")
