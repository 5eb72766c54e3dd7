"""The contract of the inference toolkit: a user's script, and what stands in where it is silent."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import defaults, script
from model.messages import JSON, ModelLoadError, Request, Response

CSV, NPY = "text/csv", "application/x-npy"
LOADS = """
class Sum:
    def predict(self, rows):
        return rows.sum(axis=1)

def model_fn(model_dir):
    return Sum()
"""
Make = Callable[..., script.ScriptContainer]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A container with the given script; import state is put back afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)

    def container(source: str, program: str = "inference.py", **given: Any) -> Any:
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / program).write_text(source)
        return script.load(tmp_path, given.pop("variables", {}), program, **given)

    yield container
    for name in set(sys.modules) - set(before):
        if getattr(sys.modules[name], "__file__", "") and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]
    sys.modules.update(before)


def ask(
    container: script.ScriptContainer, body: bytes | str, content_type: str = "", **more: str
) -> Response:
    content = body.encode() if isinstance(body, str) else body
    return container.handle(Request(content, content_type, **more))


def told(response: Response) -> str:
    said: str = json.loads(response.body)["error"]
    return said


def test_the_defaults_take_and_give_json_csv_and_npy(make: Make) -> None:
    container = make(LOADS)
    rows = np.array([[1, 2], [3, 4.5]])
    held = io.BytesIO()
    np.save(held, rows)
    for body, kind in ((json.dumps(rows.tolist()), JSON), ("1,2\n3,4.5\n", CSV)):
        answer = ask(container, body, kind)
        assert (answer.status, answer.content_type, answer.body) == (200, JSON, b"[3.0, 7.5]")
    assert ask(container, held.getvalue(), NPY, accept=CSV).body == b"3.0\n7.5\n"
    answer = ask(container, held.getvalue(), NPY, accept=NPY)
    assert answer.content_type == NPY
    assert np.load(io.BytesIO(answer.body)).tolist() == [3.0, 7.5]
    assert ask(container, "[[1, 2]]", accept="*/*").content_type == JSON  # no type is JSON


def test_numbers_out_of_text_are_float32(make: Make) -> None:
    container = make("def model_fn(d): return lambda x: [str(x.dtype), list(x.shape)]\n")
    assert ask(container, "[1, 2]", JSON).body == b'["float32", [2]]'
    assert ask(container, "1,2\n", CSV).body == b'["float32", [2]]'
    assert ask(container, "1\n2\n3\n", CSV).body == b'["float32", [3]]'


def test_types_that_are_not_known(make: Make) -> None:
    container = make(LOADS)
    for kind in ("application/json; charset=utf-8", "image/png"):
        answer = ask(container, "[[1]]", kind)
        assert answer.status == 415
        assert f"The type {kind} is not supported" in told(answer)
    assert ask(container, "[[1]]", JSON, accept="image/png").status == 406
    assert ask(container, b"x", NPY).status == 500  # as every other mistake, at AWS too


def test_arrays_of_pickled_objects_are_refused(make: Make) -> None:
    held = io.BytesIO()
    np.save(held, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    answer = ask(make(LOADS), held.getvalue(), NPY)
    assert answer.status == 500
    assert "allow_pickle" in told(answer)


def test_the_default_accept_is_a_variable(make: Make) -> None:
    container = make(LOADS, variables={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": CSV})
    assert ask(container, "[[1, 2]]", JSON).content_type == CSV
    assert ask(container, "[[1, 2]]", JSON, accept=JSON).content_type == JSON


def test_each_function_is_the_users_own(make: Make) -> None:
    container = make(
        """
        import json, os
        def model_fn(model_dir): return {"files": sorted(os.listdir(model_dir))}
        def input_fn(body, content_type): return [type(body).__name__, content_type]
        def predict_fn(data, model): return {**model, "data": data}
        def output_fn(prediction, accept): return json.dumps(prediction), "text/x-" + accept
    """.replace("\n        ", "\n")
    )
    answer = ask(container, "[]", JSON, accept="y")
    assert answer.content_type == "text/x-y"
    assert json.loads(answer.body) == {"files": ["code"], "data": ["str", JSON]}
    for kind, given in ((CSV, "str"), ("image/png", "bytes")):
        assert json.loads(ask(container, b"1", kind).body)["data"] == [given, kind]


def test_one_argument_more_is_the_context(make: Make) -> None:
    container = make(
        """
        def model_fn(model_dir, context):
            return context.system_properties["model_dir"] == model_dir
        def input_fn(body, content_type, context):
            return context.get_request_header(0, "content-type")
        def predict_fn(data, model, context):
            asked = context.request_processor[0].get_request_properties()
            return [data, model, asked["X-Amzn-SageMaker-Custom-Attributes"]]
        def output_fn(prediction, accept, context):
            context.set_response_header(0, "x-amzn-sagemaker-custom-attributes", "b=2")
            context.set_response_status(201)
            context.set_response_content_type(0, "text/plain")
            return repr(prediction)
    """.replace("\n        ", "\n")
    )
    answer = ask(container, "[]", CSV, custom_attributes="a=1")
    assert answer.body.decode() == "['text/csv', True, 'a=1']"
    assert (answer.status, answer.content_type) == (201, "text/plain")
    assert answer.custom_attributes == "b=2"


def test_transform_fn_stands_for_three(make: Make) -> None:
    source = "def model_fn(d): return 2\n"
    source += "def transform_fn(model, body, content_type, accept):\n"
    source += "    return f'{model} {body} {content_type}', accept\n"
    answer = ask(make(source), "x", CSV, accept="text/plain")
    assert (answer.body, answer.content_type) == (b"2 x text/csv", "text/plain")
    with pytest.raises(ModelLoadError, match="transform_fn and predict_fn"):
        make(source + "def predict_fn(data, model): pass")


def test_what_comes_before_and_after_the_load(make: Make) -> None:
    container = make(
        """
        said = []
        def pre_model_fn(model_dir): said.append("before")
        def model_fn(model_dir): said.append("load"); return lambda data: said
        def model_warmup_fn(model_dir, model): said.append("warm")
    """.replace("\n        ", "\n")
    )
    assert ask(container, "[]", JSON).body == b'["before", "load", "warm"]'


def test_without_model_fn_it_does_not_load(make: Make) -> None:
    with pytest.raises(ModelLoadError, match="has no model_fn"):
        make("def predict_fn(data, model): pass")


def test_errors_of_the_script(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    container = make(
        """
        class Busy(Exception):
            status_code, message = 503, "come back later"
        class UnsupportedFormatError(Exception):
            pass
        def model_fn(d): return None
        def input_fn(body, content_type):
            if body == "type": raise UnsupportedFormatError("not that")
            return body
        def predict_fn(data, model):
            if data == "busy": raise Busy
            if data == "wrong": raise ValueError("no such luck")
            if data == "odd": raise type("Odd", (Exception,), {"status_code": 99})("odd")
            return data
        def output_fn(prediction, accept):
            if prediction == "dict": return {}
            raise UnsupportedFormatError("nor that")
    """.replace("\n        ", "\n")
    )

    def got(body: str) -> tuple[int, str]:
        answer = ask(container, body, CSV)
        assert answer.content_type == JSON
        return answer.status, told(answer)

    assert got("wrong") == (500, "no such luck")
    assert "ValueError: no such luck" in capfd.readouterr().err
    assert got("busy") == (503, "come back later")
    assert got("odd") == (500, "odd")
    assert got("type") == (415, "not that")
    assert got("other") == (406, "nor that")
    assert got("dict") == (500, "output_fn gave dict as the body; str or bytes is due.")


def test_a_function_of_another_shape_is_named(make: Make) -> None:
    answer = ask(make("def model_fn(d): pass\ndef input_fn(): pass"), "[]", JSON)
    assert told(answer) == (
        "input_fn takes 0 arguments; it is given 2, or the context as one more."
    )


def test_a_model_that_cannot_be_called(make: Make) -> None:
    assert "define predict_fn" in told(ask(make("def model_fn(d): return 5"), "[]", JSON))


def test_a_script_may_have_a_module_of_the_name_of_ours(make: Make, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "model.py").write_text("NAME = 'theirs'")
    container = make("import model\ndef model_fn(d): return lambda data: model.NAME")
    assert ask(container, "[]", JSON).body == b'"theirs"'


def test_without_numpy_there_are_lists(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "arrays", lambda: None)
    container = make("def model_fn(d): return lambda rows: rows")
    assert ask(container, "[[1, 2]]", JSON).body == b"[[1, 2]]"
    assert ask(container, "1,2\n3,4\n", CSV, accept=CSV).body == b"1.0,2.0\n3.0,4.0\n"
    assert ask(container, "1,2\n", CSV).body == b"[1.0, 2.0]"
    assert ask(container, "1\n2\n", CSV).body == b"[1.0, 2.0]"
    assert ask(container, b"", NPY).status == 415
    assert ask(container, "[]", JSON, accept=NPY).status == 406


def test_a_generator_is_collected_or_given_in_parts(make: Make) -> None:
    container = make(
        """
        def model_fn(d): return None
        def predict_fn(data, model):
            for number in range(3): yield f"{number};"
    """.replace("\n        ", "\n")
    )
    assert ask(container, "[]", JSON).body == b"0;1;2;"
    response = container.stream(Request(b"[]", JSON))
    assert response.parts is not None
    assert list(response.parts) == [b"0;", b"1;", b"2;"]
