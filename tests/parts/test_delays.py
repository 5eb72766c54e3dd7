"""Modelled provisioning delays: seeded, and fitted to what was published."""

from __future__ import annotations

from statistics import median, quantiles

from emulator import profiles
from emulator.core import SECOND
from emulator.delays import Delays


def test_none_and_fixed() -> None:
    assert Delays("none", 0).draw_ns("v", 1) == 0
    assert Delays("2.5", 0).draw_ns("v", 1) == 5 * SECOND // 2


def test_a_profile_says_how_a_start_is_delayed() -> None:
    aws, paris = profiles.load("aws"), profiles.load("paris-2022")
    drawn = Delays("aws", 3).draw_ns("v", 1)
    assert Delays("profile", 3, aws).draw_ns("v", 1) == drawn
    assert Delays("profile", 3, paris).draw_ns("v", 1) == 0  # it says nothing of starts
    assert Delays("profile", 3).draw_ns("v", 1) == 0
    assert Delays("none", 3, aws).draw_ns("v", 1) == 0
    assert Delays("aws", 3, paris).draw_ns("v", 1) == drawn


def test_aws_draws_repeat_with_the_seed_and_differ_between_environments() -> None:
    draws = [Delays("aws", 3).draw_ns("v", number) for number in range(500)]
    assert draws == [Delays("aws", 3).draw_ns("v", number) for number in range(500)]
    assert len(set(draws)) == 500
    assert draws != [Delays("aws", 4).draw_ns("v", number) for number in range(500)]


def test_aws_draws_have_the_published_middle_and_spread() -> None:
    draws = [Delays("aws", 1).draw_ns("v", number) / SECOND for number in range(5000)]
    assert 5.8 < median(draws) < 6.2
    assert 9.7 < quantiles(draws, n=10)[-1] < 10.7
