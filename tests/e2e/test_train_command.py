"""`lukewarm train`, as people type it."""

from __future__ import annotations

import json
import re
import shlex
import signal
from itertools import takewhile
from pathlib import Path

import pytest

from tests.e2e.test_cli import SNEAKER, Line
from tests.servers import ARTIFACTS, Server

MODEL = ARTIFACTS / "fashion-mnist"
TRAINS = """
import os, shutil, sys
print("arguments", sys.argv[1:], flush=True)
print("loss: 0.25", flush=True)
shutil.copytree(os.environ["SM_CHANNEL_TRAINING"], os.path.join(os.environ["SM_MODEL_DIR"], "1"))
"""
# Together more than the server's Logs hold of a stream; what comes last has a second to come.
BEFORE, AFTER = 17_000, 4_000
WAITS = f"""
import signal, sys, time
def leave(*_):
    print(*(f"after {{number}}" for number in range({AFTER})), sep="\\n", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, leave)
print(*(f"before {{number}}" for number in range({BEFORE})), sep="\\n", flush=True)
time.sleep(600)
"""


@pytest.fixture
def line(server: Server, tmp_path: Path) -> Line:
    return Line(server, tmp_path)


def sneaker_of(line: Line, name: str) -> int:
    (row,) = json.loads(line.said("invoke", name, "--file", str(SNEAKER)))["predictions"]
    return max(range(10), key=row.__getitem__)


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


@pytest.mark.parametrize("script", ["code/run.py", "run.py"], ids=["from here", "from there"])
def test_a_script_of_a_folder_that_fails(line: Line, tmp_path: Path, script: str) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text("WORD = 'imported'")
    (tmp_path / "code" / "run.py").write_text("from own import WORD; raise ValueError(WORD)")
    done = line.run("train", script, "--source-dir", "code")
    assert done.returncode == 1
    assert 'ErrorMessage "ValueError: imported"' in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.py"], "There is nothing at nothing.py."),
        (["here.py", "--channel", "training"], "--channel training is not understood"),
        (["here.py", "--channel", "training=nowhere"], 'There is no file or folder at "file://'),
        (["here.py", "--metric", "loss=("], "'('"),
        (["here.py", "--source-dir", "/usr"], "There is no script here.py in the folder /usr."),
        (["here.py", "--instance", "ml.none"], "ml.none"),
        (["here.py", "--output", "s3://no-such-bucket/x"], "There is no bucket no-such-bucket"),
    ],
)
def test_what_cannot_be_trained(line: Line, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "here.py").write_text("pass")
    assert said in line.refused("train", *words)


def test_a_job_without_a_model_is_told_so(line: Line, tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text("import sys; print('given', sys.argv[1:])")
    said = line.said("train", "prints.py", "--hyperparameter", "word=")
    assert "given ['--word', '']" in said
    assert "It has saved no model" in said
    assert "lukewarm deploy" not in said


def test_ctrl_c_stops_the_job_and_all_that_it_prints_is_shown_once(
    line: Line, tmp_path: Path
) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    process = line.start("train", "waits.py", "--name", "broken-off")
    assert process.stdout is not None
    first = list(takewhile(f"before {BEFORE - 1}\n".__ne__, process.stdout))
    assert [one for one in first if one.startswith("before")] == [
        f"before {number}\n" for number in range(BEFORE - 1)
    ]
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert stderr == "Stopping broken-off; Ctrl-C again leaves it to itself.\n"
    after = [each for each in stdout.splitlines() if each.startswith(("before", "after"))]
    assert after == [f"after {number}" for number in range(AFTER)]
    assert "broken-off is Stopped: " in stdout
