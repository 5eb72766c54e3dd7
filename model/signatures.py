"""What a loaded model takes and gives, free of the runtime that loaded it. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Call = Callable[[Mapping[str, Array]], Mapping[str, Array]]

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input. `shape` starts with the batch axis and has None for a free axis; it is
    None as a whole where the model leaves it open. `dtype` is `object` for strings, of bytes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def zeros(self) -> Array:
        """One instance of zeros, or of empty strings; free axes have the length 1."""
        shape = [1 if size is None else size for size in self.shape or ()]
        return np.full(shape, b"" if self.dtype == object else 0, dtype=self.dtype)

    @property
    def rows(self) -> bool:
        """Whether its first axis is free, and so may be that of a batch."""
        return self.shape is not None and self.shape[:1] == (None,)


@dataclass(frozen=True, slots=True)
class Signature:
    """One function of a model: arrays by input name in, arrays by output name out.

    `call` raises Refused when the runtime rejects the values. `compiled`, where the runtime has a
    compiler, makes the same function for one size of batch only.
    """

    inputs: Mapping[str, Tensor]
    call: Call
    compiled: Callable[[int], Call] | None = None

    @property
    def only_input(self) -> Tensor | None:
        """The input, if there is just one: then a request need not name it."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 else None


@dataclass(frozen=True, slots=True)
class Servable:
    """A model under the name and version that TensorFlow Serving would give it."""

    name: str
    version: int
    signatures: Mapping[str, Signature]
