"""SavedModels with several signatures, and without the one that requests mean by default."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Server, realtime, serverless

SAVES = """
import sys
import tensorflow as tf

module = tf.Module()
numbers = [tf.TensorSpec([None], tf.float32, name="x")]
texts = [tf.TensorSpec([None], tf.string, name="s")]
module.double = tf.function(lambda x: {"y": x * 2}, input_signature=numbers)
module.upper = tf.function(lambda s: {"s": tf.strings.upper(s)}, input_signature=texts)
all_of_them = {"serving_default": module.double, "upper": module.upper}
tf.saved_model.save(module, sys.argv[1] + "/all/1", signatures=all_of_them)
others = {"double": module.double, "upper": module.upper}
tf.saved_model.save(module, sys.argv[1] + "/others/1", signatures=others)
tf.saved_model.save(tf.Module(), sys.argv[1] + "/none/1")
"""
Make = Callable[..., dict[str, Any]]
VARIANTS = pytest.mark.parametrize("variant", [serverless, realtime])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signatures")
    command = [sys.executable, "-c", SAVES, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return folder


def ask(server: Server, name: str, instances: list[object], signature: str = "") -> httpx.Response:
    asked = {"signature_name": signature} if signature else {}
    return server.invoke(name, json.dumps({"instances": instances, **asked}).encode())


@VARIANTS
def test_a_request_chooses_its_signature(
    server: Server, name: str, models: Path, variant: Make
) -> None:
    server.deploy(name, variant(models / "all"))
    assert ask(server, name, [1, 2]).json() == {"predictions": [2.0, 4.0]}
    assert ask(server, name, [1], "serving_default").json() == {"predictions": [2.0]}
    assert ask(server, name, ["a", "b"], "upper").json() == {"predictions": ["A", "B"]}
    refused = ask(server, name, [1], "lower")
    assert refused.status_code == 424
    said = refused.json()["OriginalMessage"]
    assert "'lower' not found in signature def; the model has serving_default, upper." in said


@VARIANTS
def test_without_a_default_every_request_names_its_signature(
    server: Server, name: str, models: Path, variant: Make
) -> None:
    """TensorFlow Serving loads such a model, too."""
    server.deploy(name, variant(models / "others"))
    refused = ask(server, name, [1])
    assert refused.status_code == 424
    said = refused.json()["OriginalMessage"]
    assert "'serving_default' not found in signature def; the model has double, upper." in said
    assert ask(server, name, [1, 2], "double").json() == {"predictions": [2.0, 4.0]}
    assert ask(server, name, ["a"], "upper").json() == {"predictions": ["A"]}


def test_a_model_without_any_is_refused(server: Server, name: str, models: Path) -> None:
    assert server.create(name, serverless(models / "none")).status_code == 201
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "has no signature: export it with one that is called" in endpoint["failure_reason"]
