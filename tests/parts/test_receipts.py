"""Bills as tests ask for them: what a failed assertion shows, word for word."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from emulator.receipts import complaint, receipt


def line(usage_type: str, quantity: str, unit: str, price: str | None, amount: str | None) -> Any:
    priced = {"price": price, "amount": amount, "note": ""}
    return {"usage_type": usage_type, "quantity": quantity, "unit": unit, **priced}


def entry(name: str, total: str, *lines: Any, **counted: int) -> dict[str, Any]:
    nothing = {"invocations": 0, "cold_starts": 0, "throttles": 0, "errors": 0}
    return {"name": name, "total": total, "lines": list(lines), **nothing, **counted}


DURATION = line("EUW3-ServerlessInf:Mem-4GB", "15", "Seconds", "0.0000800", "0.0012")
DATA = line("EUW3-Hst:Data-Bytes-In", "0.001", "GB", "0.016", "0.000016")
HOURS = line("EUW3-Host:ml.t2.medium", "2", "Hrs", "0.063", "0.126")
UNKNOWN = line("EUW3-Host:ml.unknown", "2", "Hrs", None, None)
BILL = {
    "currency": "USD",
    "endpoints": [
        entry("own", "0.001216", DURATION, DATA, invocations=12, cold_starts=1, throttles=2),
        entry("other", "0.126", HOURS, invocations=1),
        entry("odd", "0", UNKNOWN),
        entry("idle", "0"),
    ],
    "training_jobs": [{"name": "own", "total": "1.5", "lines": []}],
}


def test_a_bill_that_is_too_high_is_shown_with_its_sum() -> None:
    assert complaint(receipt(BILL, "own"), "0.001", None) == (
        "own cost 0.001216 USD, which is 0.000216 more than 0.001.\n"
        "  EUW3-ServerlessInf:Mem-4GB  15 Seconds x 0.0000800 = 0.0012\n"
        "  EUW3-Hst:Data-Bytes-In      0.001 GB x 0.016 = 0.000016\n"
        "  total                       0.001216 USD\n"
        "  12 calls, 1 cold start, 2 throttles, 0 errors"
    )


def test_a_bill_that_is_too_low() -> None:
    assert complaint(receipt(BILL, "other"), None, 1) == (
        "other cost 0.126 USD, which is 0.874 less than 1.\n"
        "  EUW3-Host:ml.t2.medium  2 Hrs x 0.063 = 0.126\n"
        "  total                   0.126 USD\n"
        "  1 call, 0 cold starts, 0 throttles, 0 errors"
    )


def test_what_has_no_price_does_not_pass_for_free() -> None:
    found = receipt(BILL, "odd")
    assert not found.complete
    assert complaint(found, "5", None) == (
        "odd cost 0 USD and what has no price, which may be more than 5.\n"
        "  EUW3-Host:ml.unknown  2 Hrs has no price\n"
        "  total                 0 USD\n"
        "  0 calls, 0 cold starts, 0 throttles, 0 errors"
    )


def test_within_its_bounds_nothing_is_said() -> None:
    assert complaint(receipt(BILL, "own"), "0.001216", Decimal("0.001216")) == ""
    assert complaint(receipt(BILL, "idle"), 0, 0) == ""


def test_the_whole_bill_has_training_jobs_too() -> None:
    found = receipt(BILL)
    assert found.total == Decimal("1.627216")
    assert found.invocations == 13
    assert complaint(found, 1, None).startswith("Everything cost 1.627216 USD, which is 0.627216")


def test_the_same_name_in_two_regions_is_one_bill() -> None:
    found = receipt({**BILL, "endpoints": [BILL["endpoints"][1]] * 2}, "other")
    assert (found.total, len(found.lines)) == (Decimal("0.252"), 2)


def test_an_endpoint_that_is_not_on_the_bill() -> None:
    with pytest.raises(LookupError, match="no endpoint nobody on the bill: it has idle, odd, ot"):
        receipt(BILL, "nobody")


def test_what_cannot_be_asked() -> None:
    with pytest.raises(TypeError, match=r'at_most is 1e-05, a float: .* as a text, "0\.00001"'):
        complaint(receipt(BILL), 0.00001, None)  # type: ignore[arg-type]
    for amount in ("cheap", "NaN", "Infinity"):
        with pytest.raises(ValueError, match=f"at_least is '{amount}'; expected an amount such"):
            complaint(receipt(BILL), None, amount)
    with pytest.raises(ValueError, match="Say what it may cost"):
        complaint(receipt(BILL), None, None)
