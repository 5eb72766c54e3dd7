"""Several requests answered in one call: which may be, and which rows are whose. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from model.messages import Refused
from model.signatures import Array, Call, Signature, Tensor

TOLERANCE = 1e-4  # absolute and relative: what sums in another order may differ by
_PROBES = (1, 2)  # rows of the two requests that are tried alone and together


def together(signature: Signature, most: int) -> int:
    """How many requests the signature answers in one call: `most`, or 1 if it cannot be told.

    The first axis of each input has to be free, and the function is tried: rows must come out the
    same alone and among others, which a model that looks across its batch does not give.
    """
    if most < 2 or not all(tensor.rows for tensor in signature.inputs.values()):
        return 1
    requests = [samples(signature, rows, seed) for seed, rows in enumerate(_PROBES)]
    try:
        alone = [signature.call(arrays) for arrays in requests]
        shared = split(signature.call(stacked(requests)), _PROBES)
    except Refused:
        return 1
    if shared is None:
        return 1
    return most if all(map(alike, alone, shared)) else 1


def samples(signature: Signature, rows: int, seed: int) -> dict[str, Array]:
    """Random input of so many rows, the same for the same seed."""
    draw = np.random.default_rng(seed)
    return {name: sample(tensor, rows, draw) for name, tensor in signature.inputs.items()}


def sample(tensor: Tensor, rows: int, draw: np.random.Generator) -> Array:
    """Numbers from 0 to 1, which most models take for input, be it pixels, a share or an index."""
    shape = (rows, *(1 if size is None else size for size in (tensor.shape or ())[1:]))
    if tensor.dtype == object:
        return np.full(shape, b"", dtype=object)
    if tensor.dtype.kind == "f":
        return draw.random(shape).astype(tensor.dtype)
    return draw.integers(0, 2, shape).astype(tensor.dtype)


def alike(some: Mapping[str, Array], others: Mapping[str, Array]) -> bool:
    """Whether two outputs are the same but for rounding."""
    return some.keys() == others.keys() and all(same(some[name], others[name]) for name in some)


def same(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))


def fits(arrays: Mapping[str, Array]) -> tuple[object, ...]:
    """Requests with the same value can be stacked: all but their first axis is equal."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in arrays.items())


def stacked(requests: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The inputs of all requests, one after the other along the first axis."""
    return {name: np.concatenate([one[name] for one in requests]) for name in requests[0]}


def split(outputs: Mapping[str, Array], rows: Sequence[int]) -> list[dict[str, Array]] | None:
    """Each request's own rows of the outputs; None if the outputs do not have a row for each."""
    if any(array.ndim == 0 or len(array) != sum(rows) for array in outputs.values()):
        return None
    ends = np.cumsum(rows)
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for end, count in zip(ends.tolist(), rows, strict=True)
    ]


def aligned(arrays: Mapping[str, Array]) -> bool:
    """Whether all inputs have as many rows. Others may be valid, for a model that broadcasts, but
    which row belongs to which cannot be told."""
    return len(set(map(len, arrays.values()))) == 1


def count(arrays: Mapping[str, Array]) -> int:
    """The rows of one request."""
    return len(next(iter(arrays.values())))


def padded(sizes: Mapping[int, Call], plain: Call) -> Call:
    """A function that serves a batch by the smallest of `sizes` that holds it, with rows of zeros
    for the rest, and by `plain` what is larger than all."""
    ladder = sorted(sizes)

    def call(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = count(arrays)
        size = next((size for size in ladder if size >= rows), 0)
        if not size or not rows or not aligned(arrays):
            return plain(arrays)
        if size == rows:
            return sizes[size](arrays)
        room = {name: filled(array, size) for name, array in arrays.items()}
        return {name: array[:rows] for name, array in sizes[size](room).items()}

    return call


def filled(array: Array, size: int) -> Array:
    room = np.zeros((size, *array.shape[1:]), array.dtype)
    room[: len(array)] = array
    return room
