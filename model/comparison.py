"""What two runtimes are compared by: sample inputs, and how far apart two answers are. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from model.signatures import Array, Signature, Tensor

# Rows of a batch, and the length of any other free axis. 1 comes again: what was resized has to
# shrink, and what keeps a state shows it.
SIZES = ((1, 1), (2, 3), (7, 8), (1, 1), (32, 40))


def samples(signature: Signature) -> Iterator[dict[str, Array]]:
    """Inputs of several sizes, always the same: numbers from 0 to 1, as pixels and shares are, and
    of any sign; indices into two, and into a hundred."""
    draw = np.random.default_rng(0)
    for rows, length in SIZES:
        for wide in (False, True):
            yield {
                name: sample(tensor, rows, length, wide, draw)
                for name, tensor in signature.inputs.items()
            }


def sample(tensor: Tensor, rows: int, length: int, wide: bool, draw: np.random.Generator) -> Array:
    free = [rows, *(length for _ in tensor.shape or ())]
    shape = [free[axis] if n is None else n for axis, n in enumerate(tensor.shape or ())]
    if tensor.dtype == object:
        return np.array(draw.integers(0, 100, shape).astype(bytes), dtype=object)
    if tensor.dtype.kind in "fc":
        numbers = np.asarray(draw.normal(size=shape) if wide else draw.random(shape))
        return numbers.astype(tensor.dtype)
    return np.asarray(draw.integers(0, 100 if wide else 2, shape)).astype(tensor.dtype)


def difference(some: Mapping[str, Array], others: Mapping[str, Array]) -> float:
    """The largest between any two numbers of two answers; infinite where their form, a text or a
    NaN differs."""
    if list(some) != list(others):
        return np.inf
    return max((distance(some[name], others[name]) for name in some), default=0.0)


def distance(one: Array, other: Array) -> float:
    if one.shape != other.shape or one.dtype != other.dtype:
        return np.inf
    if one.dtype.kind not in "iufc":
        return 0.0 if np.array_equal(one, other) else np.inf
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):  # of two infinities, which are the same or infinitely apart
        apart = np.abs(one.astype(wide) - other.astype(wide))
    return float(np.where(same, 0.0, np.nan_to_num(apart, nan=np.inf)).max(initial=0.0))
