"""Endpoints on LiteRT: chosen by server or model, converted once, or left to TensorFlow."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.sandbox.attempts import OFFERED
from tests.servers import (
    KERAS,
    Server,
    alive,
    archive,
    predictions,
    realtime,
    sample,
    serverless,
    serving,
    until,
)

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

NPY = {"content-type": "application/x-npy"}
LITERT = {"LUKEWARM_RUNTIME": "litert"}


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on LiteRT."""
    with serving(tmp_path_factory.mktemp("light"), EMULATOR_RUNTIME="litert") as running:
        yield running


def variant(endpoint: dict[str, list[dict[str, str]]]) -> tuple[str, str]:
    (one,) = endpoint["variants"]
    return one["runtime"], one["runtime_note"]


def descendants(pid: int) -> list[int]:
    """The processes below one, as they are now."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                after = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(after[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def test_the_shipped_model_runs_on_litert_and_nothing_of_tensorflow_is_loaded(
    light: Server,
) -> None:
    images, labels = sample()
    for persona in ("realtime", "serverless"):
        name = f"fashion-mnist-{persona}"
        runtime, note = variant(light.endpoint(name))
        assert runtime == "litert"
        assert "differ by" in note
        answer = predictions(light.invoke(name, npy(images), NPY))
        assert (answer.argmax(1) == labels).mean() >= 0.8
    assert light.evict("fashion-mnist-serverless") == 1
    cold = light.invoke("fashion-mnist-serverless")
    assert cold.headers["x-emulator-cold-start"] == "true"
    for pid in [light.process.pid, *descendants(light.process.pid)]:
        assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
    assert not (light.state / "conversions").exists()


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:

    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_a_model_chooses_for_itself(light: Server, server: Server, name: str) -> None:
    """Against the server's choice, in either direction."""
    both = [
        (light, serverless(variables={"LUKEWARM_RUNTIME": "tensorflow"})),
        (server, serverless(KERAS.parent, variables=LITERT)),
    ]
    answers = []
    for running, wanted in both:
        running.deploy(name, wanted)
        answers.append(predictions(running.invoke(name)))
    light.delete(name)
    assert variant(server.endpoint(name))[0] == "litert"
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    (environment,) = server.environments(name)
    assert environment["memory_bytes"] < 120 << 20


def test_a_wrong_choice_is_named(server: Server, name: str) -> None:
    refused = server.create(name, serverless(variables={"LUKEWARM_RUNTIME": "onnx"}))
    assert refused.status_code == 400
    said = "The variable LUKEWARM_RUNTIME is 'onnx'; it is one of tensorflow, litert."
    assert refused.json()["detail"] == said


def test_a_model_is_converted_once(light: Server, tmp_path: Path) -> None:
    """Its handlers stand around it, and are no part of what is converted."""
    script = (
        "def input_handler(data, context): return data.read()\n"
        "def output_handler(answer, context): return answer.content, 'text/x-mine'\n"
    )
    runtime, note = variant(light.deploy("first", realtime(archive(tmp_path, script))))
    assert runtime == "litert"
    assert "Converted by TensorFlow" in note
    (made,) = (light.state / "conversions").iterdir()
    before = {file.name: file.stat().st_ino for file in made.iterdir()}
    assert light.invoke("first").headers["content-type"] == "text/x-mine"
    light.delete("first")

    assert variant(light.deploy("second", serverless())) == (runtime, note)
    (again,) = (light.state / "conversions").iterdir()
    assert {file.name: file.stat().st_ino for file in again.iterdir()} == before
    light.delete("second")


def test_what_does_not_convert_stays_on_tensorflow_and_says_so(
    light: Server, tmp_path: Path
) -> None:
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec([None], tf.string, name="s")]
    module.served = tf.function(lambda s: {"n": tf.strings.length(s)}, input_signature=spec)
    signatures = {"serving_default": module.served}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)

    runtime, note = variant(light.deploy("text", serverless(tmp_path)))
    assert runtime == "tensorflow"
    assert "LiteRT has no StringLength" in note
    assert f"text/AllTraffic stays on TensorFlow: {note}" in light.log.read_text()
    answer = light.invoke("text", b'{"instances": ["four"]}')
    assert answer.json() == {"predictions": [4]}
    light.delete("text")


def test_a_model_that_writes_while_it_is_read_is_kept_from_it_by_the_converter_too(
    light: Server, tmp_path: Path
) -> None:
    outside = light.state / "written-by-a-model"
    hostile = subprocess.run(
        [sys.executable, "-c", WRITES, str(outside), str(tmp_path / "m" / "1")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert hostile.returncode == 0, hostile.stderr
    outside.unlink(missing_ok=True)  # made while the model was
    light.create("writes", serverless(tmp_path / "m"))
    endpoint = light.settled("writes")
    assert outside.exists() == (OFFERED.files == "open")
    assert endpoint["variants"][0]["runtime_note"] != ""
    if OFFERED.files != "open":
        assert endpoint["status"] == "Failed"
        assert "Read-only file system" in endpoint["failure_reason"] or (
            "Permission denied" in endpoint["failure_reason"]
        )
    light.delete("writes")


WRITES = """
import sys
import tensorflow as tf

class Table(tf.saved_model.experimental.TrackableResource):
    def _create_resource(self):
        return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    def _initialize(self):
        tf.io.write_file(sys.argv[1], "written")

module = tf.Module()
module.table = Table()
_ = module.table.resource_handle
spec = [tf.TensorSpec([None, 1], tf.float32, name="x")]
module.served = tf.function(lambda x: {"y": x * 2}, input_signature=spec)
tf.saved_model.save(module, sys.argv[2], signatures={"serving_default": module.served})
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_converter_outlives_its_server_and_the_next_one_goes_on(
    tmp_path: Path, how: signal.Signals
) -> None:
    with serving(tmp_path, EMULATOR_RUNTIME="litert") as running:
        running.create("mine", serverless())
        pid = until(lambda: converter(running.process.pid), "a converter runs")
        assert running.endpoint("mine")["variants"][0]["runtime"] is None
        running.stop(how)
        until(lambda: not alive(pid), "the converter ends")
        assert not list((running.state / "conversions").glob("*/conversion.json"))  # nor finished
        if how is signal.SIGTERM:
            return
        running.start()
        assert variant(running.settled("mine"))[0] == "litert"
        (made,) = (running.state / "conversions").iterdir()
        assert made.suffix == ""


def converter(server: int) -> int | None:
    for pid in descendants(server):
        try:
            if b"emulator.sandbox.converter" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None
