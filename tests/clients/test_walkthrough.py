"""The walkthrough, run from top to bottom as `make walkthrough` does it, with less training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import obtain
from tests.servers import ROOT

NOTEBOOK = ROOT / "examples" / "walkthrough.ipynb"
LESS = {"EPOCHS": "1", "CALLS": "20", "COLD_CALLS": "3", "LOGS": "None"}
PATIENCE_S = 110
PRIVATE = re.compile(r"/(home|root|tmp|work|Users)/|127\.0\.0\.1|localhost:|File \"")
FIGURES = 5


def read(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return cells


def outputs(cells: list[dict[str, Any]], kind: str = "text/plain") -> str:
    """All that was printed or shown, in this form."""
    found = []
    for cell in cells:
        for output in cell.get("outputs", ()):
            shown = output.get("data", {}).get(kind, output.get("text", ""))
            found.append("".join(shown))
    return "\n".join(found)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    target = tmp_path_factory.mktemp("walkthrough") / "executed.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "examples.run", "--output", str(target)],
        cwd=ROOT,
        env={**os.environ, **LESS, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read(target)


def test_it_tells_the_story_from_training_to_the_bill(executed: list[dict[str, Any]]) -> None:
    text = outputs(executed)
    assert "Completed {'train:accuracy':" in text
    right = [float(found) for found in re.findall(r"([0-9.]+)% of 2,000 test images right", text)]
    assert len(right) == 2
    assert min(right) > 84  # 87 by one epoch
    assert text.count(": InService") == 2
    assert "{'endpoints': [], 'configurations': [], 'models': []}" in text
    for usage in ("Train:ml.m5.large", "Host:ml.t2.medium", "ServerlessInf:Mem-4GB"):
        assert f"EUW3-{usage}" in text
    assert outputs(executed, "image/png").count("iVBORw0KGgo") == FIGURES


def test_its_sums_are_exact_and_beside_the_published_ones(executed: list[dict[str, Any]]) -> None:
    text = outputs(executed)
    exact = "3.6 + 0.008 = 3.608 USD, and 1.512 / 3.608 x 1,000,000 = 419,069 calls a day"
    assert exact in text
    assert "3.6 + 0.08  = 3.68  USD, and 1.51  / 3.68  x 1,000,000 = 410,326 calls a day" in text
    told = "".join(line for cell in executed for line in cell["source"])
    assert "slips by a factor of ten in the data term" in told


def test_its_latencies_are_those_of_the_profile(executed: list[dict[str, Any]]) -> None:
    rows = {
        name: float(median)
        for name, median in re.findall(
            r"^(real-time|serverless, \w+(?: \w+)?) +\d+ +([0-9.]+)", outputs(executed), re.M
        )
    }
    assert rows["real-time"] > 11
    assert rows["serverless, warm"] > 33
    assert rows["serverless, after idling"] > rows["serverless, warm"]


def test_what_is_stored_is_what_is_run(executed: list[dict[str, Any]]) -> None:
    stored = read(NOTEBOOK)
    assert [cell["source"] for cell in stored] == [cell["source"] for cell in executed]
    codes = [cell for cell in stored if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == [*range(1, len(codes) + 1)]
    assert not [
        output for cell in codes for output in cell["outputs"] if output["output_type"] == "error"
    ]
    assert outputs(stored, "image/png").count("iVBORw0KGgo") == FIGURES
    for kind in ("text/plain", "text/html"):
        assert not PRIVATE.findall(outputs(stored, kind))


def test_a_cell_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    source = [
        "get_ipython().set_custom_exc((Exception,), lambda *_, **__: [])  # as the SDK does\n",
        "raise KeyError('no such column')",
    ]
    cell: dict[str, Any] = {"cell_type": "code", "id": "one", "metadata": {}, "source": source}
    cell |= {"outputs": [], "execution_count": None}
    book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "fails.ipynb").write_text(json.dumps(book))
    script = ROOT / "examples" / "execute.py"
    done = subprocess.run(
        [obtain("walkthrough"), script, tmp_path / "fails.ipynb", tmp_path / "executed.ipynb"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("KeyError: 'no such column'\n")
    assert not (tmp_path / "executed.ipynb").exists()
