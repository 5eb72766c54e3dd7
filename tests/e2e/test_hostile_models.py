"""Models and archives of somebody who means harm: refused with a sentence, and nothing is left."""

from __future__ import annotations

import base64
import gzip
import json
import marshal
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.attempts import OFFERED
from tests.servers import ARTIFACTS, KERAS, Server, predictions, serverless

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_is_left(server: Server, name: str) -> Iterator[None]:
    models = server.state / "models"
    before = sorted(models.iterdir())
    yield
    if server.client.get(f"/_emulator/endpoints/{name}").status_code == 200:
        server.delete(name)
    assert sorted(models.iterdir()) == before
    assert server.invoke("fashion-mnist-serverless").status_code == 200


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info.tobuf(tarfile.PAX_FORMAT)


def bomb(path: Path) -> None:
    """A gigabyte of zeros: one mebibyte of them packed, a thousand times over."""
    zeros = gzip.compress(bytes(MIB)) * 1024
    path.write_bytes(gzip.compress(header("1/saved_model.pb", 1024 * MIB)) + zeros)


def members(path: Path) -> None:
    each = b"".join(header(f"m{number}") for number in range(1000))
    path.write_bytes(gzip.compress(each, 1) * 100)


def escape(path: Path) -> None:
    path.write_bytes(gzip.compress(header("../../escaped", 512) + bytes(512)))


def link(path: Path) -> None:
    path.write_bytes(gzip.compress(header("1", kind=tarfile.SYMTYPE, target="/etc")))


def pickled(path: Path) -> None:
    content = pickle.dumps({"weights": [1.0]})
    padding = bytes(-len(content) % 512)
    path.write_bytes(gzip.compress(header("model.pkl", len(content)) + content + padding))


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        (bomb, "unpack to more than 100 times as many"),
        (members, "has more than 20000 members"),
        (escape, "'../../escaped' points out of it"),
        (link, "'1' is a link or a device"),
        (pickled, "model.pkl, which is a pickle, which runs code when it is read: save it as"),
    ],
)
def test_a_hostile_archive_is_refused(
    server: Server, name: str, tmp_path: Path, pack: Callable[[Path], None], said: str
) -> None:
    pack(tmp_path / "model.tar.gz")
    answer = server.create(name, serverless(tmp_path / "model.tar.gz"))
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert str(tmp_path / "model.tar.gz") in answer.json()["detail"]
    assert server.client.get(f"/_emulator/endpoints/{name}").status_code == 404


def with_python(target: Path, work: str = "print('it has run')") -> Path:
    """The shipped model with a Lambda layer at its end, written without the help of Keras."""
    code = compile(f"lambda x: {work} or x", "x", "eval").co_consts[0]
    body = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None}
    function = {"class_name": "__lambda__", "config": body | {"closure": None}}
    layer = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "mine", "trainable": True, "function": function, "arguments": {}},
        "registered_name": None,
    }
    with zipfile.ZipFile(KERAS) as good, zipfile.ZipFile(target, "w") as bad:
        for member in good.namelist():
            content = good.read(member)
            if member == "config.json":
                config = json.loads(content)
                config["config"]["layers"].append(layer)
                content = json.dumps(config).encode()
            bad.writestr(member, content)
    return target


def test_a_lambda_layer_is_not_run(server: Server, name: str, tmp_path: Path) -> None:
    assert server.create(name, serverless(with_python(tmp_path / "m.keras"))).status_code == 201
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "m.keras holds Python code (a Lambda layer)" in endpoint["failure_reason"]
    assert "serve the model as a SavedModel" in endpoint["failure_reason"]
    assert "set LUKEWARM_KERAS_SAFE_MODE=off among the variables" in endpoint["failure_reason"]
    assert "it has run" not in server.log.read_text()


def test_a_lambda_layer_is_run_where_that_is_allowed(
    server: Server, name: str, tmp_path: Path
) -> None:
    variant = serverless(with_python(tmp_path / "m.keras"))
    server.deploy(name, {**variant, "variables": {"LUKEWARM_KERAS_SAFE_MODE": "off"}})
    assert predictions(server.invoke(name)).argmax() == 7
    assert "it has run" in server.log.read_text()


def test_such_a_layer_is_kept_in_as_any_model_is(server: Server, name: str, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    work = f"(__import__('os').system('touch {spoilt}') and None)"
    model = with_python(tmp_path / "m.keras", work)
    variant = {**serverless(model), "variables": {"LUKEWARM_KERAS_SAFE_MODE": "off"}}
    server.deploy(name, variant)
    assert predictions(server.invoke(name)).argmax() == 7
    (shown,) = server.environments(name)
    assert shown["isolation"]["files"] == OFFERED.files
    assert spoilt.exists() is (OFFERED.files == "open")


def test_safe_mode_is_on_or_off(server: Server, name: str) -> None:
    variant = {**serverless(), "variables": {"LUKEWARM_KERAS_SAFE_MODE": "perhaps"}}
    assert server.create(name, variant).status_code == 201
    endpoint = server.settled(name)
    assert "LUKEWARM_KERAS_SAFE_MODE is 'perhaps'; it is on or off" in endpoint["failure_reason"]


CUSTOM = """
import keras
class Doubling(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""
LOADS = f"""{CUSTOM}
def model_fn(model_dir):
    own = {{"Doubling": Doubling}}
    return keras.saving.load_model(f"{{model_dir}}/m.keras", custom_objects=own)
def predict_fn(data, model):
    return model(data).numpy()
"""


def test_a_layer_of_ones_own_is_explained_and_the_way_out_works(
    server: Server, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    path = str(folder / "m.keras")
    exported = str(tmp_path / "exported" / "1")
    save = f"{CUSTOM}\nmodel = keras.Sequential([keras.Input((2,)), Doubling()])\n"
    save += f"model.save({path!r})\nmodel.export({exported!r}, verbose=False)"
    subprocess.run([sys.executable, "-c", save], check=True, capture_output=True, timeout=60)
    assert server.create(name, serverless(folder)).status_code == 201
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert "needs the class Doubling, which Keras does not have" in endpoint["failure_reason"]
    assert "code/inference.py with model_fn and custom_objects" in endpoint["failure_reason"]
    server.delete(name)
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(LOADS)
    server.deploy(name, serverless(folder))
    assert server.invoke(name, b"[[1.0, 2.0]]").json() == [[2.0, 4.0]]
    server.delete(name)
    server.deploy(name, serverless(tmp_path / "exported"))
    assert predictions(server.invoke(name, b"[[1.0, 2.0]]")).tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("latest", "The SavedModel is in latest, but the name of its directory has to be a number"),
        ("export/Servo/latest", "in export/Servo/latest, but the name of its directory has to be"),
        ("", "The SavedModel lies at the top: put it into a directory that is called 1."),
    ],
    ids=["no number", "below a name", "top"],
)
def test_a_saved_model_without_a_version_is_told_how_to_have_one(
    server: Server, name: str, tmp_path: Path, place: str, said: str
) -> None:
    packed = tmp_path / "model.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for path in (ARTIFACTS / "fashion-mnist" / "1").iterdir():
            tar.add(path, f"{place}/{path.name}".lstrip("/"))
    assert server.create(name, serverless(packed)).status_code == 201
    endpoint = server.settled(name)
    assert endpoint["status"] == "Failed"
    assert said in endpoint["failure_reason"]
