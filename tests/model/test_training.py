"""The command `python -m model.train`, on a few real or sampled images."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
import pytest

from model import data, train
from model.inference import Request, load

# Keras saves weights through an old protocol of NumPy's, and NumPy 2 says so.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARTIFACTS = Path(__file__).parents[2] / "model" / "artifacts"


def idx(array: data.Bytes) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The data set where it is; else one made of the committed hundred images."""
    if data.find() is not None:
        return {}
    with np.load(ARTIFACTS / "sample.npz") as sample:
        parts = {"images-idx3": idx(sample["images"]), "labels-idx1": idx(sample["labels"])}
    path = tmp_path_factory.mktemp("data")
    for name in data.CHECKSUMS:
        content = next(body for part, body in parts.items() if part in name)
        (path / name).write_bytes(gzip.compress(content))
        data.CHECKSUMS[name] = hashlib.sha256(content).hexdigest()
    return {"FASHION_MNIST_DIR": str(path)}


def test_it_trains_and_saves_what_sagemaker_serves(
    tmp_path: Path, environ: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model"
    conversion = tmp_path / "litert"
    arguments = ["--epochs", "1", "--images", "3000", "--seed", "3", "--litert", str(conversion)]
    accuracy = train.main(arguments, {**environ, "SM_MODEL_DIR": str(target)})

    assert accuracy > (0.6 if not environ else 0.05)
    said = capsys.readouterr().out
    assert f"test accuracy: {accuracy:.4f}" in said
    assert "LiteRT's answers differ by" in said
    names = json.loads((target / "class_names.json").read_text(encoding="utf-8"))
    assert names == list(data.CLASS_NAMES)
    body = (ARTIFACTS / "sneaker.json").read_bytes()
    both = []
    light = load(target, {}, conversion).handle(Request(body, "application/json"))
    predictions = orjson.loads(light.body)["predictions"]
    for unwanted in (None, "1"):  # first the SavedModel, then the .keras file alone
        if unwanted:
            shutil.rmtree(target / unwanted)
        response = load(target, {}).handle(Request(body, "application/json"))
        both.append(orjson.loads(response.body)["predictions"])
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)
    np.testing.assert_allclose(both[0], predictions, atol=1e-6)


def test_the_seed_decides(tmp_path: Path, environ: Mapping[str, str]) -> None:
    arguments = ["--epochs", "1", "--images", "500", "--model-dir", str(tmp_path / "m")]
    first = train.main([*arguments, "--seed", "1"], environ)
    again = train.main([*arguments, "--seed", "1"], environ)
    other = train.main([*arguments, "--seed", "2"], environ)
    assert first == pytest.approx(again, abs=0.005)
    assert abs(first - other) > 0


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        ([], {}, "--model-dir DIRECTORY, or set SM_MODEL_DIR"),
        (["--epochs", "0", "--model-dir", "m"], {}, "'0' is not a whole number of 1 or more"),
        (["--batch-size", "x", "--model-dir", "m"], {}, "'x' is not a whole number"),
        (["--seed", "-1", "--model-dir", "m"], {}, "--seed"),
        (["--seed", "4294967296", "--model-dir", "m"], {}, "from 0 to 4294967295"),
        (["--epoch-count", "3", "--model-dir", "m"], {}, "--epoch-count"),
        (["--model-dir", "m"], {"FASHION_MNIST_DIR": "/none"}, "FASHION_MNIST_DIR is '/none'"),
    ],
)
def test_bad_arguments_get_a_sentence(
    arguments: list[str],
    environ: Mapping[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(arguments, environ)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
