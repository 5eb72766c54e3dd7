"""Converted models from disk into functions, run by LiteRT. Neither this file nor what it imports
needs TensorFlow or Keras; LiteRT itself is imported inside functions.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from model.loading import array_of, quiet_import, threads
from model.messages import ModelLoadError, Refused
from model.signatures import Array, Servable, Signature, Tensor

DESCRIPTION = "conversion.json"
PACKAGE = "ai-edge-litert"
INPUT, OUTPUT = "input_{}", "output_{}"  # what a `.tflite` file calls the inputs and outputs


def import_runtime() -> None:
    """Import LiteRT, which starts no thread. Cheap to repeat. Raises ModelLoadError."""
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as fault:
        raise ModelLoadError(
            f"LiteRT cannot be imported ({fault}): install the package {PACKAGE}, or choose the "
            "runtime tensorflow."
        ) from fault


def servables(conversion: Path, variables: Mapping[str, str]) -> dict[str, Servable]:
    """The models in the directory that `model.convert` wrote, by name, in the order found.

    SAGEMAKER_TFS_INTRA_OP_PARALLELISM among `variables` is the number of threads of a call; one if
    it is not given. Raises ModelLoadError.
    """
    count = threads(variables) or 1
    try:
        described = orjson.loads((conversion / DESCRIPTION).read_bytes())
        return {
            one["name"]: Servable(
                one["name"],
                one["version"],
                {each["name"]: loaded(conversion, each, count) for each in one["signatures"]},
            )
            for one in described["models"]
        }
    except (OSError, ValueError, KeyError) as fault:
        raise ModelLoadError(f"The conversion {conversion} cannot be loaded: {fault}.") from fault


def loaded(conversion: Path, described: Mapping[str, Any], count: int) -> Signature:
    """One signature as its entry of the description tells it."""
    inputs = {one["name"]: tensor(one) for one in described["inputs"]}
    program = Program(conversion / described["file"], list(inputs), described["outputs"], count)
    return Signature(inputs, program)


def tensor(described: Mapping[str, Any]) -> Tensor:
    return Tensor(described["name"], np.dtype(described["dtype"]), tuple(described["shape"]))


class Program:
    """One converted function. Threads that call it at once take turns: a user's handler may post
    to the loopback port from several."""

    def __init__(
        self, file: Path, inputs: Sequence[str], outputs: Sequence[str], count: int
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(file), num_threads=count)
        taken, given = tensors(self._interpreter)
        details = [taken[INPUT.format(index)] for index, _ in enumerate(inputs)]
        self._inputs = [(name, one["index"]) for name, one in zip(inputs, details, strict=True)]
        self._outputs = [
            (name, given[OUTPUT.format(index)]["index"]) for index, name in enumerate(outputs)
        ]
        self._shapes: list[tuple[int, ...]] | None = None
        self._turn = threading.Lock()
        # Which delegate is made is written to stderr; axes of 1 need not suit the model.
        with quiet_import(), suppress(RuntimeError):
            self._resize([tuple(one["shape"]) for one in details])

    def __call__(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs, as arrays of their own. Raises Refused with LiteRT's words."""
        with self._turn:
            try:
                return self._run(arrays)
            except (RuntimeError, ValueError) as fault:
                self._shapes = None  # an allocation that was refused leaves nothing to run on
                raise Refused(400, " ".join(str(fault).split())) from None

    def _run(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        interpreter = self._interpreter
        shapes = [arrays[name].shape for name, _ in self._inputs]
        if shapes != self._shapes:
            self._resize(shapes)
        for name, index in self._inputs:
            interpreter.set_tensor(index, arrays[name])
        interpreter.invoke()
        return {name: array_of(interpreter.get_tensor(index)) for name, index in self._outputs}

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        """Make room for batches of another size: 4 us, against the 6 us of a call."""
        for (_, index), shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def tensors(interpreter: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What is known of the inputs and outputs of the only signature, by name. The runner that
    tells it is let go, as nothing can be resized while one is there."""
    (name,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(name)
    return runner.get_input_details(), runner.get_output_details()
