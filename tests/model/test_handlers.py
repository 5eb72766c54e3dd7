"""The user's code/inference.py around a model made of NumPy: no TensorFlow here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from model import handlers
from model.inference import Container, ModelLoadError, Request, Response
from model.signatures import Servable, Signature, Tensor

BOTH = """
import json

def input_handler(data, context):
    assert context.request_content_type == "application/x-words", context
    return json.dumps({"instances": [[float(w) for w in data.read().decode().split()]]})

def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.content.decode("utf-8"))
    assert response.headers["content-type"] == "application/json"
    assert response.json() == json.loads(response.text)
    return response.content, context.accept_header
"""

POSTS = """
import urllib.error, urllib.request

def handler(data, context):
    request = urllib.request.Request(context.rest_uri, data=data.read(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as reply:
            return reply.read(), reply.headers["Content-Type"]
    except urllib.error.HTTPError as fault:
        with fault:
            return str(fault.code) + " " + fault.read().decode(), "text/plain"
"""

Make = Callable[[str], Container]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A container with the given script; import state and port are put back afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "inference", raising=False)
    made: list[Container] = []

    def container(script: str) -> Container:
        write(tmp_path, script)
        signature = Signature(
            {"x": Tensor("x", np.dtype(np.float32), (None, 2))},
            lambda arrays: {"output_0": arrays["x"] * 2},
        )
        models = {"model": Servable("model", 1, {"serving_default": signature})}
        made.append(Container(models, "model", handlers.find(tmp_path)))
        return made[-1]

    yield container
    for container_made in made:
        container_made.close()
    sys.modules.pop("inference", None)


def write(directory: Path, script: str) -> None:
    (directory / "code").mkdir(exist_ok=True)
    (directory / "code" / "inference.py").write_text(script, encoding="utf-8")


def ask(container: Container, body: bytes, content_type: str = "", **more: str) -> Response:
    return container.handle(Request(body, content_type, **more))


def error(response: Response) -> str:
    assert response.status == 500
    return str(orjson.loads(response.body)["error"])


def test_without_a_script_there_is_none(tmp_path: Path) -> None:
    assert handlers.find(tmp_path) is None


def test_both_handlers_stand_around_the_model(make: Make) -> None:
    response = ask(make(BOTH), b"1 2", "application/x-words")
    assert response == Response(200, "application/json", b'{"predictions":[[2.0,4.0]]}')
    response = ask(make(BOTH), b"1 2", "application/x-words", accept="a/b")
    assert response.content_type == "a/b"


def test_the_models_refusal_reaches_the_output_handler(make: Make) -> None:
    text = error(ask(make(BOTH), b"1 2 3", "application/x-words"))
    assert "(any, 2)" in text
    assert text.startswith('{"error":')


def test_an_exception_of_the_script_is_a_500_with_its_text(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    container = make("def handler(data, context):\n    raise KeyError('no such thing')\n")
    assert error(ask(container, b"")) == "'no such thing'"
    assert "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("returns", "said"),
    [("b'x'", "handler returned bytes"), ("{}, 'a/b'", "handler gave dict"), ("None", "NoneType")],
)
def test_a_wrong_return_value_is_explained(make: Make, returns: str, said: str) -> None:
    assert said in error(ask(make(f"def handler(data, context):\n    return {returns}\n"), b""))


def test_the_contexts_fields(make: Make) -> None:
    container = make(
        "def handler(data, context):\n    return repr(context._asdict()), 'text/plain'\n"
    )
    attributes = "tfs-model-name=other,tfs-model-version=7,tfs-method=classify,more=1"
    response = ask(container, b"four", custom_attributes=attributes)
    fields = eval(response.body)  # the repr of a dict of strings, from the script above
    uri = fields.pop("rest_uri")
    assert uri.startswith("http://127.0.0.1:")
    assert uri.endswith("/v1/models/other/versions/7:classify")
    assert fields == {
        "model_name": "other",
        "model_version": "7",
        "method": "classify",
        "grpc_port": "9000",
        "channel": None,
        "custom_attributes": attributes,
        "request_content_type": "application/json",
        "accept_header": "application/json",
        "content_length": 4,
    }


@pytest.mark.parametrize(
    ("attributes", "body", "expected"),
    [
        ("", b'{"instances": [[1, 2]]}', b'{"predictions":[[2.0,4.0]]}'),
        ("tfs-model-version=1", b'{"inputs": [[1, 2]]}', b'{"outputs":[[2.0,4.0]]}'),
        ("", b"[[1, 2]]", b'400 {"error":"The request\'s JSON is not an object'),
        ("", b"", b'400 {"error":"JSON Parse error'),
        ("tfs-model-name=x", b"{}", b'404 {"error":"Servable not found for request: Latest(x)"}'),
        ("tfs-model-version=2", b'{"instances": [1]}', b'404 {"error":"Servable not found'),
    ],
)
def test_a_handler_can_post_to_the_rest_port(
    make: Make, attributes: str, body: bytes, expected: bytes
) -> None:
    response = ask(make(POSTS), body, custom_attributes=attributes)
    assert response.status == 200
    assert response.body.startswith(expected)


def test_the_port_is_open_only_for_a_handler(make: Make) -> None:
    def uri(script: str) -> bytes:
        return ask(make(script), b"").body

    seen = "def input_handler(data, context):\n    raise ValueError(context.rest_uri)\n"
    assert b":8501/v1/models/model:predict" in uri(seen + "output_handler = input_handler\n")
    seen = "def handler(data, context):\n    return context.rest_uri, 'a/b'\n"
    assert b":8501/" not in uri(seen)


@pytest.mark.parametrize("script", ["", "def input_handler(d, c): ...", "output_handler = print"])
def test_half_of_a_script_cannot_be_loaded(make: Make, script: str) -> None:
    with pytest.raises(
        ModelLoadError, match=r"^Handlers are not implemented correctly in user script\.$"
    ):
        make(script)


def test_a_script_that_fails_at_import_names_its_fault(make: Make) -> None:
    with pytest.raises(ModelLoadError, match="ZeroDivisionError"):
        make("1 / 0")
    with pytest.raises(ModelLoadError, match=r"code/inference\.py .*SyntaxError"):
        make("def")


def test_a_missing_package_points_to_code_lib(make: Make, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "requirements.txt").write_text("a-package\n", encoding="utf-8")
    with pytest.raises(ModelLoadError, match=r"No module named 'a_package'.*code/lib"):
        make("import a_package")


def test_code_and_code_lib_can_be_imported_from(make: Make, tmp_path: Path) -> None:
    library = tmp_path / "code" / "lib"
    library.mkdir(parents=True)
    (library / "lukewarm_test_vendored.py").write_text("WORD = 'vendored'\n", encoding="utf-8")
    (tmp_path / "code" / "lukewarm_test_beside.py").write_text("KIND = 'a/b'\n", encoding="utf-8")
    container = make(
        "from lukewarm_test_vendored import WORD\nfrom lukewarm_test_beside import KIND\n"
        "def handler(data, context):\n    return WORD, KIND\n"
    )
    assert ask(container, b"") == Response(200, "a/b", b"vendored")
