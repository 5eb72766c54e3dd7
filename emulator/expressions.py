"""Metric math: arithmetic over metrics that other queries of a request gave. Pure.

A series is a mapping from instants to values. Operators work instant by instant, where both sides
have a value; so do AVG, SUM, MIN and MAX of a list, which of a single series give one number.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

Series = Mapping[int, float]
Value = Series | float
MOST = 2000  # characters, as CloudWatch has it

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FOLDS: dict[str, Callable[[Sequence[float]], float]] = {
    "AVG": fmean,
    "MAX": max,
    "MIN": min,
    "SUM": sum,
}


class NotUnderstood(ValueError):
    """An expression that is not one of these; the text says which part."""


def evaluate(expression: str, known: Mapping[str, Series]) -> Series:
    """The series that an expression makes of `known` ones, by their ids.

    Raises NotUnderstood. A division by zero leaves its instant out, as CloudWatch does.
    """
    if len(expression) > MOST:
        raise NotUnderstood(f"it has more than {MOST} characters")
    try:
        tree = ast.parse(expression.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise NotUnderstood(f"{expression!r} is not an expression") from None
    try:
        value = _value(tree.body, known)
    except RecursionError:
        raise NotUnderstood("it is nested too deeply") from None
    if isinstance(value, Mapping):
        return value
    return {instant: value for series in known.values() for instant in series}


def _value(node: ast.expr, known: Mapping[str, Series]) -> Value:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _combined(operator.mul, -1.0, _value(node.operand, known))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        combine = _OPERATORS[type(node.op)]
        return _combined(combine, _value(node.left, known), _value(node.right, known))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _called(node.func.id, node.args, known)
    raise NotUnderstood(f"{ast.unparse(node)!r} is no metric of this request and no known function")


def _called(name: str, given: Sequence[ast.expr], known: Mapping[str, Series]) -> Value:
    if name in _FOLDS and len(given) == 1:
        return _folded(_FOLDS[name], given[0], known)
    if name == "FILL" and len(given) == 2:
        series, filler = (_value(one, known) for one in given)
        if isinstance(series, Mapping) and isinstance(filler, float):
            instants = {instant for one in known.values() for instant in one}
            return {instant: series.get(instant, filler) for instant in sorted(instants)}
    if name == "ABS" and len(given) == 1:
        return _combined(lambda _, value: abs(value), 0.0, _value(given[0], known))
    raise NotUnderstood(f"{name} with {len(given)} arguments is not supported")


def _folded(
    fold: Callable[[Sequence[float]], float], given: ast.expr, known: Mapping[str, Series]
) -> Value:
    if isinstance(given, ast.List):
        several = [_value(one, known) for one in given.elts]
    elif ast.unparse(given) == "METRICS()":
        several = list(known.values())
    else:
        single = _value(given, known)
        if not isinstance(single, Mapping):
            return single
        return fold(list(single.values())) if single else {}
    series = [one for one in several if isinstance(one, Mapping)]
    instants = sorted({instant for one in series for instant in one})
    return {at: fold([one[at] for one in series if at in one]) for at in instants}


def _combined(combine: Callable[[float, float], float], left: Value, right: Value) -> Value:
    def safely(one: float, other: float) -> float | None:
        try:
            result = combine(one, other)
        except (ZeroDivisionError, OverflowError):
            return None
        return result if isinstance(result, int | float) else None  # a root of a negative number

    if isinstance(left, Mapping):
        pairs = {
            at: (value, right[at] if isinstance(right, Mapping) else right)
            for at, value in left.items()
            if not isinstance(right, Mapping) or at in right
        }
    elif isinstance(right, Mapping):
        pairs = {at: (left, value) for at, value in right.items()}
    else:
        return safely(left, right) or 0.0
    made = {at: safely(*pair) for at, pair in pairs.items()}
    return {at: value for at, value in made.items() if value is not None}
