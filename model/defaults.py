"""What a container does where a script leaves a function out: bodies into arrays, a model called,
predictions into bodies. Works without NumPy, on lists then.

The rules are those of the public inference toolkit and the scikit-learn container: types are
compared exactly, and numbers out of text are float32.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable
from typing import Any

from model.messages import JSON

CSV, NPY = "text/csv", "application/x-npy"
TEXTS = (JSON, CSV)  # given to functions as text, everything else as bytes


class UnsupportedFormat(Exception):
    """A type that is not known here."""

    def __init__(self, content_type: str, known: tuple[str, ...], way_out: str) -> None:
        super().__init__(
            f"The type {content_type} is not supported: use {', '.join(known)}, "
            f"or define {way_out}."
        )


def arrays() -> Any | None:
    """NumPy, or None where the interpreter has none."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def decoded(body: Any, content_type: str) -> Any:
    """The body as an array, or as nested lists without NumPy. Raises UnsupportedFormat."""
    numpy = arrays()
    known = (*TEXTS, NPY) if numpy else TEXTS
    if content_type not in known:
        raise UnsupportedFormat(content_type, known, "input_fn")
    if numpy and content_type == NPY:
        return numpy.load(io.BytesIO(body), allow_pickle=False)
    values = json.loads(body) if content_type == JSON else _cells(body)
    return numpy.array(values).astype(numpy.float32) if numpy else values


def _cells(text: str) -> list[Any]:
    """The rows of a CSV; one row or one column is one list, as the container squeezes it."""
    rows = [list(map(float, row)) for row in csv.reader(io.StringIO(text), strict=True) if row]
    if len(rows) == 1:
        return rows[0]
    return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else rows


def predicted(data: Any, model: Any) -> Any:
    """`model.predict(data)`, or `model(data)` where it has no such method."""
    predict: Callable[[Any], Any] = getattr(model, "predict", model)
    if not callable(predict):
        raise NotImplementedError(
            f"The model is a {type(model).__name__}, which has no predict and cannot be called: "
            "define predict_fn."
        )
    return predict(data)


def encoded(prediction: Any, accept: str) -> str | bytes:
    """The prediction as a body of the type asked for. Raises UnsupportedFormat."""
    numpy = arrays()
    known = (*TEXTS, NPY) if numpy else TEXTS
    if accept not in known:
        raise UnsupportedFormat(accept, known, "output_fn")
    if accept == JSON:
        return json.dumps(prediction, default=_listed)
    if accept == CSV:
        return _lines(prediction)
    held = io.BytesIO()
    assert numpy is not None
    numpy.save(held, prediction, allow_pickle=False)
    return held.getvalue()


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"A {type(value).__name__} cannot be put into JSON: define output_fn.")


def _lines(prediction: Any) -> str:
    """A row a line; a flat list is one column."""
    rows = prediction if _several(prediction) else [prediction]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow(map(str, row if _several(row) else [row]))
    return out.getvalue()


def _several(value: Any) -> bool:
    dimensions: int | None = getattr(value, "ndim", None)
    return isinstance(value, list | tuple) if dimensions is None else dimensions > 0
