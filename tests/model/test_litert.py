"""Conversion for LiteRT, and LiteRT's answers next to TensorFlow's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from model import convert, data, litert, loading
from model.content import digest
from model.inference import Container, ModelLoadError, Request, import_runtime, load
from model.signatures import Array

pytest.importorskip("ai_edge_litert")
# Keras saves weights through an old protocol of NumPy's, and NumPy 2 says so.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARTIFACTS = Path(__file__).parents[2] / "model" / "artifacts"
MODEL, SHIPPED = ARTIFACTS / "fashion-mnist", ARTIFACTS / "fashion-mnist-litert"
SNEAKER = (ARTIFACTS / "sneaker.json").read_bytes()


@pytest.fixture(scope="module", autouse=True)
def runtime() -> None:
    import_runtime()


def shipped() -> Any:
    return orjson.loads((SHIPPED / litert.DESCRIPTION).read_bytes())


def test_the_shipped_conversion_is_that_of_the_shipped_model() -> None:
    described = shipped()
    assert described["content"] == digest(MODEL)
    assert described["converted"]
    (entry,) = described["models"][0]["signatures"]
    (original,) = loading.signatures(MODEL / "1").values()
    difference = convert.compared("It", original, litert.loaded(SHIPPED, entry, 1))
    assert difference == pytest.approx(entry["difference"], abs=1e-5)
    assert difference < convert.LIMIT


def test_it_predicts_what_tensorflow_does() -> None:
    """On the 10,000 test images where the data set is; on the committed hundred of them else."""
    directory = data.find()
    if directory is None:
        with np.load(ARTIFACTS / "sample.npz") as sample:
            images = sample["images"]
    else:
        images = data.images(directory / "t10k-images-idx3-ubyte.gz")
    arrays = {"image": images / np.float32(255)}
    due = loading.from_saved_model(MODEL / "1")["serving_default"].call(arrays)["output_0"]
    given = light().call(arrays)["output_0"]
    assert np.abs(due - given).max() < 1e-5
    assert (due.argmax(1) == given.argmax(1)).all()


def light() -> Any:
    return litert.servables(SHIPPED, {})["model"].signatures["serving_default"]


def test_batches_of_any_size_in_any_order() -> None:
    images = np.random.default_rng(1).random((64, 28, 28), np.float32)
    call = light().call
    whole = call({"image": images})["output_0"]
    kept = whole.copy()
    for size in (1, 2, 7, 1, 0, 33, 2):
        part = call({"image": images[:size]})["output_0"]
        assert part.shape == (size, 10)
        np.testing.assert_allclose(part, kept[:size], atol=1e-6)
    assert (whole == kept).all()  # an answer is the caller's own


def test_shapes_and_values_are_refused_as_with_tensorflow() -> None:
    container = load(MODEL, {}, SHIPPED)
    other = load(MODEL, {})
    for body in (b'{"instances": [[1.0, 2.0]]}', b'{"instances": [["a"]]}', b"{", b'{"inputs": 1}'):
        given, due = (one.handle(Request(body, "application/json")) for one in (container, other))
        assert (given.status, given.body) == (due.status, due.body)
        assert given.status == 400


# -- other models ---------------------------------------------------------------------------------


def save(path: Path, **functions: tuple[Any, Mapping[str, Any]]) -> Path:
    """A SavedModel below `path` of functions with their inputs: type and shape by name."""
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(np.float32(3))
    signatures = {}
    for name, (function, inputs) in functions.items():
        specs = [tf.TensorSpec(shape, dtype, name=n) for n, (dtype, shape) in inputs.items()]
        traced = tf.function(function, input_signature=specs)
        setattr(module, name, traced)
        signatures[name] = traced
    tf.saved_model.save(module, str(path / "1"), signatures=signatures)
    return path


def both(model: Path, out: Path) -> tuple[Container, Container]:
    described = convert.convert(model, out)
    assert described["converted"], described["note"]
    return load(model, {}), load(model, {}, out)


def agree(containers: tuple[Container, Container], body: Any) -> Any:
    due, given = (one.handle(Request(orjson.dumps(body), "application/json")) for one in containers)
    assert given.status == due.status == 200, (due.body, given.body)
    assert given.body == due.body
    return orjson.loads(given.body)


def test_several_signatures_inputs_outputs_and_types(tmp_path: Path) -> None:
    import tensorflow as tf

    def mixed(zeta: Any, alpha: Any) -> Any:
        return {"sum": zeta + 1, "product": tf.cast(alpha, tf.float32) * zeta, "ints": alpha * 2}

    model = save(
        tmp_path / "model",
        serving_default=(mixed, {"zeta": (tf.float32, (None, 2)), "alpha": (tf.int64, (None, 2))}),
        echo=(lambda text: {"same": text}, {"text": (tf.string, (None,))}),
        flags=(lambda x: {"y": x > 0}, {"x": (tf.float32, (None,))}),
        total=(lambda x: {"y": tf.reduce_sum(x)}, {"x": (tf.float32, (None, 2))}),
        fixed=(lambda x: {"y": x * 2}, {"x": (tf.float32, (3,))}),
    )
    containers = both(model, tmp_path / "out")
    agree(containers, {"instances": [{"zeta": [1, 2], "alpha": [3, 4]}] * 3})
    said = agree(containers, {"instances": ["ä", {"b64": "/w=="}], "signature_name": "echo"})
    assert said == {"predictions": ["ä", {"b64": "/w=="}]}
    agree(containers, {"instances": [1, -1], "signature_name": "flags"})
    assert agree(containers, {"inputs": [[1, 2], [3, 4]], "signature_name": "total"}) == {
        "outputs": 10.0
    }
    agree(containers, {"instances": [1, 2, 3], "signature_name": "fixed"})


def test_a_keras_model_with_several_inputs(tmp_path: Path) -> None:
    import keras

    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    outputs = {"total": keras.layers.Add()([left, right]), "half": keras.layers.Dense(2)(left)}
    (tmp_path / "model").mkdir()
    keras.Model({"left": left, "right": right}, outputs).save(tmp_path / "model" / "m.keras")
    containers = both(tmp_path / "model", tmp_path / "out")
    arrays = {"left": np.ones((2, 3), np.float32), "right": np.ones((2, 3), np.float32)}
    due, given = (one._models["model"].signatures["serving_default"] for one in containers)
    want: Mapping[str, Array] = due.call(arrays)
    have = given.call(arrays)
    assert list(want) == list(have)
    for name in want:
        np.testing.assert_allclose(want[name], have[name], atol=1e-6)


def test_what_litert_refuses_is_a_400_and_leaves_it_fit_for_more(tmp_path: Path) -> None:
    import tensorflow as tf

    free = {"x": (tf.float32, (None, None)), "y": (tf.float32, (None, None))}
    model = save(tmp_path / "model", serving_default=(lambda x, y: {"z": x + y}, free))
    _, container = both(model, tmp_path / "out")
    fits, other = {"x": [1, 2], "y": [1, 2]}, {"x": [1, 2], "y": [1, 2, 3]}
    for instance, status in ((fits, 200), (other, 400), (fits, 200)):
        body = orjson.dumps({"instances": [instance]})
        assert container.handle(Request(body, "application/json")).status == status


def noisy(x: Any) -> Any:
    import tensorflow as tf

    return {"y": x + tf.random.normal([3])}


def mapped(x: Any) -> Any:
    import tensorflow as tf

    return {"y": tf.map_fn(lambda row: row * 2, x)}


def measured(s: Any) -> Any:
    import tensorflow as tf

    return {"n": tf.strings.length(s)}


@pytest.mark.parametrize(
    ("function", "inputs", "said"),
    [
        (measured, {"s": ("string", (None,))}, "does not convert: LiteRT has no StringLength."),
        (
            mapped,
            {"x": ("float32", (None, 3))},
            "does not convert: its operation TensorListReserve ",
        ),
        (
            noisy,
            {"x": ("float32", (None, 3))},
            r"largest difference is \d.*, and 0.0001 is allowed",
        ),
        (lambda x: {"y": x * 2}, {"x": ("float32", None)}, "any number of axes"),
    ],
    ids=["operation", "loop", "difference", "axes"],
)
def test_a_model_that_stays_with_tensorflow_says_why(
    function: Any,
    inputs: Any,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out = save(tmp_path / "model", serving_default=(function, inputs)), tmp_path / "out"
    assert convert.main([str(model), str(out)]) == 1
    described = orjson.loads((out / litert.DESCRIPTION).read_bytes())
    assert not described["converted"]
    assert re.search(said, described["note"])
    assert described["note"] in capsys.readouterr().out
    assert [file.name for file in out.iterdir()] == [litert.DESCRIPTION]


def test_a_damaged_model_is_refused_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "broken.keras").write_bytes(b"junk")
    described = convert.convert(tmp_path / "model", tmp_path / "out")
    assert "broken.keras cannot be loaded by Keras" in described["note"]


def test_a_conversion_replaces_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    (tmp_path / "empty").mkdir()
    convert.convert(tmp_path / "empty", out)
    assert [file.name for file in tmp_path.iterdir() if "out" in file.name] == ["out"]
    assert [file.name for file in out.iterdir()] == [litert.DESCRIPTION]


def test_the_handlers_of_the_user_stand_around_it(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path, dirs_exist_ok=True)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(
        "def input_handler(data, context): return data.read()\n"
        "def output_handler(answer, context): return str(answer.status_code), 'text/plain'\n"
    )
    assert digest(tmp_path) == digest(MODEL)  # so it has the same conversion
    container = load(tmp_path, {}, SHIPPED)
    assert container.handle(Request(SNEAKER, "application/json")).body == b"200"


def test_the_content_decides(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path, dirs_exist_ok=True)
    assert digest(tmp_path) == digest(MODEL)
    (tmp_path / "1" / "fingerprint.pb").rename(tmp_path / "1" / "other.pb")
    renamed = digest(tmp_path)
    (tmp_path / "1" / "other.pb").write_bytes(b"")
    assert len({digest(MODEL), renamed, digest(tmp_path)}) == 3


# -- without TensorFlow ---------------------------------------------------------------------------


def test_a_bad_number_of_threads_is_named() -> None:
    with pytest.raises(ModelLoadError, match="INTRA_OP_PARALLELISM is 'many'"):
        load(MODEL, {"SAGEMAKER_TFS_INTRA_OP_PARALLELISM": "many"}, SHIPPED)
    container = load(MODEL, {"SAGEMAKER_TFS_INTRA_OP_PARALLELISM": "2"}, SHIPPED)
    assert container.handle(Request(SNEAKER, "application/json")).status == 200


def test_a_damaged_conversion_is_named(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    (tmp_path / "0-0.tflite").write_bytes(b"junk")
    with pytest.raises(ModelLoadError, match=f"The conversion {tmp_path} cannot be loaded"):
        load(MODEL, {}, tmp_path)
    (tmp_path / litert.DESCRIPTION).unlink()
    with pytest.raises(ModelLoadError, match=r"cannot be loaded: .*conversion\.json"):
        load(MODEL, {}, tmp_path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ModelLoadError, match="install the package ai-edge-litert, or choose"):
        import_runtime("litert")


ALONE = """
import sys
from pathlib import Path
from model import inference

model, conversion = map(Path, sys.argv[1:3])
container = inference.load(model, {}, conversion)
container.warm_up()
body = (model.parent / "sneaker.json").read_bytes()
assert container.handle(inference.Request(body, "application/json")).status == 200
loaded = {name.split(".")[0] for name in sys.modules}
assert not {"tensorflow", "keras", "emulator"} & loaded
assert "tensorflow" not in Path("/proc/self/maps").read_text()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_it_serves_silently_and_without_tensorflow() -> None:
    command = [sys.executable, "-c", ALONE, str(MODEL), str(SHIPPED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
