"""Metric math: arithmetic over series, and what is refused."""

from __future__ import annotations

import pytest

from emulator.expressions import NotUnderstood, evaluate

A = {0: 1.0, 60: 2.0, 120: 3.0}
B = {60: 10.0, 120: 0.0}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a", A),
        ("a + 1", {0: 2, 60: 3, 120: 4}),
        ("-a * 2 ^ 3", {0: -8, 60: -16, 120: -24}),
        ("100 * (a - b)", {60: -800, 120: 300}),
        ("a / b", {60: 0.2}),  # a division by zero has no value
        ("SUM([a, b])", {0: 1, 60: 12, 120: 3}),
        ("AVG(METRICS())", {0: 1, 60: 6, 120: 1.5}),
        ("MAX(a)", {0: 3, 60: 3, 120: 3}),
        ("FILL(b, 0) + a", {0: 1, 60: 12, 120: 3}),
        ("ABS(a - 2)", {0: 1, 60: 0, 120: 1}),
    ],
)
def test_values(expression: str, expected: dict[int, float]) -> None:
    assert evaluate(expression, {"a": A, "b": B}) == pytest.approx(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "c",
        "a +",
        "__import__('os')",
        "a.real",
        "RATE(a)",
        "[a]",
        "'a'",
        "(" * 500 + "a" + ")" * 500,
        "a" * 3000,
        "lambda: a",
    ],
)
def test_what_is_no_expression_of_metrics_is_refused(expression: str) -> None:
    with pytest.raises(NotUnderstood):
        evaluate(expression, {"a": A})


def test_large_powers_have_no_value() -> None:
    assert evaluate("a ^ 9999 ^ 9", {"a": {0: 10.0}}) == {}
