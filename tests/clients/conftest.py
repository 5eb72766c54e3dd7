"""A server by the wall clock, as clients are by theirs, and what they bring along."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.people import Person, exports, person
from tests.servers import ARTIFACTS, Server, predictions, sample, serving

IMAGES = 10
PRINTING = """
def input_handler(data, context):
    print("called", flush=True)
    return data.read().decode()
def output_handler(response, context):
    return response.content, "application/json"
"""
TRAIN = """
import argparse, os
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--greeting")
parser.add_argument("--model_dir")
given = parser.parse_args()
assert os.listdir(os.environ["SM_CHANNEL_TRAINING"]) == ["images.json"]
print("said", given.greeting, flush=True)
import keras
import numpy as np
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
model.compile(keras.optimizers.SGD(0.0), "mse")
for _ in range(given.epochs):
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    print("loss:", history.history["loss"][0], flush=True)
model.export(os.path.join(os.environ["SM_MODEL_DIR"], "1"))
"""
INFERENCE = """
import json
def input_handler(data, context):
    return data.read().decode()
def output_handler(response, context):
    return json.dumps({"wrapped": json.loads(response.content)}), "application/json"
"""
Arriving = Callable[..., Person]


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server by the wall clock."""
    with serving(tmp_path_factory.mktemp("here"), EMULATOR_SETTLE_S="60") as running:
        yield running


@pytest.fixture(scope="session")
def given(here: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that lead clients to the server, as its command prints them."""
    return exports(here, tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="session")
def expected(here: Server) -> Any:
    """What the model says of the images, float (10, 10)."""
    images, labels = sample()
    body = json.dumps({"instances": images[:IMAGES].tolist()}).encode()
    found = predictions(here.invoke("fashion-mnist-realtime", body))
    assert (found.argmax(axis=1) == labels[:IMAGES]).mean() >= 0.8
    return found


@pytest.fixture(scope="session")
def luggage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images as a request, `images.json`, and the model, `model.tar.gz`; with
    a script that prints in `printing.tar.gz`; scripts that train and serve in `code`."""
    folder = tmp_path_factory.mktemp("luggage")
    images, _ = sample()
    (folder / "images.json").write_text(json.dumps({"instances": images[:IMAGES].tolist()}))
    (folder / "code").mkdir()
    (folder / "code" / "train.py").write_text(TRAIN)
    (folder / "code" / "inference.py").write_text(INFERENCE)
    _pack(folder / "model.tar.gz")
    _pack(folder / "printing.tar.gz", PRINTING)
    return folder


def _pack(path: Path, script: str = "") -> None:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(ARTIFACTS / "fashion-mnist" / "1", "1")
        if script:
            member = tarfile.TarInfo("code/inference.py")
            member.size = len(script)
            tar.addfile(member, io.BytesIO(script.encode()))


@pytest.fixture
def arrive(tmp_path: Path, here: Server, given: dict[str, str]) -> Arriving:
    """Makes somebody with a client of this name, and a home of their own."""

    def somebody(client: str, unset: Sequence[str] = ()) -> Person:
        left = {name: value for name, value in given.items() if name not in unset}
        return person(client, tmp_path / client, here, left)

    return somebody
