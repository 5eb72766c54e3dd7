"""Request bodies into queries, by content type.

JSON and CSV are read as the TensorFlow serving container reads them, content types compared
exactly as it does; `application/x-npy` and `application/x-npz` are extras of this container.
"""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import orjson
from numpy.lib import format as npy

from model.messages import JSON, Refused, shortened
from model.signatures import DEFAULT_SIGNATURE, Array

JSON_LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
NPZ = "application/x-npz"

NPZ_LIMIT = 512 << 20  # bytes once unpacked: a small archive can hold terabytes of zeros

NAMED = re.compile(rb'"(instances|inputs|examples)"\s*:')
TOUCHING = re.compile(rb"[}\]]\s*[\[{]")


class Layout(StrEnum):
    """Row or column format, named by the request's key."""

    ROWS = "instances"
    COLUMNS = "inputs"


@dataclass(frozen=True, slots=True)
class Query:
    """A decoded request: `values` is a JSON value, Rows, Arrays or one array.

    `booleans` says whether true or false may occur in a JSON value.
    """

    values: Any
    layout: Layout = Layout.ROWS
    signature: str = DEFAULT_SIGNATURE
    booleans: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """The cells of a CSV file, as text."""

    cells: list[list[str]]


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays of a .npz file."""

    by_name: dict[str, Array]


def decode(content_type: str, body: bytes) -> Query:
    """The query in a body. Raises Refused: 415 for a content type that is not served, 400 for a
    body that is not what its type says."""
    decoder = DECODERS.get(content_type)
    if decoder is None:
        raise Refused(415, f"Unsupported Media Type: {content_type or 'Unknown'}")
    if not body.strip():
        raise Refused(400, "The request's body is empty.")
    return decoder(body)


def from_any_json(body: bytes) -> Query:
    """JSON as the container takes it: complete, as lines of instances, or as a bare value."""
    if NAMED.search(body):
        return from_json(body)
    text = body.strip()
    if TOUCHING.search(text):
        return Query(from_json_lines(text), booleans=has_booleans(body))
    value = parsed(text)
    return Query(value if text.startswith(b"[[") else [value], booleans=has_booleans(body))


def from_json(body: bytes) -> Query:
    """A request in the form of TensorFlow Serving's predict API. Raises Refused with 400."""
    value = parsed(body)
    if not isinstance(value, dict):
        raise Refused(400, "The request's JSON is not an object with 'instances' or 'inputs'.")
    signature = value.get("signature_name") or DEFAULT_SIGNATURE
    given = [layout for layout in Layout if layout.value in value]
    if len(given) != 1:
        raise Refused(
            400,
            "The request has both 'instances' and 'inputs'; send one of them."
            if given
            else "Missing 'inputs' or 'instances' key",
        )
    return Query(value[given[0].value], given[0], str(signature), has_booleans(body))


def has_booleans(body: bytes) -> bool:
    # A letter is found much faster than a word, and most requests are numbers.
    return (b"u" in body and b"true" in body) or (b"l" in body and b"false" in body)


def parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise Refused(400, f"JSON Parse error: {fault}") from None


def from_json_lines(text: bytes) -> list[Any]:
    """One instance per line, or values that follow each other with or without white space."""
    try:
        return [orjson.loads(line) for line in text.splitlines() if line.strip()]
    except orjson.JSONDecodeError:
        return list(values_in_a_row(text))


def values_in_a_row(text: bytes) -> list[Any]:
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    values: list[Any] = []
    try:
        rest = text.decode()
        at = 0
        while at < len(rest):
            value, at = decoder.raw_decode(rest, at)
            values.append(value)
            while at < len(rest) and rest[at] in " \t\r\n":
                at += 1
    except (ValueError, RecursionError) as fault:
        raise Refused(400, f"JSON Parse error: {fault}") from None
    return values


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def from_csv(body: bytes) -> Query:
    try:
        rows = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        return Query(Rows([row for row in rows if row]))
    except (UnicodeDecodeError, csv.Error) as fault:
        raise Refused(400, f"The body is not CSV in UTF-8: {fault}.") from None


def from_npy(body: bytes) -> Query:
    return Query(array_in(body, "The body"))


def from_npz(body: bytes) -> Query:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > NPZ_LIMIT:
                raise Refused(400, f"The .npz unpacks to more than {NPZ_LIMIT >> 20} MB.")
            arrays = {
                member.filename.removesuffix(".npy"): array_in(
                    archive.read(member), f"The member {reprlib.repr(member.filename)}"
                )
                for member in members
            }
    except Refused:
        raise
    except Exception as fault:  # noqa: BLE001  (zipfile and four decompressors, each with its own)
        raise Refused(400, f"The body is not a .npz file: {shortened(fault)}.") from None
    return Query(Arrays(arrays))


def array_in(content: bytes, where: str) -> Array:
    """The array of a .npy file, read without pickle and without trusting its announced size.

    Raises Refused with 400, in a sentence that starts with `where`."""
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if dtype.hasobject:
            raise Refused(400, f"{where} holds pickled objects; they are not read.")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size != len(content) - stream.tell():
            raise ValueError(f"{len(content) - stream.tell()} bytes of data where {size} are due")
        flat = np.frombuffer(content, dtype, offset=stream.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    except Refused:
        raise
    except Exception as fault:  # noqa: BLE001
        # NumPy reads the header with Python's tokenizer and parser, so a damaged one raises what
        # these do, by version of each: TokenError, SyntaxError, RecursionError, MemoryError, ...
        raise Refused(400, f"{where} is not a .npy file: {shortened(fault)}.") from None


DECODERS: dict[str, Callable[[bytes], Query]] = {
    JSON: from_any_json,
    JSON_LINES: from_any_json,
    "application/jsons": from_any_json,
    CSV: from_csv,
    NPY: from_npy,
    NPZ: from_npz,
}
