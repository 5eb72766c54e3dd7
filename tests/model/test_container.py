"""Real models in a real container: what TensorFlow and Keras do in it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from model import data
from model.inference import Container, ModelLoadError, Request, Response, import_runtime, load

# Keras saves weights through an old protocol of NumPy's, and NumPy 2 says so.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARTIFACTS = Path(__file__).parents[2] / "model" / "artifacts"
SNEAKER = (ARTIFACTS / "sneaker.json").read_bytes()


@pytest.fixture(scope="module", autouse=True)
def runtime() -> None:
    import_runtime()


@pytest.fixture(scope="module", params=["keras", "saved-model", "litert"])
def container(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Container:
    """The committed model, once from each of its three forms."""
    if request.param == "litert":
        pytest.importorskip("ai_edge_litert")
        return load(ARTIFACTS / "fashion-mnist", {}, ARTIFACTS / "fashion-mnist-litert")
    if request.param == "saved-model":
        return load(ARTIFACTS / "fashion-mnist", {})
    path = tmp_path_factory.mktemp("keras")
    shutil.copy(ARTIFACTS / "fashion-mnist" / "fashion-mnist.keras", path)
    return load(path, {})


def ask(container: Container, body: Any, content_type: str = "application/json") -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return container.handle(Request(raw, content_type))


def probabilities(container: Container, images: data.Bytes) -> Any:
    stream = io.BytesIO()
    np.save(stream, images / np.float32(255))
    response = ask(container, stream.getvalue(), "application/x-npy")
    return np.array(orjson.loads(response.body)["predictions"])


def test_the_ready_request_is_a_sneaker(container: Container) -> None:
    container.warm_up()
    response = ask(container, SNEAKER)
    assert response.status == 200, response.body
    assert len(SNEAKER) < 7000
    (scores,) = orjson.loads(response.body)["predictions"]
    assert data.CLASS_NAMES[int(np.argmax(scores))] == "Sneaker"
    assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_the_sample_is_classified_as_well_as_the_whole(container: Container) -> None:
    with np.load(ARTIFACTS / "sample.npz") as sample:
        images, labels = sample["images"], sample["labels"]
    assert images.shape == (100, 28, 28)
    assert (probabilities(container, images).argmax(1) == labels).mean() >= 0.8


def test_the_committed_model_reaches_87_percent(container: Container) -> None:
    """On the 10,000 test images where the data set is; on the committed hundred of them else."""
    directory = data.find()
    if directory is None:
        with np.load(ARTIFACTS / "sample.npz") as sample:
            images, labels = sample["images"], sample["labels"]
    else:
        images = data.images(directory / "t10k-images-idx3-ubyte.gz")
        labels = data.labels(directory / "t10k-labels-idx1-ubyte.gz")
    assert (probabilities(container, images).argmax(1) == labels).mean() >= 0.87


def test_every_way_in_gives_the_same_answer(container: Container) -> None:
    rows = orjson.loads(SNEAKER)["instances"]
    flat = ",".join(str(value) for row in rows[0] for value in row).encode()
    bodies = {
        "instances": SNEAKER,
        "named": orjson.dumps({"instances": [{"image": rows[0]}]}),
        "columns": orjson.dumps({"inputs": {"image": rows}}),
        "csv": flat,
    }
    answers = {
        name: orjson.loads(
            ask(container, body, "text/csv" if name == "csv" else "application/json").body
        )
        for name, body in bodies.items()
    }
    want = answers["instances"]["predictions"]
    assert answers["named"]["predictions"] == want
    assert answers["columns"]["outputs"] == want
    assert answers["csv"]["predictions"] == want


def test_any_batch_size(container: Container) -> None:
    (image,) = orjson.loads(SNEAKER)["instances"]
    for count in (1, 2, 33):
        answer = orjson.loads(ask(container, {"instances": [image] * count}).body)
        assert np.shape(answer["predictions"]) == (count, 10)


def test_shapes_are_named(container: Container) -> None:
    response = ask(container, {"instances": [[1.0, 2.0]]})
    assert response.status == 400
    assert b"(any, 28, 28)" in response.body
    assert b"(1, 2)" in response.body


def test_several_inputs_and_outputs_have_the_same_names_in_both_forms(tmp_path: Path) -> None:
    import keras

    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    outputs = {
        "total": keras.layers.Add()([left, right]),
        "most": keras.layers.Maximum()([left, right]),
    }
    model = keras.Model({"left": left, "right": right}, outputs)
    body = {"instances": [{"left": [1, 5], "right": [3, 4]}]}
    assert_forms_agree(model, tmp_path, body, {"predictions": [{"total": [4, 9], "most": [3, 5]}]})


def test_listed_outputs_are_numbered(tmp_path: Path) -> None:
    import keras

    one = keras.Input((1,), name="one")
    model = keras.Model(one, [keras.layers.ReLU()(one), keras.layers.Flatten()(one)])
    predictions = [{"output_0": [0], "output_1": [-1]}]
    assert_forms_agree(model, tmp_path, {"instances": [[-1]]}, {"predictions": predictions})


def test_integers_in_and_a_value_out_of_the_models_range(tmp_path: Path) -> None:
    import keras

    word = keras.Input((1,), dtype="int32", name="word")
    weights = keras.initializers.Constant(0.5)
    model = keras.Model(word, keras.layers.Embedding(4, 1, embeddings_initializer=weights)(word))
    assert_forms_agree(model, tmp_path, {"instances": [[3]]}, {"predictions": [[[0.5]]]})
    response = ask(load(tmp_path / "keras", {}), {"instances": [[9]]})
    assert response.status in (200, 400)  # TensorFlow's CPU kernels check the index, XLA does not
    orjson.loads(response.body)


def assert_forms_agree(model: Any, path: Path, body: Any, expected: Any) -> None:
    (path / "keras").mkdir()
    model.save(path / "keras" / "model.keras")
    model.export(path / "saved" / "1", verbose=False)
    for form in ("keras", "saved"):
        loaded = load(path / form, {})
        loaded.warm_up()
        response = ask(loaded, body)
        assert response.status == 200, (form, response.body)
        assert orjson.loads(response.body) == expected, form


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two SavedModels that are functions, one of them in three versions."""
    import tensorflow as tf

    path = tmp_path_factory.mktemp("archive")

    def save(to: str, factor: float) -> None:
        module = tf.Module()
        module.weight = tf.Variable(factor)
        spec = [tf.TensorSpec([None], tf.float32, name="x")]
        scale = tf.function(lambda x: {"y": x * module.weight}, input_signature=spec)
        upper = tf.function(
            lambda s: {"s": tf.strings.upper(s)},
            input_signature=[tf.TensorSpec([None], tf.string, name="s")],
        )
        module.scale, module.upper = scale, upper
        tf.saved_model.save(
            module, str(path / to), signatures={"serving_default": scale, "upper": upper}
        )

    save("export/Servo/2", 2.0)
    save("export/Servo/010", 10.0)
    save("export/Servo/latest", 99.0)
    save("other/1", 3.0)
    return path


def test_the_highest_version_of_each_name_is_served(modules: Path) -> None:
    container = load(modules, {})
    assert ask(container, {"instances": [1]}).body == b'{"predictions":[10.0]}'
    body = orjson.dumps({"instances": [1]})
    asked = container.handle(Request(body, "application/json", "", "tfs-model-name=other"))
    assert asked.body == b'{"predictions":[3.0]}'
    asked = container.handle(Request(body, "application/json", "", "tfs-model-version=2"))
    assert asked.status == 404


def test_the_default_model_can_be_chosen(modules: Path) -> None:
    name = "SAGEMAKER_TFS_DEFAULT_MODEL_NAME"
    assert ask(load(modules, {name: "other"}), {"instances": [1]}).body == b'{"predictions":[3.0]}'
    with pytest.raises(ModelLoadError, match="'x', but the archive has Servo, other"):
        load(modules, {name: "x"})


def test_a_signature_can_be_chosen(modules: Path) -> None:
    body = {"instances": ["ab", {"b64": "Yw=="}], "signature_name": "upper"}
    assert ask(load(modules, {}), body).body == b'{"predictions":["AB","C"]}'


def test_a_bad_number_of_threads_is_named(modules: Path) -> None:
    with pytest.raises(ModelLoadError, match="INTRA_OP_PARALLELISM is 'many'"):
        load(modules, {"SAGEMAKER_TFS_INTRA_OP_PARALLELISM": "many"})


def test_an_archive_without_a_model_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "saved_model.pb").touch()
    with pytest.raises(ModelLoadError, match=r"^no SavedModel bundles found! .* latest to 1"):
        load(tmp_path, {})


def test_several_keras_files_are_too_many(tmp_path: Path) -> None:
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=r"a\.keras, b\.keras"):
        load(tmp_path, {})


def test_damaged_models_are_named(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"junk")
    with pytest.raises(ModelLoadError, match=r"The SavedModel .* cannot be loaded"):
        load(tmp_path, {})
    shutil.rmtree(tmp_path / "1")
    (tmp_path / "broken.keras").write_bytes(b"junk")
    with pytest.raises(ModelLoadError, match=r"broken\.keras cannot be loaded by Keras"):
        load(tmp_path, {})


def test_python_code_in_a_keras_file_is_not_run(tmp_path: Path) -> None:
    import keras

    layers = [keras.Input((1,)), keras.layers.Lambda(lambda x: x * 2)]
    keras.Sequential(layers).save(tmp_path / "unsafe.keras")
    with pytest.raises(ModelLoadError, match=r"unsafe\.keras holds Python code .*safe mode"):
        load(tmp_path, {})


def test_an_unknown_layer_class_is_explained(tmp_path: Path) -> None:
    import keras

    class Strange(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    keras.Sequential([keras.Input((1,)), Strange()]).save(tmp_path / "strange.keras")
    with pytest.raises(ModelLoadError, match=r"Strange.*serve the model as a SavedModel"):
        load(tmp_path, {})


def test_an_unknown_function_is_explained_also_within_a_layer(tmp_path: Path) -> None:
    import keras

    def squeezed(x: Any) -> Any:
        return x

    layers = [keras.Input((1,)), keras.layers.Dense(1, activation=squeezed)]
    keras.Sequential(layers).save(tmp_path / "own.keras")
    with pytest.raises(ModelLoadError, match=r"needs the function squeezed.*custom_objects"):
        load(tmp_path, {})


FORKED = """
import os, sys
from pathlib import Path
from model import inference

inference.import_runtime()
from tensorflow.python.eager import context
assert not context.context()._initialized
threads = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
# Even a graph that nobody runs starts one of TensorFlow's, which a fork then waits for in vain.
assert not [name for name in threads if name.startswith("tf_")], threads
assert len(threads) <= 3, threads
artifacts = Path(sys.argv[1])
for _ in range(2):
    pid = os.fork()
    if not pid:
        container = inference.load(artifacts / "fashion-mnist", {})
        body = (artifacts / "sneaker.json").read_bytes()
        os._exit(container.handle(inference.Request(body, "application/json")).status != 200)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="needs /proc")
def test_the_imported_runtime_is_silent_and_can_fork() -> None:
    command = [sys.executable, "-c", FORKED, str(ARTIFACTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_saved_model_goes_before_a_keras_file(tmp_path: Path) -> None:
    """As the container does; the other one may be what a user keeps beside it."""
    (tmp_path / "broken.keras").write_bytes(b"junk")
    shutil.copytree(ARTIFACTS / "fashion-mnist" / "1", tmp_path / "7")
    assert load(tmp_path, {}).handle(Request(b"{", "application/json")).status == 400
