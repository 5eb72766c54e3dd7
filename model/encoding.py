"""A model's outputs into the body of an answer, by the request's Accept header.

JSON is what the TensorFlow serving container answers; CSV and NumPy's formats are extras.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.lib import format as npy

from model.decoding import CSV, JSON_LINES, NPY, NPZ, Layout
from model.messages import JSON, Refused
from model.signatures import Array


def encode(accept: str, outputs: Mapping[str, Array], layout: Layout) -> bytes:
    """The body of an answer in the content type that `chosen` gave."""
    return ENCODERS[accept](outputs, layout)


@lru_cache(maxsize=256)
def chosen(accept: str) -> str:
    """The content type to answer with: the first acceptable one, JSON if there is no preference.

    Raises Refused with 406, naming what can be had.
    """
    entries = [entry.split(";") for entry in accept.lower().split(",") if entry.strip()]
    for entry in sorted(entries, key=quality):
        name = ANY.get(entry[0].strip(), entry[0].strip())
        if name in ENCODERS and quality(entry) < 0:
            return name
    if not entries:
        return JSON
    raise Refused(406, f"Cannot answer with {accept}; this model answers {', '.join(ENCODERS)}.")


def quality(entry: list[str]) -> float:
    """Minus the q of an Accept entry, so that sorting puts the most wanted first."""
    for parameter in entry[1:]:
        key, _, value = parameter.strip().partition("=")
        if key == "q":
            try:
                return -float(value)
            except ValueError:
                return -1.0
    return -1.0


def to_json(outputs: Mapping[str, Array], layout: Layout) -> bytes:
    """{"predictions": ...} for rows, {"outputs": ...} for columns; on one line.

    NaN and infinities are written as TensorFlow Serving writes them, as NaN and Infinity, which
    Python's json reads although they are not JSON.
    """
    plain = {name: jsonable(name, array) for name, array in outputs.items()}
    key = "predictions" if layout is Layout.ROWS else "outputs"
    value: Any = next(iter(plain.values())) if len(plain) == 1 else plain
    if layout is Layout.ROWS and len(plain) != 1:
        value = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in outputs.values()):
        return orjson.dumps({key: value}, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps({key: value}, separators=(",", ":"), default=shortest).encode()


def jsonable(name: str, array: Array) -> Any:
    if array.dtype == object:
        return texts(name, array.tolist())
    if array.ndim == 0:
        return array.item()
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return np.ascontiguousarray(array)


def texts(name: str, value: Any) -> Any:
    """Strings as UTF-8; as base64 where the output's name ends in _bytes, or where they must."""
    if isinstance(value, list):
        return [texts(name, item) for item in value]
    raw = bytes(value)
    try:
        if not name.endswith("_bytes"):
            return raw.decode()
    except UnicodeDecodeError:
        pass
    return {"b64": base64.b64encode(raw).decode()}


def shortest(array: Any) -> Any:
    """Nested lists of the shortest decimals that give back the same numbers of the array's type."""
    return (array.astype(str).astype(np.float64) if array.dtype.kind == "f" else array).tolist()


def to_csv(outputs: Mapping[str, Array], layout: Layout) -> bytes:
    """A line per row of the batch; several outputs stand side by side."""
    columns = [table(np.array(jsonable(name, array))) for name, array in outputs.items()]
    if len({len(column) for column in columns}) != 1:
        raise Refused(406, "The outputs differ in length, so they make no CSV; accept JSON.")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(np.hstack(columns).tolist())
    return text.getvalue().encode()


def table(array: Array) -> Array:
    """Text in two axes; also where there are no rows, of which NumPy cannot guess the width."""
    rows = array[np.newaxis] if array.ndim == 0 else array
    return rows.astype(str).reshape(len(rows), int(np.prod(rows.shape[1:])))


def to_npy(outputs: Mapping[str, Array], layout: Layout) -> bytes:
    if len(outputs) != 1:
        raise Refused(406, f"{NPY} holds one array, but the model gives {', '.join(outputs)}.")
    stream = io.BytesIO()
    npy.write_array(stream, plain_array(next(iter(outputs.values()))), allow_pickle=False)
    return stream.getvalue()


def to_npz(outputs: Mapping[str, Array], layout: Layout) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # not np.savez, which reserves some names
        for name, array in outputs.items():
            content = to_npy({name: array}, layout)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content)
    return stream.getvalue()


def plain_array(array: Array) -> Array:
    return np.array(array.tolist(), dtype="S") if array.dtype == object else array


Encoder = Callable[[Mapping[str, Array], Layout], bytes]

ENCODERS: dict[str, Encoder] = {
    JSON: to_json,
    JSON_LINES: to_json,
    CSV: to_csv,
    NPY: to_npy,
    NPZ: to_npz,
}
ANY = {"*/*": JSON, "application/*": JSON, "text/*": CSV}
