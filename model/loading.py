"""Models from disk into compiled functions. The only file that touches TensorFlow and Keras, and
it imports them inside its functions, so that importing this package stays cheap.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from model.messages import ModelLoadError, Refused
from model.signatures import DEFAULT_SIGNATURE, Array, Call, Servable, Signature, Tensor

BASE_NAME = "model"  # of what lies at the archive's root: the container unpacks to /opt/ml/model
INTRA_OP = "SAGEMAKER_TFS_INTRA_OP_PARALLELISM"
INTER_OP = "SAGEMAKER_TFS_INTER_OP_PARALLELISM"
SAFE_MODE = "LUKEWARM_KERAS_SAFE_MODE"  # on or off


def import_runtime() -> None:
    """Import TensorFlow, Keras and what loading a model imports lazily. Runs no operation and
    starts no thread pool, so that a process which called it can still fork. Cheap to repeat."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "keras" in sys.modules and "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Neither persona's instances have a GPU, and a forked process could not use an opened one.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with quiet_import():
        import keras
        import tensorflow as tf

        # Both are loaded on first use, which would otherwise be after the fork, every time.
        _ = (keras.models.load_model, tf.saved_model.load)


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keep what TensorFlow's C++ says before its log level is in force, unless the import fails.

    Level 3 does not silence it: it is written before the log is initialised.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def servables(model_dir: Path, variables: Mapping[str, str]) -> dict[str, Servable]:
    """The models of an unpacked archive by name, in the order found.

    Every SavedModel `<name>/<version>/saved_model.pb`, the highest version of each name, as
    TensorFlow Serving finds them; only if there is none, the `.keras` file at the top level, as
    the model "model". Raises ModelLoadError.
    """
    found = models(model_dir)
    set_threads(variables)
    safe = safe_mode(variables)
    return {
        name: Servable(name, version, signatures(path, safe))
        for name, (version, path) in found.items()
    }


def models(model_dir: Path) -> dict[str, tuple[int, Path]]:
    """Version and place of each model by name: SavedModel directories, or one `.keras` file.
    Raises ModelLoadError."""
    found = saved_models(model_dir)
    files = [] if found else sorted(model_dir.glob("*.keras"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ModelLoadError(f"The model has several .keras files ({names}); leave one.")
    if not files and not found:
        raise ModelLoadError(f"no SavedModel bundles found! {lacking(model_dir)}")
    return {BASE_NAME: (1, files[0])} if files else found


def lacking(model_dir: Path) -> str:
    """What a directory lacks in which nothing can be served, as a sentence."""
    for file in sorted(model_dir.rglob("saved_model.pb")):
        if file.parent == model_dir:
            return "The SavedModel lies at the top: put it into a directory that is called 1."
        place = file.parent.relative_to(model_dir)
        return (
            f"The SavedModel is in {place}, but the name of its directory has to be a number, its "
            f"version: rename {file.parent.name} to 1."
        )
    return (
        "The model has neither a <version>/saved_model.pb, with a number as version, nor a .keras "
        "file at the top level."
    )


def signatures(path: Path, safe: bool = True) -> dict[str, Signature]:
    """The signatures of the model at one of those places, by name. `safe` is Keras's safe mode.
    Raises ModelLoadError."""
    return from_keras(path, safe) if path.is_file() else from_saved_model(path)


def safe_mode(variables: Mapping[str, str]) -> bool:
    """Whether Keras files may not bring Python code along. Raises ModelLoadError."""
    asked = variables.get(SAFE_MODE, "on")
    if asked not in ("on", "off"):
        raise ModelLoadError(f"{SAFE_MODE} is {asked!r}; it is on or off.")
    return asked == "on"


def saved_models(model_dir: Path) -> dict[str, tuple[int, Path]]:
    """Version and directory of the SavedModels below `model_dir`, the highest of each name."""
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted(model_dir.rglob("saved_model.pb")):
        path = file.parent
        if path == model_dir or not (path.name.isascii() and path.name.isdecimal()):
            continue
        name = BASE_NAME if path.parent == model_dir else path.parent.name
        version = int(path.name)
        if name not in found or found[name][0] < version:
            found[name] = (version, path)
    return found


def set_threads(variables: Mapping[str, str]) -> None:
    """Hold TensorFlow to the container's settings of parallelism, where they are given."""
    import tensorflow as tf

    setters: dict[str, Callable[[int], None]] = {
        INTRA_OP: tf.config.threading.set_intra_op_parallelism_threads,
        INTER_OP: tf.config.threading.set_inter_op_parallelism_threads,
    }
    for name, setter in setters.items():
        count = threads(variables, name)
        if count is None:
            continue
        with suppress(RuntimeError):  # too late in a process that has already run an operation
            setter(count)


def threads(variables: Mapping[str, str], name: str = INTRA_OP) -> int | None:
    """The number of threads that the container's environment asks for. Raises ModelLoadError."""
    text = variables.get(name, "")
    if text and not text.isdecimal():
        raise ModelLoadError(f"{name} is {text!r}; it must be a whole number of threads.")
    return int(text) if text else None


def from_keras(file: Path, safe: bool = True) -> dict[str, Signature]:
    """The function of a Keras model, with the names that its SavedModel export would have."""
    import keras
    import tensorflow as tf

    try:
        model = keras.models.load_model(file, compile=False, safe_mode=safe)
    except Exception as fault:
        raise ModelLoadError(keras_fault(file, fault)) from fault
    if not getattr(model, "inputs", None):
        raise ModelLoadError(
            f"The inputs of {file.name} are unknown: it was saved before it was built, or a layer "
            "of it cannot be called here."  # which Keras keeps to itself
        )

    # Only a functional model has a structure of inputs; a sequential one takes its only tensor.
    structure = getattr(model, "_inputs_struct", model.inputs[0])

    def answer(*arguments: Any) -> Any:
        return named(model(keras.tree.pack_sequence_as(structure, arguments), training=False))

    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    function = tf.function(answer, autograph=False).get_concrete_function(*specs)
    names = [tensor.name for tensor in model.inputs]
    inputs = {spec.name: tensor_of(spec.name, spec) for spec in specs}

    def call(arrays: Mapping[str, Array]) -> Any:
        return function(*(tf.constant(arrays[name]) for name in names))

    compiler = Compiler(lambda tensors: function(*(tensors[name] for name in names)), specs, model)
    return {DEFAULT_SIGNATURE: Signature(inputs, guarded(call, model), compiler)}


class Compiler:
    """Makes the program of `function`, which takes the tensors of `specs` by name and gives tensors
    by name, for one size of batch. It keeps `owner` alive."""

    def __init__(self, function: Callable[[dict[str, Any]], Any], specs: Any, owner: Any) -> None:
        self.function, self.specs, self._owner = function, list(specs), owner

    def __call__(self, size: int) -> Call:
        """Compiled by XLA, which takes a tenth of a second to several. Raises whatever it does for
        what it cannot compile."""
        import tensorflow as tf

        names = [spec.name for spec in self.specs]
        specs = [tf.TensorSpec([size, *s.shape[1:]], s.dtype, name=s.name) for s in self.specs]

        def answer(*tensors: Any) -> Any:
            return self.function(dict(zip(names, tensors, strict=True)))

        traced = tf.function(answer, autograph=False, jit_compile=True)
        program = traced.get_concrete_function(*specs)

        def call(arrays: Mapping[str, Array]) -> Any:
            return program(*(tf.constant(arrays[name]) for name in names))

        return guarded(call, self._owner)


def keras_fault(file: Path, fault: Exception) -> str:
    text = " ".join(str(fault).split())
    if "safe_mode" in text or "unsafe" in text:
        return (
            f"{file.name} holds Python code (a Lambda layer), which Keras's safe mode does not "
            "run; use a layer class instead, serve the model as a SavedModel, or, if you trust it, "
            f"set {SAFE_MODE}=off among the variables of its container."
        )
    if unknown := re.search(r"Could not locate (class|function) '([^']*)'", text):
        return (
            f"{file.name} needs the {unknown[1]} {unknown[2]}, which Keras does not have; "
            "serve the model as a SavedModel, which carries its functions, or load it in "
            "code/inference.py with model_fn and custom_objects."
        )
    innermost = text.split("Exception encountered: ")[-1]  # of layers within models
    return f"{file.name} cannot be loaded by Keras: {innermost[:300]}"


def named(outputs: Any) -> dict[str, Any]:
    """Outputs by name as Keras's SavedModel export names them."""
    import keras

    if isinstance(outputs, dict) and all(isinstance(name, str) for name in outputs):
        return outputs
    return {f"output_{i}": value for i, value in enumerate(keras.tree.flatten(outputs))}


def from_saved_model(path: Path) -> dict[str, Signature]:
    """The signatures of a SavedModel. Without `serving_default` it is served all the same, as by
    TensorFlow Serving: its requests have to name one of the others. Raises ModelLoadError."""
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(path))
    except Exception as fault:
        text = " ".join(str(fault).split())
        raise ModelLoadError(f"The SavedModel {path} cannot be loaded: {text[:300]}") from fault
    if not model.signatures:
        raise ModelLoadError(
            f"The SavedModel {path} has no signature: export it with one that is called "
            f"{DEFAULT_SIGNATURE}."
        )
    return {name: signature_of(f, model) for name, f in model.signatures.items()}


def signature_of(function: Any, owner: Any) -> Signature:
    import tensorflow as tf

    specs: Mapping[str, Any] = function.structured_input_signature[1]

    def call(arrays: Mapping[str, Array]) -> Any:
        return function(**{name: tf.constant(array) for name, array in arrays.items()})

    inputs = {name: tensor_of(name, spec) for name, spec in specs.items()}
    named_specs = [tf.TensorSpec(spec.shape, spec.dtype, name=n) for n, spec in specs.items()]
    compiler = Compiler(lambda tensors: function(**tensors), named_specs, owner)
    return Signature(inputs, guarded(call, owner), compiler)


def tensor_of(name: str, spec: Any) -> Tensor:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return Tensor(name, np.dtype(spec.dtype.as_numpy_dtype), shape)


def guarded(
    call: Callable[[Mapping[str, Array]], Any], owner: Any
) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    """`call` with arrays for tensors and refusals for the runtime's errors. It keeps `owner`
    alive: a concrete function holds its variables only weakly."""
    import tensorflow as tf

    def guard(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            return {name: array_of(value.numpy()) for name, value in call(arrays).items()}
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as fault:
            raise Refused(400, fault.message) from None
        except tf.errors.OpError as fault:
            raise Refused(500, fault.message) from None

    guard.__dict__["owner"] = owner
    return guard


def array_of(value: Any) -> Array:
    """What a runtime gives for an output as an array that the rest of this package knows."""
    if isinstance(value, bytes):  # a string of rank 0
        return np.array(value, dtype=object)
    array = np.asarray(value)  # a number of rank 0 comes as NumPy's scalar
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16
