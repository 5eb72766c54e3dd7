"""`lukewarm fit-memory`: what it says is what the server enforces."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.test_cli import SNEAKER, Line
from tests.servers import ARTIFACTS, Server, until

MODEL = ARTIFACTS / "fashion-mnist"
HUNGRY = """
import numpy
def model_fn(model_dir):
    return numpy.ones(1_300 << 20, dtype="uint8")
def predict_fn(data, model):
    return [int(model[0])]
"""
# The same 64 MiB in a hundred places: as large as 6.4 GB, and no burden to this machine.
VAST = """
import mmap, tempfile
def model_fn(model_dir):
    with tempfile.TemporaryFile() as file:
        file.truncate(64 << 20)
        kind = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return [mmap.mmap(file.fileno(), 64 << 20, kind, mmap.PROT_READ) for _ in range(100)]
"""


@pytest.fixture
def line(server: Server, tmp_path: Path) -> Line:
    return Line(server, tmp_path)


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
    assert (found["smaller_mb"], found["vcpus"]) == (1024, 1.16)
    assert found["lacking_bytes"] == found["peak_bytes"] - (1024 << 20)
    assert found["left_bytes"] == (2048 << 20) - found["peak_bytes"]
    line.said("deploy", "hungry", "--memory", "2048", "--name", "enough")
    assert line.said("invoke", "enough", "--file", "body.json") == "[1]"
    done = line.run("deploy", "hungry", "--memory", "1024", "--name", "too-little")
    assert done.returncode == 1
    assert re.search("needed 1[0-9]{3} MB of memory, .* its limit of 1024 MB", done.stderr)
    for name in ("enough", "too-little"):
        line.said("delete", name)


def test_the_shipped_model_fits_into_the_size_that_is_named(line: Line) -> None:
    said = line.said("fit-memory", str(MODEL), "--body", str(SNEAKER))
    assert re.search(r"^After loading +\d+ MiB, TensorFlow included$", said, re.M)
    assert re.search(r"^At the peak +\d+ MiB, measured over 5 answers$", said, re.M)
    size = r"^Memory size +1024 MB, which leaves \d+ MiB and gives 0.58 vCPU$"
    assert re.search(size, said, re.M)


def test_what_has_no_memory_to_measure(line: Line, tmp_path: Path) -> None:
    assert line.refused("fit-memory", "nowhere").startswith("There is no model at ")
    body = tmp_path / "body.json"
    body.write_text('{"instances": [[1, 2]]}')
    said = line.refused("fit-memory", str(MODEL), "--body", "body.json")
    assert said.startswith("The model answers the request with 400: ")

    (tmp_path / "empty").mkdir()
    assert "neither a SavedModel nor a .keras file" in line.refused("fit-memory", "empty")
    assert "it is one of tensorflow, litert" in line.refused(
        "fit-memory", str(MODEL), "--runtime", "other"
    )


def test_what_is_measured_is_what_the_server_measures(line: Line) -> None:
    """A forked environment estimates while somebody waits, some 25 MiB too high."""
    words = ("fit-memory", str(MODEL), "--body", str(SNEAKER), "--json")
    found = json.loads(line.said(*words))
    line.said("deploy", str(MODEL), "--name", "measured", "--memory", "1024")
    line.said("invoke", "measured", "--file", str(SNEAKER))

    def settled() -> int:
        (one,) = line.server.environments("measured")
        return one["memory_bytes"] if one["state"] == "idle" else 0

    until(lambda: abs(settled() - found["peak_bytes"]) < 12 << 20, f"the server's is {found}")
    line.said("delete", "measured")


def test_litert_is_measured_where_it_is_asked_for(line: Line) -> None:
    for words in (["--runtime", "litert"], ["--env", "LUKEWARM_RUNTIME=litert"]):
        found = json.loads(line.said("fit-memory", str(MODEL), "--json", *words))
        assert found["runtime"] == "litert"
        assert 0 < found["peak_bytes"] < 300 << 20


def test_what_fits_into_no_size_is_told_so(line: Line, tmp_path: Path) -> None:
    code = tmp_path / "vast" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(VAST)
    said = line.refused("fit-memory", "vast", "--json")
    assert "fits into no memory size, of which 6144 MB is the largest: " in said
    assert re.search("needed 6[0-9]{3} MB of memory", said)
    assert "Take a real-time endpoint" in said
