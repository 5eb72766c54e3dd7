"""What a fuzzer sends to a model: bodies that are right, nearly right, and not at all."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.lib import format as npy

from tests.servers import SNEAKER

JSON_TYPES = ("application/json", "application/jsonlines", "application/jsons")
TYPES = (*JSON_TYPES, "text/csv", "application/x-npy", "application/x-npz")
TOKENS = (
    "(",
    "-",
    "{",
    "[1]",
    ",",
    "'descr':",
    "x",
    "'",
    '"""',
    "\n",
    "\\",
    "1 +",
    "0x",
    "{}",
    "#",
)
Draw = Callable[[st.SearchStrategy[Any]], Any]

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**400, 1e308, 5e-324])
    | st.floats()
    | _texts
    | st.sampled_from(["\ud800", "\x00", "\U0010ffff", "NaN"])
    | st.fixed_dictionaries({"b64": _texts | st.sampled_from(["aGk=", "aGk"])})
)
values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_texts | st.just("x"), inner),
    max_leaves=20,
)
_numbers: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, 0.5, -1, 1e39, True, None, "x", [], [1], {}]
)


@st.composite
def images(draw: Draw) -> Any:
    """A batch of images of 28 by 28, with a few values or rows replaced."""
    batch: Any = [[[0.5] * 28 for _ in range(28)] for _ in range(draw(st.integers(0, 3)))]
    for image in batch:
        for _ in range(draw(st.integers(0, 2))):
            row, column = draw(st.integers(0, 27)), draw(st.integers(0, 27))
            if draw(st.booleans()):
                image[row] = draw(values)
            elif isinstance(image[row], list) and len(image[row]) > column:
                image[row][column] = draw(_numbers)
    return batch


@st.composite
def json_bodies(draw: Draw) -> bytes:
    value = draw(images() | values)
    key = draw(st.sampled_from(["instances", "inputs", "examples", None]))
    if key:
        value = {key: value}
        if draw(st.booleans()):
            value |= draw(st.dictionaries(st.sampled_from(["signature_name", "inputs"]), values))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), ("\n,", "\t:")]))
    text = json.dumps(value, separators=separators, ensure_ascii=draw(st.booleans()))
    times: int = draw(st.sampled_from([1, 1, 1, 2]))
    return text.encode("utf-8", "surrogatepass") * times


deep_bodies = st.builds(
    lambda start, depth, end: b'{"instances": ' + start * depth + end * depth + b"}",
    st.sampled_from([b"[", b'{"a":', b"[[1],"]),
    st.integers(1, 3000),
    st.sampled_from([b"]", b"}", b""]),
)
csv_bodies = st.builds(
    lambda rows, comma, end: end.join(comma.join(row) for row in rows).encode("utf-8", "ignore"),
    st.lists(st.lists(st.text(max_size=4) | st.sampled_from(["0.5", "nan", '"', "1e999"])))
    | st.builds(lambda count, cell: [[cell] * count], st.sampled_from([783, 784, 785]), st.text())
    | st.lists(st.just(["0.5"] * 784), max_size=3),
    st.sampled_from([",", ";", "\t", ",,"]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)


def npy_file(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():  # of versions of the format that old NumPys cannot read
        warnings.simplefilter("ignore")
        npy.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


_any_array = arrays.arrays(
    arrays.scalar_dtypes() | arrays.array_dtypes(),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    fill=st.nothing(),
)
_fitting = st.builds(
    lambda count, kind, order: np.zeros((count, 28, 28), kind, order),
    st.integers(0, 3),
    st.sampled_from(["f4", "f8", "f2", ">f4", "i8", "u1", "?", "c8", "S3", "O", "M8[s]", "V4"]),
    st.sampled_from(["C", "F"]),
)
npy_bodies = (_fitting | _any_array).map(npy_file)


@st.composite
def npy_headers(draw: Draw) -> bytes:
    """A header that need not be one, with a length that need not be its own, and some data."""
    shape = draw(st.lists(st.integers(-1, 2**70), max_size=3).map(tuple) | values)
    kind = draw(st.sampled_from(["<f4", "|O", "|S0", "|V0", ">U1", "<M8[ns]", "?", "x"]) | values)
    parts = {"descr": kind, "fortran_order": draw(st.booleans() | values), "shape": shape}
    text = draw(
        st.just(repr(parts) + "\n")
        | st.text(max_size=40)
        | st.lists(st.sampled_from(TOKENS), min_size=1, max_size=6).map("".join)
        | st.builds(str.__mul__, st.sampled_from(["-", "(", "not ", "{1:", "'"]), st.just(9000))
    ).encode("latin-1", "replace")
    version: bytes = draw(st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\xff\xff"]))
    size = len(text) + draw(st.sampled_from([0, 0, 0, 1, -1, 60_000]))
    width = 2 if version == b"\x01\x00" else 4
    length = min(max(size, 0), 256**width - 1).to_bytes(width, "little")
    whole: bytes = b"\x93NUMPY" + version + length + text + b"\0" * 16
    return whole


def zipped(members: Mapping[str, bytes], method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@st.composite
def npz_bodies(draw: Draw) -> bytes:
    names = st.sampled_from(["a.npy", "image.npy", "x", "../a.npy", "\n.npy"])
    texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
    members = draw(st.dictionaries(names | texts, npy_bodies | npy_headers(), max_size=3))
    return zipped(members, draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_LZMA, 8, 12])))


@st.composite
def damaged(draw: Draw, whole: st.SearchStrategy[bytes]) -> bytes:
    """A body with bytes replaced, taken out or put in, or cut off."""
    body = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.sampled_from([0, 1, 2, 8, 10_000])))
        body[start:end] = draw(st.binary(max_size=8) | st.just(bytes(body[start:end]) * 2))
    return bytes(body)


_sound = {
    "text/csv": csv_bodies,
    "application/x-npy": npy_bodies | npy_headers(),
    "application/x-npz": npz_bodies(),
} | dict.fromkeys(JSON_TYPES, json_bodies() | st.just(SNEAKER) | deep_bodies)


@st.composite
def requests(draw: Draw) -> tuple[dict[str, str], bytes]:
    """Headers and a body; mostly of the type that the headers say."""
    said = draw(st.sampled_from(TYPES))
    sent = draw(st.just(said) | st.just(said) | st.sampled_from(TYPES))
    whole = _sound[sent]
    body = draw(whole | whole | damaged(whole) | st.binary())
    odd = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
    headers = {"content-type": said, "accept": draw(st.sampled_from([*TYPES, "", "*/*"]))}
    optional = {
        "content-type": odd | st.just("application/json; charset=utf-8"),
        "accept": odd | st.just("text/csv;q=0.5, */*;q=nan"),
        "x-amzn-sagemaker-custom-attributes": odd
        | st.builds("tfs-model-{}={}".format, st.sampled_from(["name", "version"]), odd)
        | st.sampled_from(["tfs-method=classify", "tfs-model-version=1", "x" * 1025]),
        "x-amzn-sagemaker-target-variant": odd | st.just("AllTraffic"),
        "x-amzn-sagemaker-inference-id": odd | st.just("x" * 65),
        "x-amzn-sagemaker-session-id": odd,
        "authorization": odd,
    }
    if draw(st.integers(0, 3)) == 0:
        chosen = draw(st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True))
        headers |= {name: draw(optional[name]) for name in chosen}
    return headers, body
