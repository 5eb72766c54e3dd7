"""Requests that are right, in every form that the container of the shipped model takes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.lib import format as npy

from tests.fuzz.bodies import Draw, npy_file, zipped

Images = np.ndarray[Any, Any]
CSV, NPY, NPZ = "text/csv", "application/x-npy", "application/x-npz"
ACCEPTS = {  # what is asked for, and what is to come
    "": "application/json",
    "*/*": "application/json",
    "application/json": "application/json",
    "application/*;q=0.4, image/png": "application/json",
    "application/jsonlines": "application/jsonlines",
    CSV: CSV,
    "text/*": CSV,
    f"{CSV};q=0.5, {NPZ};q=0.9": NPZ,
    NPY: NPY,
    NPZ: NPZ,
}
DTYPES = ("f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i4", ">i8", "u8")


class Sound(NamedTuple):
    headers: dict[str, str]
    body: bytes
    due: str  # the content type of the answer
    rows: int


@st.composite
def sound_requests(draw: Draw) -> Sound:
    """One to four images, as one of the content types and in one of its forms."""
    images = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(
        (draw(st.integers(1, 4)), 28, 28), np.float32
    )
    images[:, draw(st.integers(0, 27)) :] = draw(st.sampled_from([0, 1, -1, 255, 1e30, 1e-40]))
    kind, form = draw(st.sampled_from(FORMS))
    accept = draw(st.sampled_from(sorted(ACCEPTS)))
    headers = {"content-type": kind, "accept": accept}
    headers |= draw(st.fixed_dictionaries({}, optional=dict(PLAIN)))
    return Sound(headers, form(draw, images), ACCEPTS[accept], len(images))


PLAIN: Mapping[str, st.SearchStrategy[str]] = {
    "x-amzn-sagemaker-custom-attributes": st.sampled_from(["a=b", "tfs-method=predict", "x" * 1024])
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map("c: {}".format),
    "x-amzn-sagemaker-target-variant": st.just("AllTraffic"),
    "x-amzn-sagemaker-inference-id": st.text("abcXYZ019-_", min_size=1, max_size=64),
}


def whole(draw: Draw, images: Images) -> bytes:
    """JSON as TensorFlow Serving's API has it, by rows or by columns, named or not."""
    given: Any = images.tolist()
    key = draw(st.sampled_from(["instances", "inputs"]))
    if draw(st.booleans()):
        given = [{"image": one} for one in given] if key == "instances" else {"image": given}
    value = {key: given} | draw(
        st.fixed_dictionaries({}, optional={"signature_name": st.just("serving_default")})
    )
    return json.dumps(value, indent=draw(st.sampled_from([None, 1]))).encode()


def bare(draw: Draw, images: Images) -> bytes:
    return json.dumps(images.tolist()).encode()


def in_lines(draw: Draw, images: Images) -> bytes:
    lines = [{"image": one} for one in images.tolist()]
    between: str = draw(st.sampled_from(["\n", "\r\n", "\n\n", " "]))
    return between.join(map(json.dumps, lines)).encode()


def as_csv(draw: Draw, images: Images) -> bytes:
    end: str = draw(st.sampled_from(["\n", "\r\n"]))
    mark: bytes = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    style = draw(st.sampled_from(["{!r}", '"{!r}"', " {!r}", "{:.6e}"])).format
    rows = images.reshape(len(images), -1).tolist()
    return mark + "".join(",".join(map(style, row)) + end for row in rows).encode()


def as_npy(draw: Draw, images: Images) -> bytes:
    kind, order = draw(st.sampled_from(DTYPES)), draw(st.sampled_from("CF"))
    version = draw(st.sampled_from([(1, 0), (2, 0), (3, 0), None]))
    limit = 1 if np.dtype(kind).kind in "iu" else 60_000  # what a float16 holds
    array = np.asarray(np.clip(images, 0, limit), kind, order)
    if version is None:
        return npy_file(array)
    stream = io.BytesIO()
    npy.write_array(stream, array, version, allow_pickle=False)
    return stream.getvalue()


def as_npz(draw: Draw, images: Images) -> bytes:
    name = draw(st.sampled_from(["image.npy", "image", "arr_0.npy"]))
    return zipped({name: as_npy(draw, images)}, draw(st.sampled_from([0, 8, 14])))


Form = Callable[[Draw, Images], bytes]
FORMS: tuple[tuple[str, Form], ...] = (
    ("application/json", whole),
    ("application/json", bare),
    ("application/jsonlines", whole),
    ("application/jsonlines", in_lines),
    ("application/jsons", in_lines),
    (CSV, as_csv),
    (NPY, as_npy),
    (NPZ, as_npz),
)


def rows_in(kind: str, body: bytes) -> int:
    """How many predictions an answer holds. Raises ValueError for what is not of its kind."""
    if kind == CSV:
        return len(np.loadtxt(io.BytesIO(body), delimiter=",", ndmin=2))
    if kind == NPY:
        return len(np.load(io.BytesIO(body), allow_pickle=False))
    if kind == NPZ:
        with np.load(io.BytesIO(body), allow_pickle=False) as held:
            (name,) = held
            return len(held[name])
    value = json.loads(body)
    (key,) = value.keys() & {"predictions", "outputs"}
    return len(value[key])
