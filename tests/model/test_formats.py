"""Content types, layouts and refusals, over a model made of NumPy: no TensorFlow here."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import tensors
from model.inference import Container, Request, Response
from model.messages import Refused
from model.signatures import Array, Servable, Signature, Tensor

F32 = np.dtype(np.float32)
PAIR = [[1, 2], [3, 4]]


def container(
    call: Any, signature_name: str = "serving_default", **inputs: tuple[Any, Any]
) -> Container:
    tensors = {k: Tensor(k, np.dtype(dtype), shape) for k, (dtype, shape) in inputs.items()}
    signature = Signature(tensors, call)
    return Container({"model": Servable("model", 3, {signature_name: signature})}, "model")


def doubled(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {"output_0": arrays["x"] * 2}


VECTORS = container(doubled, x=(F32, (None, 2)))
IMAGES = container(doubled, x=(F32, (None, 2, 3)))
INTEGERS = container(doubled, x=(np.int32, (None,)))
FLAGS = container(lambda a: {"output_0": ~a["x"]}, x=(bool, (None,)))
STRINGS = container(lambda a: {"output_0": a["x"]}, x=(object, (None,)))
TWO = container(
    lambda a: {"sum": a["a"] + a["b"], "wide": np.stack([a["a"], a["b"]], 1)},
    a=(F32, (None,)),
    b=(F32, (None,)),
)


def ask(
    model: Container,
    body: Any,
    content_type: str = "application/json",
    accept: str = "",
    attributes: str = "",
) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return model.handle(Request(raw, content_type, accept, attributes))


def answer(model: Container, body: Any, content_type: str = "application/json") -> Any:
    response = ask(model, body, content_type)
    assert response.status == 200, response.body
    return orjson.loads(response.body)


def refusal(
    model: Container, body: Any, content_type: str = "application/json", **more: Any
) -> str:
    response = ask(model, body, content_type, **more)
    assert response.status == 400, response
    assert response.content_type == "application/json"
    error = orjson.loads(response.body)
    assert list(error) == ["error"]
    return str(error["error"])


def npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Array) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"instances": [[1, 2]]}', {"predictions": [[2, 4]]}),
        (b'{"inputs": [[1, 2]]}', {"outputs": [[2, 4]]}),
        (b'{"inputs": {"x": [[1, 2]]}}', {"outputs": [[2, 4]]}),
        (b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', {"predictions": [[2, 4], [6, 8]]}),
        (b"[1, 2]", {"predictions": [[2, 4]]}),  # wrapped as one instance
        (b"[[1, 2], [3, 4]]", {"predictions": [[2, 4], [6, 8]]}),
        (b'{"x": [1, 2]}', {"predictions": [[2, 4]]}),
        (b"[1, 2]\n[3, 4]\n", {"predictions": [[2, 4], [6, 8]]}),
        (b"[1, 2]\r\n\r\n[3, 4]", {"predictions": [[2, 4], [6, 8]]}),
        (b"[1, 2] [3, 4]", {"predictions": [[2, 4], [6, 8]]}),
        (b'{"x": [1, 2]}{"x": [3, 4]}', {"predictions": [[2, 4], [6, 8]]}),
    ],
)
@pytest.mark.parametrize(
    "content_type", ["application/json", "application/jsonlines", "application/jsons"]
)
def test_json_is_wrapped_as_the_container_does(
    body: bytes, expected: Any, content_type: str
) -> None:
    assert answer(VECTORS, body, content_type) == expected


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "text/plain", "image/png"],
)
def test_content_types_are_compared_exactly(content_type: str) -> None:
    response = ask(VECTORS, {"instances": PAIR}, content_type)
    assert response.status == 415
    assert orjson.loads(response.body) == {"error": f"Unsupported Media Type: {content_type}"}


def test_a_missing_content_type_is_unknown() -> None:
    response = ask(VECTORS, {"instances": PAIR}, "")
    assert (response.status, response.body) == (415, b'{"error":"Unsupported Media Type: Unknown"}')


def test_csv_rows_are_instances() -> None:
    assert answer(VECTORS, b"1,2\n3,4.5\n", "text/csv") == {"predictions": [[2, 4], [6, 9]]}
    assert answer(INTEGERS, b"1\r\n2", "text/csv") == {"predictions": [2, 4]}


def test_csv_strings_keep_every_comma_and_quote() -> None:
    rows = b'"one, two, three"\n"say ""a"" and ""b"""\nplain\n'
    given = answer(STRINGS, rows, "text/csv")
    assert given == {"predictions": ["one, two, three", 'say "a" and "b"', "plain"]}


def test_a_flat_csv_row_takes_the_shape_of_the_input() -> None:
    body = b"1,2,3,4,5,6\n0,0,0,0,0,0.5\n"
    assert answer(IMAGES, body, "text/csv") == {
        "predictions": [[[2, 4, 6], [8, 10, 12]], [[0, 0, 0], [0, 0, 1]]]
    }
    assert "(any, 2, 3)" in refusal(IMAGES, b"1,2,3,4,5", "text/csv")


def test_a_flat_json_row_does_not() -> None:
    text = refusal(IMAGES, {"instances": [[1, 2, 3, 4, 5, 6]]})
    assert "(any, 2, 3)" in text
    assert "(1, 6)" in text


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_npy_in(dtype: Any) -> None:
    array = np.array(PAIR, dtype)
    assert answer(VECTORS, npy(array), "application/x-npy") == {"predictions": [[2, 4], [6, 8]]}
    assert answer(VECTORS, npy(array.T), "application/x-npy") == {"predictions": [[2, 6], [4, 8]]}


def test_npz_in() -> None:
    one, two = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert answer(VECTORS, npz(anything=np.array(PAIR)), "application/x-npz") == {
        "predictions": [[2, 4], [6, 8]]
    }
    predictions = answer(TWO, npz(b=two, a=one), "application/x-npz")["predictions"]
    assert predictions == [{"sum": 4, "wide": [1, 3]}, {"sum": 6, "wide": [2, 4]}]
    assert "no input is named 'c'" in refusal(TWO, npz(a=one, c=two), "application/x-npz")
    assert "'b' is missing" in refusal(TWO, npz(a=one), "application/x-npz")


def test_arrays_of_objects_are_not_unpickled() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "pickled" in refusal(VECTORS, stream.getvalue(), "application/x-npy")


def test_a_npy_that_promises_more_than_it_holds_allocates_nothing() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 2), }"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 16
    assert "16 bytes" in refusal(VECTORS, body, "application/x-npy")


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(520):
            member.write(bytes(1 << 20))
    assert "512 MB" in refusal(VECTORS, stream.getvalue(), "application/x-npz")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"instances": [[1, 2]', "JSON Parse error"),
        (b'{"instances": [[1, NaN]]}', "JSON Parse error"),
        (b'{"instances": [[1, Infinity]]}', "JSON Parse error"),
        (b'{"instances": [[1, 1e400]]}', "JSON Parse error"),
        (b'{"instances": [[1, 1e39]]}', "1e+39 of 'instances' list is out of range"),
        (b'{"instances": [[1, -1e39]]}', "-1e+39"),
        (b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", "JSON Parse error"),
        (b'{"instances": ' + b"[" * 1000 + b"1" + b"]" * 1000 + b"}", "list"),
        (b"[1][2]" + b"[" * 100_000, "JSON Parse error"),
        (b"[1] [NaN]x", "JSON Parse error"),
        (b"\xff\xfe[1, 2]", "JSON Parse error"),
        (b'{"instances": [[1, 2], [3]]}', "ragged"),
        (b'{"instances": [[1, 2], 3]}', "ragged"),
        (b'{"instances": [1, [2, 3]]}', "ragged"),
        (b'{"instances": []}', "at least one element"),
        (b'{"instances": 5}', "must be a list"),
        (b'{"instances": {"x": [1, 2]}}', "must be a list"),
        (b'{"instances": [[]]}', "(1, 0)"),
        (b'{"instances": [[1, 2, 3]]}', "(1, 3)"),
        (b'{"instances": [[1, "x"]]}', '"x" Type: String is not of expected type: float'),
        (b'{"instances": [[1, 2], [1, "3"]]}', "element: 1 of 'instances' list"),
        (b'{"instances": [[1, null]]}', "null Type: Null"),
        (b'{"instances": [[1, true]]}', "true Type: True"),
        (b'{"instances": [[true, false]]}', "true Type: True"),
        (b'{"instances": [[1, {"a": 1}]]}', "Type: Object"),
        (b'{"instances": [{"junk": [1, 2]}]}', "element: 0 of 'instances' list"),
        (b'{"instances": [{"junk": [1, 2]}]}', "'junk'"),
        (b'{"instances": [{"x": [1, 2]}, [3, 4]]}', "element: 1 of 'instances' list"),
        (b'{"instances": [[1, 2]], "inputs": [[1, 2]]}', "both"),
        (b'{"examples": [[1, 2]]}', "Missing 'inputs' or 'instances' key"),
        (b'[{"instances": [[1, 2]]}]', "not an object"),
        (b'{"inputs": {"junk": [[1, 2]]}}', "'junk'"),
        (b'{"inputs": 5}', "()"),
        (b'{"instances": [[1, 2]], "signature_name": "other"}', "'other' not found"),
    ],
)
def test_bad_json_gets_one_clear_sentence(body: bytes, said: str) -> None:
    assert said in refusal(VECTORS, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"1,2\n3", "different lengths, [1, 2]"),
        (b"1,x", "'x'"),
        (b"1,nan", "not a number"),
        (b"1,1e400", "infinite"),
        (b"1,1e39", "out of range"),
        (b"\xff,1", "UTF-8"),
        (b'"1,2', "not CSV"),
        (b"\n\n", "empty"),
    ],
)
def test_bad_csv_gets_one_clear_sentence(body: bytes, said: str) -> None:
    assert said in refusal(VECTORS, body, "text/csv")


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("application/x-npy", b"junk", "not a .npy file"),
        ("application/x-npy", npy(np.array(PAIR, float))[:-1], "31 bytes"),
        ("application/x-npy", npy(np.array([[1e39, 0]])), "out of range"),
        ("application/x-npy", npy(np.array([["a", "b"]])), "is of type <U1"),
        ("application/x-npy", npy(np.array([[True, False]])), "is of type bool"),
        ("application/x-npy", npy(np.array([1.0, 2.0])), "(2,)"),
        ("application/x-npz", b"junk", "not a .npz file"),
        ("application/x-npz", npz(a=np.ones(2))[:-30], "not a .npz file"),
        ("application/x-npz", npz(a=np.ones(2), b=np.ones(2)), "no input is named 'a'"),
    ],
)
def test_bad_arrays_get_one_clear_sentence(content_type: str, body: bytes, said: str) -> None:
    assert said in refusal(VECTORS, body, content_type)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"(",  # tokenize.TokenError
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (",
        b"1 +",  # SyntaxError
        b"A",  # of which Python's parser tells where it lies in memory
        b"-" * 9000,  # RecursionError or MemoryError, by version of Python
        b"(" * 9000,
        b"[" * 150 + b"]" * 150,
        b"x" * 11_000,  # longer than NumPy reads
        b"\x00\xff",
        b"{1: 2}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,)}" % 2**70,
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -2)}",
        b"{'descr': '<f8', 'fortran_order': 7, 'shape': (2,)}",
        b"{'descr': '|V0', 'fortran_order': False, 'shape': (2,)}",
        b"{'descr': ('<f8', (%d,)), 'fortran_order': False, 'shape': ()}" % 2**40,
        b"{'descr': {}, 'fortran_order': False, 'shape': (2,)}",
        b"{'descr': 'x" + b"y" * 5000 + b"', 'fortran_order': False, 'shape': (2,)}",
    ],
    ids=lambda header: repr(header[:60]),
)
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"])
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_whatever_a_header_holds_it_gets_one_clear_sentence(header: bytes, version: bytes) -> None:
    length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    body = b"\x93NUMPY" + version + length + header + bytes(16)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a\n" * 1000, body)
    for sent, kind, start in (
        (body, "application/x-npy", "The body is not a .npy file: "),
        (packed.getvalue(), "application/x-npz", "The member 'a\\na"),
    ):
        said = refusal(VECTORS, sent, kind)
        assert said.startswith(start)
        assert " is not a .npy file: " in said
        assert said.endswith(".")
        assert "\n" not in said
        assert " at 0x" not in said
        assert len(said) < 300


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/csv", b"1," + b"x" * 100_000),
        ("text/csv", b"".join(b"1," * width + b"1\n" for width in range(1000))),
        ("application/json", json.dumps({"instances": [{"x" * 100_000: 1}]}).encode()),
        ("application/json", json.dumps({"instances": [{"é" * 100_000: 1}]}).encode()),
        ("application/json", json.dumps({"inputs": 1, "signature_name": "x" * 100_000}).encode()),
        ("application/json", json.dumps({"instances": [["x" * 100_000, 1]]}).encode()),
        ("application/json", json.dumps({"instances": [[{"x" * 100_000: 1}, 1]]}).encode()),
        ("x" * 100_000, b"1"),
    ],
    ids=range(8),
)
def test_a_refusal_does_not_send_a_body_back(content_type: str, body: bytes) -> None:
    response = ask(VECTORS, body, content_type)
    assert response.status in (400, 415)
    assert len(json.loads(response.body)["error"]) < 2010


def test_numbers_sent_as_infinite_in_an_array_pass() -> None:
    response = ask(VECTORS, npy(np.array([[np.inf, np.nan]])), "application/x-npy")
    assert response.body == b'{"predictions":[[Infinity,NaN]]}'
    assert json.loads(response.body)["predictions"][0][0] == np.inf


def test_decimals_beside_a_nan_stay_short() -> None:
    response = ask(VECTORS, npy(np.array([[0.05, np.nan]], np.float32)), "application/x-npy")
    assert response.body == b'{"predictions":[[0.1,NaN]]}'


def test_integers_booleans_and_strings() -> None:
    assert answer(INTEGERS, {"instances": [1, 2]}) == {"predictions": [2, 4]}
    assert "fractions" in refusal(INTEGERS, {"instances": [1.5]})
    assert "out of range" in refusal(INTEGERS, {"instances": [1 << 40]})
    assert answer(FLAGS, {"instances": [True, False]}) == {"predictions": [False, True]}
    assert "1 Type: Number is not of expected type: bool" in refusal(FLAGS, {"instances": [1]})
    assert answer(STRINGS, {"instances": ["é", {"b64": "aGk="}]}) == {"predictions": ["é", "hi"]}
    assert answer(STRINGS, {"instances": [{"b64": "/w=="}]}) == {"predictions": [{"b64": "/w=="}]}
    assert "not base64" in refusal(STRINGS, {"instances": [{"b64": "*"}]})
    assert "5 Type: Number is not of expected type: string" in refusal(STRINGS, {"instances": [5]})


def test_several_inputs_and_outputs() -> None:
    rows = {"instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}
    assert answer(TWO, rows) == {
        "predictions": [{"sum": 3, "wide": [1, 2]}, {"sum": 7, "wide": [3, 4]}]
    }
    columns = {"inputs": {"a": [1, 3], "b": [2, 4]}}
    assert answer(TWO, columns) == {"outputs": {"sum": [3, 7], "wide": [[1, 2], [3, 4]]}}
    assert "'b' is missing" in refusal(TWO, {"instances": [{"a": 1}]})
    assert "an object with a, b" in refusal(TWO, {"instances": [1]})
    assert "inputs a, b" in refusal(TWO, b"1,2", "text/csv")
    assert ask(TWO, rows, accept="text/csv").body == b"3.0,1.0,2.0\n7.0,3.0,4.0\n"
    assert ask(TWO, rows, accept="application/x-npy").status == 406
    with np.load(io.BytesIO(ask(TWO, rows, accept="application/x-npz").body)) as arrays:
        assert arrays["sum"].tolist() == [3, 7]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("image/png, application/jsonlines", "application/jsonlines"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("application/json;q=0, text/*", "text/csv"),
    ],
)
def test_accept_is_honoured(accept: str, content_type: str) -> None:
    response = ask(VECTORS, {"instances": PAIR}, accept=accept)
    assert (response.status, response.content_type) == (200, content_type)


def test_an_accept_that_cannot_be_met_names_what_can() -> None:
    response = ask(VECTORS, {"instances": PAIR}, accept="image/png")
    assert response.status == 406
    assert b"image/png" in response.body
    assert b"application/x-npy" in response.body


def test_npy_out() -> None:
    body = ask(VECTORS, {"instances": PAIR}, accept="application/x-npy").body
    array = np.load(io.BytesIO(body), allow_pickle=False)
    assert (array.dtype, array.tolist()) == (F32, [[2, 4], [6, 8]])


@pytest.mark.parametrize(
    ("attributes", "status", "error"),
    [
        ("", 200, ""),
        ("tfs-model-name=model,tfs-model-version=3", 200, ""),
        ("something else entirely", 200, ""),
        ("tfs-model-name=other", 404, "Servable not found for request: Latest(other)"),
        ("tfs-model-version=4", 404, "Servable not found for request: Specific(model, 4)"),
        ("tfs-model-version=x", 400, "tfs-model-version is 'x'; it must be a number."),
        ("tfs-method=classify", 400, "Expected classify signature method_name"),
    ],
)
def test_custom_attributes_choose_the_servable(attributes: str, status: int, error: str) -> None:
    response = ask(VECTORS, {"instances": PAIR}, attributes=attributes)
    assert response.status == status
    assert orjson.loads(response.body).get("error", "").startswith(error)


def test_row_format_needs_a_row_for_each_instance() -> None:
    total = container(lambda a: {"t": a["x"].sum(0, keepdims=True)}, x=(F32, (None, 2)))
    assert "batch size: 1 expecting 2" in refusal(total, {"instances": PAIR})
    assert answer(total, {"inputs": PAIR}) == {"outputs": [[4, 6]]}
    scalar = container(lambda a: {"t": np.float32(5).reshape(())}, x=(F32, (None, 2)))
    assert answer(scalar, {"inputs": PAIR}) == {"outputs": 5}


def test_a_fault_of_the_model_is_a_500_and_not_an_exception(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fault(arrays: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeError("the model broke")

    response = ask(container(fault, x=(F32, (None, 2))), {"instances": PAIR})
    assert (response.status, response.body) == (500, b'{"error":"the model broke"}')
    assert "RuntimeError" in capsys.readouterr().err


TYPES = st.sampled_from(
    ["application/json", "application/jsons", "text/csv", "application/x-npy", "application/x-npz"]
)
PIECES = st.sampled_from(
    [
        b'{"instances":',
        b"[",
        b"]",
        b"}",
        b"1",
        b"1e39",
        b",",
        b'"x"',
        b"\n",
        b"true",
        b"PK\3\4",
        b"\x93NUMPY\1\0",
    ]
)


@given(TYPES, st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=20).map(b"".join)))
def test_no_body_whatsoever_raises(content_type: str, body: bytes) -> None:
    for model in (VECTORS, STRINGS, TWO):
        response = ask(model, body, content_type)
        assert response.status in (200, 400)
        json.loads(response.body)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "a", "b", "b64"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from(["instances", "inputs"]))
def test_no_json_whatsoever_raises(value: Any, key: str) -> None:
    for model in (VECTORS, INTEGERS, FLAGS, STRINGS, TWO):
        assert ask(model, {key: value}).status in (200, 400)


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2), min_size=1))
def test_float32_survives_the_way_in_and_out(rows: list[list[float]]) -> None:
    same = container(lambda a: {"y": a["x"]}, x=(F32, (None, 2)))
    body = npy(np.array(rows, np.float32))
    given = json.loads(ask(same, body, "application/x-npy").body)["predictions"]
    assert np.array_equal(np.array(given, np.float32), np.array(rows, np.float32))


def test_a_b64_value_of_other_alphabets_is_refused() -> None:
    with pytest.raises(Refused, match=r"is not base64"):
        tensors.as_bytes([{"b64": "caf\u00e9"}], "input")
