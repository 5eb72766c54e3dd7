"""A query's values onto the inputs of a signature: which value is which input's. No I/O."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from model import tensors
from model.decoding import CSV, Arrays, Layout, Query, Rows
from model.messages import Refused, shortened
from model.signatures import Array, Signature, Tensor


def bound(query: Query, signature: Signature) -> dict[str, Array]:
    """The arrays to call the signature with, by input name. Raises Refused with status 400."""
    match query.values:
        case Rows(cells):
            return from_cells(cells, signature)
        case np.ndarray():
            only = only_input(signature, "an array without a name")
            return {only.name: tensors.from_array(query.values, only, "the body")}
        case Arrays(by_name):
            return from_arrays(by_name, signature)
        case _ if query.layout is Layout.ROWS:
            return from_instances(query, signature)
        case _:
            return from_columns(query, signature)


def from_instances(query: Query, signature: Signature) -> dict[str, Array]:
    """Row format: each instance is one input's value, or an object of all inputs' values."""
    instances, where = query.values, "'instances' list"
    if not isinstance(instances, list) or not instances:
        raise Refused(400, "'instances' must be a list with at least one element.")
    only = signature.only_input
    if only and not is_named(instances[0]):
        return {only.name: tensors.from_json(instances, only, where, query.booleans)}
    for index, instance in enumerate(instances):
        refuse_other_names(instance, signature, f"element: {index} of {where}")
    return {
        name: tensors.from_json([i[name] for i in instances], tensor, where, query.booleans)
        for name, tensor in signature.inputs.items()
    }


def from_columns(query: Query, signature: Signature) -> dict[str, Array]:
    """Column format: the one input's whole batch, or an object of all inputs' batches."""
    columns = query.values
    if signature.only_input and not is_named(columns):
        columns = {signature.only_input.name: columns}
    refuse_other_names(columns, signature, "'inputs'")
    return {
        name: tensors.from_json(columns[name], tensor, f"'inputs' {name}", query.booleans)
        for name, tensor in signature.inputs.items()
    }


def from_arrays(arrays: dict[str, Array], signature: Signature) -> dict[str, Array]:
    """A .npz file: by name, or its single array whatever its name if there is one input."""
    only = signature.only_input
    if only and len(arrays) == 1:
        arrays = {only.name: next(iter(arrays.values()))}
    refuse_other_names(arrays, signature, "the .npz file")
    return {
        name: tensors.from_array(arrays[name], tensor, name)
        for name, tensor in signature.inputs.items()
    }


def from_cells(cells: list[list[str]], signature: Signature) -> dict[str, Array]:
    """CSV: a row is an instance; a row of one column is a bare value, as in the container.

    A kindness that the container does not have: a flat row takes the shape of the input where
    the number of values fits, so a row of 784 numbers is an image of 28 by 28.
    """
    only = only_input(signature, "CSV")
    widths = {len(row) for row in cells}
    if len(widths) != 1:
        raise Refused(
            400, f"The CSV's rows have different lengths, {reprlib.repr(sorted(widths))}."
        )
    array = np.array([row[0] for row in cells] if widths == {1} else cells)
    array = tensors.unflattened(array, only)
    if only.dtype != object:
        array = cells_as_numbers(array, only)
    return {only.name: tensors.from_array(array, only, f"the {CSV} body")}


def cells_as_numbers(array: Array, tensor: Tensor) -> Array:
    try:
        numbers = array.astype(np.int64 if tensor.dtype.kind in "iu" else np.float64)
    except (ValueError, OverflowError) as fault:
        raise Refused(
            400,
            f"The CSV has a cell that is not a number, but {tensors.expected(tensor)}: "
            f"{shortened(fault)}.",
        ) from None
    if not np.isfinite(numbers).all():
        raise Refused(400, "The CSV has a number that is infinite or not a number.")
    return numbers != 0 if tensor.dtype == bool else numbers


def only_input(signature: Signature, what: str) -> Tensor:
    if signature.only_input is None:
        names = ", ".join(signature.inputs)
        raise Refused(400, f"The model has the inputs {names}, so {what} cannot be given to it.")
    return signature.only_input


def is_named(value: Any) -> bool:
    """Whether a JSON value names inputs: an object, unless it is a base64 value."""
    return isinstance(value, dict) and list(value) != ["b64"]


def refuse_other_names(value: Any, signature: Signature, where: str) -> None:
    if not isinstance(value, dict):
        names = ", ".join(signature.inputs)
        raise Refused(400, f"Failed to process {where}: an object with {names} is due.")
    for name in value:
        if name not in signature.inputs:
            raise Refused(400, f"Failed to process {where}. Error: no input is named {name!r}.")
    for name in signature.inputs:
        if name not in value:
            raise Refused(400, f"Failed to process {where}. Error: the input {name!r} is missing.")
