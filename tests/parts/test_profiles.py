"""Latency profiles: read, refused, drawn from."""

from __future__ import annotations

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
        (Persona.REALTIME, 3, 8.5, 13),
        (Persona.SERVERLESS, 3, 38, 58),
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
    own.write_text(text[: text.index("[serverless.network]")])
    found = profiles.load(str(own))
    assert found is not None
    assert found.latency(Persona.REALTIME, 0, PLACE) is not None
    assert found.latency(Persona.SERVERLESS, 0, PLACE) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a .realtime. nor a .serverless. part"),
        ("[realtime]", "lacks 'network': add it"),
        ("[realtime", "cannot be used: "),
        (
            "[realtime.network]\nmedian_ms = 3\np99_ms = 2\n",
            "realtime.network has a median of 3 ms and a p99 of 2 ms",
        ),
        ("[realtime.network]\nmedian_ms = nan\np99_ms = 2\n", "a median of nan ms"),
        ("[realtime.network]\nmedian_ms = 1\np99_ms = 2\n", "lacks 'confidence': add it"),
        (
            "[realtime.network]\nmedian_ms = 1\np99_ms = 2\nconfidence = 'maybe'\n",
            "the confidence 'maybe' is none of",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(SetupError, match=said):
        profiles.load(str(own))


def test_names_of_nothing() -> None:
    with pytest.raises(SetupError, match=r"'lyon'.* one of paris-2022, or the path"):
        profiles.load("lyon")
    with pytest.raises(SetupError, match=r"nowhere\.toml cannot be read: No such file"):
        profiles.load("nowhere.toml")
