"""JSON values and foreign arrays into the arrays that a signature takes, or a clear refusal.

The wording of the refusals follows TensorFlow Serving's, extended where its own says too little.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from model.messages import Refused
from model.signatures import Array, Tensor

# TensorFlow's names of the types whose names differ from NumPy's
TYPE_NAMES = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}
PACKED = "fd"  # the floats that struct and NumPy have under the same letter
MANY = 1 << 16  # numbers; above that the copies that packing makes cost more than it saves


def from_json(value: Any, tensor: Tensor, where: str, booleans: bool = True) -> Array:
    """The array of a nested list. `where` names the list in errors; `booleans` says whether
    true or false may occur among the values. Raises Refused with status 400."""
    try:
        if tensor.dtype == object:
            return shaped(strings(value, where), tensor)
        quick = None if booleans else packed(value, tensor)
        if quick is not None:
            return shaped(quick, tensor)
        return shaped(cast(numbers(value, tensor, where, booleans), tensor, where), tensor)
    except RecursionError:
        raise Refused(400, f"The lists of {where} are nested too deep.") from None


def packed(value: Any, tensor: Tensor) -> Array | None:
    """A nested list of numbers as floats, in half the time that NumPy takes to find out what is in
    it. None where NumPy has to look: other types, unequal lists, numbers out of range, many."""
    code = tensor.dtype.char
    if code not in PACKED:
        return None
    try:
        shape, flat = [len(value)], value
        while type(flat[0]) is list:
            shape.append(len(flat[0]))
            if set(map(len, flat)) != {shape[-1]}:
                return None
            flat = list(chain.from_iterable(flat))
        if len(flat) > MANY:
            return None
        content = struct.pack(f"={len(flat)}{code}", *flat)  # without = it overflows to infinity
        return np.frombuffer(content, tensor.dtype).reshape(shape)
    except (TypeError, ValueError, LookupError, OverflowError, struct.error):
        return None


def numbers(value: Any, tensor: Tensor, where: str, booleans: bool) -> Array:
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # NumPy's word for lists of unequal length
        raise ragged(value, where) from None
    # NumPy reads true as 1 and "1" as text: only a walk through the values tells them apart.
    if tensor.dtype == bool or booleans or array.dtype.kind not in "iuf":
        refuse_other_types(value, tensor, where)
    if array.dtype.kind not in "biuf":
        raise ragged(value, where)  # deeper than NumPy's axes go
    return array


def strings(value: Any, where: str) -> Array:
    nest = as_bytes(value, where)
    try:
        array = np.array(nest, dtype=object)
    except ValueError:
        raise ragged(nest, where) from None
    if any(isinstance(item, list) for item in array.ravel().tolist()):
        raise ragged(nest, where)
    return array


def from_array(array: Array, tensor: Tensor, where: str) -> Array:
    """The array that came in NumPy's own format, with the model's type.

    Numbers may change width, but none may overflow or lose its fraction. NaN and infinities pass
    where they were sent. Raises Refused with status 400.
    """
    if tensor.dtype == object:
        if array.dtype.kind not in "US":
            raise wrong_array(array, tensor, where)
        flat = [v if isinstance(v, bytes) else v.encode() for v in array.ravel().tolist()]
        return shaped(objects(flat).reshape(array.shape), tensor)
    if (array.dtype.kind == "b") != (tensor.dtype == bool) or array.dtype.kind not in "biuf":
        raise wrong_array(array, tensor, where)
    return shaped(cast(array, tensor, where), tensor)


def cast(array: Array, tensor: Tensor, where: str) -> Array:
    wanted = tensor.dtype
    if array.dtype == wanted:
        return array
    if array.size == 0:
        return array.astype(wanted)
    if wanted.kind in "iu" and array.dtype.kind == "f":
        raise Refused(400, f"The values of {where} have fractions, but {expected(tensor)}.")
    with np.errstate(over="ignore"):
        result = array.astype(wanted)
    lost = result != array if wanted.kind in "iu" else np.isinf(result) & np.isfinite(array)
    if array.dtype.kind != "b" and lost.any():
        value = array[lost].ravel()[0]
        raise Refused(400, f"The value {value} of {where} is out of range: {expected(tensor)}.")
    return result


def shaped(array: Array, tensor: Tensor) -> Array:
    """The array itself, if its shape fits; raises Refused naming both shapes if not."""
    want = tensor.shape
    if want is None or (
        len(want) == array.ndim
        and all(w is None or w == n for w, n in zip(want, array.shape, strict=True))
    ):
        return array
    text = "(" + ", ".join("any" if n is None else str(n) for n in want) + ")"
    raise Refused(
        400,
        f"The input {tensor.name!r} takes values of the shape {text}, the batch first, "
        f"but the request has the shape {array.shape}.",
    )


def unflattened(rows: Array, tensor: Tensor) -> Array:
    """Flat rows in the shape of the input, where the number of values of a row allows just one."""
    want = tensor.shape
    if want is None or None in want[1:] or len(want) == rows.ndim:
        return rows
    sizes = [n for n in want[1:] if n is not None]
    if int(np.prod(rows.shape[1:])) != int(np.prod(sizes)):
        return rows
    return rows.reshape(rows.shape[0], *sizes)


def objects(values: list[bytes]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def as_bytes(value: Any, where: str) -> Any:
    """The same nest with each string as UTF-8 and each {"b64": ...} decoded."""
    if isinstance(value, list):
        return [as_bytes(item, where) for item in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError as fault:  # binascii.Error, or characters that are not ASCII
            raise Refused(400, f"A 'b64' value of {where} is not base64: {fault}.") from None
    raise wrong_type(value, "string", where)


def refuse_other_types(value: Any, tensor: Tensor, where: str) -> None:
    allowed = (bool,) if tensor.dtype == bool else (int, float)
    if not isinstance(value, list):
        value, where = [value], f"the value of {where}"
    for index, element in enumerate(value):
        for leaf in leaves(element):
            if type(leaf) not in allowed:
                raise wrong_type(leaf, type_name(tensor), f"element: {index} of {where}")


def leaves(value: Any) -> Iterator[Any]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(reversed(item))
        else:
            yield item


def ragged(value: Any, where: str) -> Refused:
    sizes: list[int] = []
    level = value
    while isinstance(level, list):
        sizes.append(len(level))
        level = level[0] if level else None
    found = next(unequal(value, sizes, 0), None)
    detail = found or "lists and values are mixed"
    return Refused(400, f"The lists of {where} are ragged: {detail}.")


def unequal(value: Any, sizes: list[int], depth: int) -> Iterator[str]:
    if isinstance(value, list) == (depth == len(sizes)):
        kind = "a list" if isinstance(value, list) else "no list"
        yield f"there is {kind} at level {depth} where the first element differs"
    elif isinstance(value, list):
        if len(value) != sizes[depth]:
            yield f"a list at level {depth} has {len(value)} elements where {sizes[depth]} are due"
        for item in value:
            yield from unequal(item, sizes, depth + 1)


def wrong_type(leaf: Any, name: str, where: str) -> Refused:
    text, kind = described(leaf)
    return Refused(
        400,
        f"Failed to process {where}. Error: INVALID_ARGUMENT: JSON Value: {text} "
        f"Type: {kind} is not of expected type: {name}",
    )


def described(leaf: Any) -> tuple[str, str]:
    """A JSON value as text, cut where it is long, and its type as TensorFlow Serving calls it."""
    match leaf:
        case None:
            return "null", "Null"
        case bool():
            return str(leaf).lower(), str(leaf)
        case str():
            return f'"{leaf[:60]}"', "String"
        case dict():
            return str(leaf)[:60], "Object"
        case list():
            return str(leaf)[:60], "Array"
        case _:
            return str(leaf), "Number"


def wrong_array(array: Array, tensor: Tensor, where: str) -> Refused:
    return Refused(400, f"The array of {where} is of type {array.dtype}, but {expected(tensor)}.")


def expected(tensor: Tensor) -> str:
    return f"the input {tensor.name!r} takes {type_name(tensor)}"


def type_name(tensor: Tensor) -> str:
    return TYPE_NAMES.get(tensor.dtype.name, tensor.dtype.name)
