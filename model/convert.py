"""Convert a model for LiteRT and hold it to TensorFlow: `python -m model.convert MODEL_DIR OUT`.

OUT becomes a directory with one `.tflite` file for each signature and `conversion.json`, which
says what they are or, in one sentence, why the model is refused: what LiteRT has no operation for,
or answers differently from TensorFlow, is left to TensorFlow.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from model import comparison, litert, loading
from model.content import digest
from model.messages import ModelLoadError, Refused
from model.signatures import Signature

LIMIT = 1e-4  # for the largest difference between any two numbers of both runtimes' answers


class NotConverted(Exception):
    """The model stays with TensorFlow: one sentence that says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert and print one sentence; 0, or 1 if the model is refused."""
    parser = argparse.ArgumentParser(prog="python -m model.convert", description=__doc__)
    parser.add_argument("model_dir", type=Path, help="an unpacked model archive")
    parser.add_argument("out", type=Path, help="the directory to write, replacing what was there")
    options = parser.parse_args(arguments)
    if not options.model_dir.is_dir():
        parser.error(f"{options.model_dir} is not a directory.")
    described = convert(options.model_dir, options.out)
    print(described["note"])
    return 0 if described["converted"] else 1


def convert(model_dir: Path, out: Path) -> dict[str, Any]:
    """Write `out`, as a whole or not at all, and return what `conversion.json` says."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        described = description(model_dir, part)
        text = orjson.dumps(described, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (part / litert.DESCRIPTION).write_bytes(text)
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return described


def description(model_dir: Path, target: Path) -> dict[str, Any]:
    """What is to be said of a model whose conversion is written into `target`."""
    described = {
        "content": digest(model_dir),
        "tensorflow": version("tensorflow"),
        "litert": version(litert.PACKAGE),
    }
    try:
        models = list(converted(model_dir, target))
    except (NotConverted, ModelLoadError) as refusal:
        for file in target.glob("*.tflite"):
            file.unlink()
        return described | {"converted": False, "note": str(refusal), "models": []}
    difference = max(each["difference"] for one in models for each in one["signatures"])
    note = (
        f"Converted by TensorFlow {described['tensorflow']}; LiteRT's answers differ by "
        f"{difference:.1e} at most."
    )
    return described | {"converted": True, "note": note, "models": models}


def converted(model_dir: Path, target: Path) -> Iterator[dict[str, Any]]:
    """The entry of each model, in the order found. Raises NotConverted and ModelLoadError."""
    loading.import_runtime()
    litert.import_runtime()
    for number, (name, (release, path)) in enumerate(loading.models(model_dir).items()):
        entries = [
            entry(f"The signature {each} of {name}", target / f"{number}-{index}", signature)
            | {"name": each}
            for index, (each, signature) in enumerate(loading.signatures(path).items())
        ]
        yield {"name": name, "version": release, "signatures": entries}


def entry(title: str, stem: Path, original: Signature) -> dict[str, Any]:
    """The entry of one signature, converted into a file of its own and compared."""
    inputs = original.inputs.values()
    if any(one.shape is None for one in inputs):
        raise NotConverted(f"{title} takes any number of axes, which LiteRT does not.")
    try:
        content, outputs = flatbuffer(original)
    except Exception as fault:  # the converter raises whatever it comes across
        raise NotConverted(f"{title} does not convert: {complaint(fault)}") from fault
    file = stem.with_suffix(".tflite")
    file.write_bytes(content)
    made: dict[str, Any] = {
        "file": file.name,
        "inputs": [{"name": i.name, "dtype": i.dtype.name, "shape": i.shape} for i in inputs],
        "outputs": outputs,
    }
    return made | {"difference": compared(title, original, litert.loaded(file.parent, made, 1))}


def flatbuffer(original: Signature) -> tuple[bytes, list[str]]:
    """The function as LiteRT reads it, in LiteRT's own operations alone since others need
    TensorFlow, and the names of its outputs. Raises whatever the converter does.

    Its weights are made constants first: left to the converter, those of some models come out
    uninitialised. Inputs and outputs are numbered, as names may have any characters.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    source = original.compiled
    assert isinstance(source, loading.Compiler)
    names, outputs = [spec.name for spec in source.specs], list[str]()

    def listed(*tensors: Any) -> list[Any]:
        answer = source.function(dict(zip(names, tensors, strict=True)))
        outputs[:] = answer
        return list(answer.values())

    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=litert.INPUT.format(index))
        for index, spec in enumerate(source.specs)
    ]
    function = tf.function(listed, autograph=False).get_concrete_function(*specs)
    constant = convert_to_constants.convert_variables_to_constants_v2(function)

    def numbered(*tensors: Any) -> dict[str, Any]:
        answer = tf.nest.flatten(constant(*tensors))
        return {litert.OUTPUT.format(index): tensor for index, tensor in enumerate(answer)}

    module = tf.Module()
    module.served = tf.function(numbered, input_signature=specs, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.served.get_concrete_function()], module
    )
    return converter.convert(), outputs


def complaint(fault: Exception) -> str:
    """What the converter's many lines come down to."""
    text = str(fault)
    if missing := re.search(r"(?:TF Select|Custom) ops: (\w+(?:, \w+)*)", text):
        return f"LiteRT has no {missing[1]}."
    if refused := re.search(r"'tf\.(\w+)' op (.+)", text):
        return f"its operation {refused[1]} {refused[2].rstrip('.')}."
    return " ".join(text.split())[:200] or type(fault).__name__


def compared(title: str, original: Signature, copy: Signature) -> float:
    """The largest difference over the samples that TensorFlow takes. Raises NotConverted."""
    largest, taken = 0.0, 0
    for arrays in comparison.samples(original):
        try:
            due = original.call(arrays)
        except Refused:
            continue  # not every model takes any numbers, or any length
        taken += 1
        try:
            largest = max(largest, comparison.difference(due, copy.call(arrays)))
        except Refused as refusal:
            raise NotConverted(f"{title} does not run in LiteRT: {refusal}") from None
        if largest > LIMIT:
            raise NotConverted(
                f"{title} answers differently in LiteRT: the largest difference is {largest:.2g}, "
                f"and {LIMIT:g} is allowed."
            )
    if not taken:
        raise NotConverted(f"{title} takes none of the samples to compare it with.")
    return largest


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # TensorFlow's threads make the interpreter's farewell slow and fragile
