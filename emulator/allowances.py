"""How a month's use of an account falls to what is free and to the tiers of a price. Pure.

Usage counts in the order of days, and within a day alike: all that is used on the day on which a
bound is crossed has the same share beyond it. So the share of a day does not depend on the period
that a bill covers, bills of adjoining periods add up, and using more never costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from emulator.billing import UsageKind


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an account may use for nothing in a calendar month: `quantity` base units of a kind,
    of any of `skus`, or of all if there are none."""

    kind: UsageKind
    skus: frozenset[str]
    quantity: int

    def covers(self, kind: UsageKind, sku: str) -> bool:
        return kind is self.kind and (not self.skus or sku in self.skus)


def free_shares(used: Sequence[int], most: int) -> list[Fraction]:
    """The share of each day's usage that is within the first `most` of the month."""
    shares, left = [], most
    for quantity in used:
        taken = min(left, quantity)
        left -= taken
        shares.append(Fraction(taken, quantity) if quantity else Fraction(left > 0))
    return shares


def tier_shares(
    paid: Sequence[Fraction], bounds: Sequence[Sequence[Fraction]]
) -> list[tuple[Fraction, ...]]:
    """The shares of each day's usage that are below the first bound, between it and the next, and
    so on, where a day's bounds count from the beginning of the month."""
    shares, before = [], Fraction(0)
    for quantity, limits in zip(paid, bounds, strict=True):
        after = before + quantity
        edges = [before, *(min(max(limit, before), after) for limit in limits), after]
        parts = [high - low for low, high in pairwise(edges)]
        whole = (Fraction(1),) + (Fraction(0),) * len(limits)
        shares.append(tuple(part / quantity for part in parts) if quantity else whole)
        before = after
    return shares
