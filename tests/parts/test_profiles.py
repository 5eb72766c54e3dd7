"""Latency profiles: read, refused, drawn from."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import median

import pytest

from emulator import profiles
from emulator.core import MILLISECOND, Persona
from emulator.errors import SetupError

PLACE = "endpoint/variant"


def test_draws_have_the_middle_and_the_spread_of_the_file() -> None:
    found = profiles.load("paris-2022")
    assert found is not None
    for persona, network_ms, overhead_ms, p99_ms in (
        (Persona.REALTIME, 3, 7.5, 11.5),
        (Persona.SERVERLESS, 3, 37, 56.5),
    ):
        latency, again, other = (found.latency(persona, seed, PLACE) for seed in (1, 1, 2))
        assert latency is not None
        assert again is not None
        assert other is not None
        draws = [latency.draw() for _ in range(5000)]
        assert draws == [again.draw() for _ in range(5000)]
        assert draws[0] != other.draw()
        network, overhead = (sorted(each) for each in zip(*draws, strict=True))
        assert median(network) / MILLISECOND == pytest.approx(network_ms, rel=0.02)
        assert median(overhead) / MILLISECOND == pytest.approx(overhead_ms, rel=0.02)
        assert overhead[4950] / MILLISECOND == pytest.approx(p99_ms, rel=0.05)


def test_none_is_none_and_one_part_may_be_missing(tmp_path: Path) -> None:
    assert profiles.load("none") is None
    text = (Path(profiles.__file__).parent / "profiles" / "paris-2022.toml").read_text()
    own = tmp_path / "own.toml"
    own.write_text(text[: text.index("[serverless.total]")])
    found = profiles.load(str(own))
    assert found is not None
    assert found.latency(Persona.REALTIME, 0, PLACE) is not None
    assert found.latency(Persona.SERVERLESS, 0, PLACE) is None


def test_a_draw_has_an_end() -> None:
    text = Path(profiles.__file__).parent.joinpath("profiles", "aws.toml").read_text()
    text = text.replace("6000", "3e6").replace("10200", "3.5e6")
    found = profiles.parse(text)
    assert found.cold_start is not None
    draws = [found.cold_start.draw_ns(random.Random(seed)) for seed in range(500)]
    assert max(draws) == 3_600_000 * MILLISECOND


def test_what_reaches_no_variant_comes_the_way_of_the_first_persona() -> None:
    paris, aws = profiles.load("paris-2022"), profiles.load("aws")
    assert paris is not None
    assert aws is not None
    refusals = paris.refusals(0)
    assert refusals is not None
    assert median(refusals.draw()[0] for _ in range(500)) == pytest.approx(3e6, rel=0.05)
    assert aws.refusals(0) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"none of the parts \[realtime\], \[serverless\] and \[cold_start\]"),
        ("[realtime]", "realtime lacks 'network'"),
        ("realtime = 3", "realtime is 3, not a table"),
        ("[realtme]", "it has 'realtme', where there are only name, region"),
        ("[cold_start]\nmedian_ms = 1\n", "cold_start lacks 'p99_ms'"),
        ("[cold_start]\nmedain_ms = 1\n", "cold_start has 'medain_ms'"),
        ("[cold_start]\nmedian_ms = 1\np90_ms = 2\np99_ms = 3\n", "has p90_ms and p99_ms"),
        ("[cold_start]\nmedian_ms = 1\np90_ms = 4e6\n", "neither above 3.6e.06"),
        ("[realtime", "cannot be used: "),
        (
            "[realtime.network]\nmedian_ms = 3\np99_ms = 2\n",
            "realtime.network has a median of 3 ms and a p99 of 2 ms",
        ),
        ("[realtime.network]\nmedian_ms = nan\np99_ms = 2\n", "a median of nan ms"),
        ("[realtime.network]\nmedian_ms = 1\np99_ms = 2\n", "realtime.network lacks 'source'"),
        (
            "[realtime.network]\nmedian_ms = 1\np99_ms = 2\nconfidence = 'maybe'\n"
            "source = 'x'\ndate = '2026'\n",
            "confidence 'maybe' is none of",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(SetupError, match=said):
        profiles.load(str(own))


def test_names_of_nothing() -> None:
    with pytest.raises(SetupError, match=r"'lyon'.* one of aws, paris-2022, or the path"):
        profiles.load("lyon")
    with pytest.raises(SetupError, match=r"nowhere\.toml cannot be read \(No such.*one of aws, "):
        profiles.load("nowhere.toml")
