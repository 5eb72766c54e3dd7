"""Several requests in one call of the model, and the compiled form that serves them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import batching, compiling
from model.inference import Container, Request, Response, import_runtime, load
from model.messages import Refused
from model.signatures import DEFAULT_SIGNATURE, Array, Call, Servable, Signature, Tensor

ARTIFACTS = Path(__file__).parents[2] / "model" / "artifacts"
FASHION = ARTIFACTS / "fashion-mnist"


@pytest.fixture(scope="module")
def container() -> Container:
    """The committed model as a real-time instance has it."""
    loaded = load(FASHION, {})
    loaded.warm_up(8, compile=True)
    return loaded


def images(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).random((count, 28, 28))


def asking(array: Array, key: str = "instances", accept: str = "") -> Request:
    return Request(orjson.dumps({key: array.tolist()}), "application/json", accept)


def rows(response: Response) -> Any:
    assert response.status == 200, response.body
    return np.array(next(iter(orjson.loads(response.body).values())))


def test_each_request_gets_its_own_rows(container: Container) -> None:
    assert container.together == 8
    requests = [asking(images(count, seed)) for seed, count in enumerate((1, 3, 1, 2, 7))]
    together = container.handle_all(requests)
    for request, response in zip(requests, together, strict=True):
        np.testing.assert_allclose(rows(response), rows(container.handle(request)), atol=1e-5)


def test_a_bad_request_spoils_nobody_elses(container: Container) -> None:
    good = asking(images(1, 0))
    column = asking(images(2, 1), key="inputs")
    bad = [
        asking(images(1, 0)[:, :5]),
        Request(b"{", "application/json"),
        Request(b"", "text/html"),
        asking(images(1, 0), accept="image/png"),
    ]
    together = container.handle_all([good, *bad, column, good])
    assert [one.status for one in together] == [200, 400, 400, 415, 406, 200, 200]
    for answer, request in zip(together[1:5], bad, strict=True):
        assert answer == container.handle(request)
    assert together[0].body == together[-1].body
    assert b'"outputs"' in together[5].body


def test_each_answer_has_the_type_that_was_asked_for(container: Container) -> None:
    json, csv = container.handle_all(
        [asking(images(2, 5)), asking(images(2, 5), accept="text/csv")]
    )
    table = [[float(cell) for cell in line.split(",")] for line in csv.body.decode().splitlines()]
    np.testing.assert_allclose(table, rows(json), rtol=1e-4)


def test_the_compiled_model_predicts_what_the_model_does(container: Container) -> None:
    plain = load(FASHION, {})
    sample = np.load(ARTIFACTS / "sample.npz")["images"] / 255
    for count in (1, 2, 3, 8, 9, 50):
        request = asking(sample[:count])
        np.testing.assert_allclose(
            rows(container.handle(request)), rows(plain.handle(request)), rtol=1e-4, atol=1e-6
        )


def exported(folder: Path, function: Callable[[Any], Any], shape: tuple[int | None, ...]) -> Path:
    """A SavedModel of one function of a float32 tensor."""
    import tensorflow as tf

    module = tf.Module()
    specification = tf.TensorSpec(shape, tf.float32, name="x")
    served = tf.function(function, input_signature=[specification], autograph=False)
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": served})
    return folder


def test_a_model_that_looks_across_its_batch_gets_one_request_at_a_time(tmp_path: Path) -> None:
    import_runtime()
    import tensorflow as tf

    model = exported(tmp_path, lambda x: {"y": x - tf.reduce_mean(x, axis=0)}, (None, 3))
    loaded = load(model, {})
    loaded.warm_up(8, compile=True)
    assert loaded.together == 1
    two = loaded.handle_all([asking(np.ones((1, 3))), asking(np.zeros((1, 3)))])
    assert [rows(one).tolist() for one in two] == [[[0, 0, 0]], [[0, 0, 0]]]


def test_requests_of_unlike_lengths_are_not_stacked(tmp_path: Path) -> None:
    import_runtime()
    import tensorflow as tf

    model = exported(tmp_path, lambda x: {"y": tf.reduce_sum(x, axis=1)}, (None, None))
    loaded = load(model, {})
    loaded.warm_up(8, compile=True)
    assert loaded.together == 8
    requests = [asking(np.ones((rows, width))) for rows, width in ((1, 2), (2, 5), (3, 2))]
    assert [rows(one).tolist() for one in loaded.handle_all(requests)] == [[2], [5, 5], [2, 2, 2]]


def test_a_call_that_fails_is_made_again_for_each(tmp_path: Path) -> None:
    import_runtime()
    import tensorflow as tf

    def checked(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(x, 100.0, message="too large")]):
            return {"y": x + 1}

    loaded = load(exported(tmp_path, checked, (None, 1)), {})
    loaded.warm_up(8)
    answers = loaded.handle_all([asking(np.array([[v]])) for v in (1.0, 200.0, 3.0)])
    assert [one.status for one in answers] == [200, 400, 200]
    assert b"too large" in answers[1].body
    assert rows(answers[2]).tolist() == [[4]]


def test_a_script_is_given_one_request_at_a_time(tmp_path: Path) -> None:
    shutil.copytree(FASHION / "1", tmp_path / "1")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(
        "def handler(data, context):\n    return data.read(), 'text/plain'\n"
    )
    loaded = load(tmp_path, {})
    try:
        loaded.warm_up(8, compile=True)
        assert loaded.together == 1
    finally:
        loaded.close()


# -- without a runtime ----------------------------------------------------------------------------

X = Tensor("x", np.dtype(np.float32), (None, 2))


def doubled(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": arrays["x"] * 2}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_what_is_stacked_can_be_split_again(sizes: list[int]) -> None:
    signature = Signature({"x": X}, doubled)
    requests = [batching.samples(signature, size, seed) for seed, size in enumerate(sizes)]
    outputs = batching.split(doubled(batching.stacked(requests)), sizes)
    assert outputs is not None
    for request, own in zip(requests, outputs, strict=True):
        np.testing.assert_array_equal(own["y"], request["x"] * 2)


@given(st.integers(0, 40))
def test_a_batch_is_served_by_the_smallest_program_that_holds_it(count: int) -> None:
    asked: list[int] = []

    def of(size: int) -> Call:
        def call(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
            asked.append(size)
            assert not size or len(arrays["x"]) == size
            return doubled(arrays)

        return call

    serve = batching.padded({size: of(size) for size in (1, 4, 16)}, of(0))
    x = np.random.default_rng(0).random((count, 2))
    np.testing.assert_array_equal(serve({"x": x})["y"], x * 2)
    assert asked == [next((size for size in (1, 4, 16) if 0 < count <= size), 0)]


def wrong(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": arrays["x"] * 2 + 0.01}


def slow(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    for _ in range(10):
        np.sort(np.arange(10_000.0))
    return doubled(arrays)


def broken(size: int) -> Call:
    raise RuntimeError(f"no program for {size}")


@pytest.mark.parametrize("compiler", [lambda _: wrong, lambda _: slow, broken])
def test_a_program_that_is_wrong_slow_or_missing_is_not_used(
    compiler: Callable[[int], Call],
) -> None:
    signature = Signature({"x": X}, doubled, compiler)
    assert compiling.compiled(signature, 8) is signature


def test_a_program_that_is_right_and_faster_is_used() -> None:
    made: list[int] = []

    def compiler(size: int) -> Call:
        made.append(size)
        return doubled

    used = compiling.compiled(Signature({"x": X}, slow, compiler), 8)
    assert made == [1, 2, 4, 8]
    assert used.call({"x": np.ones((3, 2))})["y"].tolist() == [[2, 2]] * 3


def refusing(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    raise Refused(400, "not these")


def total(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": np.array(arrays["x"].sum())}


@pytest.mark.parametrize(
    ("shape", "call", "most"),
    [
        ((None, 2), doubled, 8),
        ((None, 2), refusing, 1),
        ((None, 2), total, 1),
        ((4, 2), doubled, 1),
        (None, doubled, 1),
    ],
)
def test_only_rows_that_do_not_touch_share_a_call(
    shape: tuple[int | None, ...] | None, call: Call, most: int
) -> None:
    signature = Signature({"x": Tensor("x", X.dtype, shape)}, call)
    assert batching.together(signature, 8) == most
    assert batching.together(signature, 1) == 1


def summed(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"sum": arrays["x"] + arrays["y"]}


def adding(call: Call = summed) -> Container:
    """A model of two inputs that broadcasts, so that inputs of unequal rows are valid."""
    tensors = {name: Tensor(name, np.dtype(np.float32), (None, 1)) for name in ("x", "y")}
    signature = Signature(tensors, call)
    made = Container({"model": Servable("model", 1, {DEFAULT_SIGNATURE: signature})}, "model")
    made.warm_up(8)
    assert made.together == 8
    return made


def unequal(x: list[float], y: list[float]) -> Request:
    stream = io.BytesIO()
    arrays = {"x": np.array(x, np.float32), "y": np.array(y, np.float32)}
    np.savez(stream, x=arrays["x"].reshape(-1, 1), y=arrays["y"].reshape(-1, 1))
    return Request(stream.getvalue(), "application/x-npz")


@pytest.mark.parametrize(
    "others",
    [
        [unequal([0, 0], [0]), unequal([0], [0, 5])],
        [unequal([0], []), unequal([0], [])],
        [unequal([], [0]), unequal([], [0])],
    ],
)
def test_a_request_of_unequal_inputs_neither_gets_nor_shifts_anothers_rows(
    others: list[Request],
) -> None:
    made, mine = adding(), unequal([1000], [77])
    asked = [others[0], mine, others[1], mine]
    assert made.handle_all(asked) == [made.handle(one) for one in asked]
    assert orjson.loads(made.handle_all(asked)[1].body) == {"predictions": [[1077.0]]}


@pytest.mark.parametrize("y", [[[10]], [[10], [20]], [[10], [20], [30]]])
def test_unequal_inputs_are_not_padded_into_other_numbers(y: list[list[float]]) -> None:
    def program(size: int) -> Call:
        def call(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
            assert {len(array) for array in arrays.values()} == {size}
            return summed(arrays)

        return call

    compiled = adding(batching.padded({size: program(size) for size in (1, 2, 4)}, summed))
    body = orjson.dumps({"inputs": {"x": [[1], [2], [3]], "y": y}})
    request = Request(body, "application/json")
    assert compiled.handle(request) == adding().handle(request)
