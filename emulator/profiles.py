"""Latency profiles: what lies between a client and an endpoint at AWS and not on this machine.

A profile is a TOML file with the source of each figure. Those of `emulator/profiles/` are known by
their names; anybody's own by its path.
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from emulator.core import MILLISECOND, Persona
from emulator.errors import SetupError

NONE = "none"
CONFIDENCES = ("sure", "likely", "derived", "unsure")
LONGEST_MS = 60_000.0
_P99 = 2.3263  # the normal's 99th percentile
_FOLDER = files("emulator") / "profiles"


@dataclass(frozen=True, slots=True)
class Figure:
    """A lognormal duration, and where it is from."""

    median_ns: float
    sigma: float
    source: str
    date: str
    confidence: str

    def draw_ns(self, stream: random.Random) -> int:
        return round(self.median_ns * math.exp(self.sigma * stream.gauss(0, 1)))


@dataclass(frozen=True, slots=True)
class Way:
    """What a request to one persona meets: `network` is in no metric, `overhead` is part of
    OverheadLatency."""

    network: Figure
    overhead: Figure


@dataclass(frozen=True, slots=True)
class Profile:
    """One file."""

    name: str
    ways: Mapping[Persona, Way]

    def latency(self, persona: Persona, seed: int, place: str) -> Latency | None:
        """The draws of the variant `place` ("endpoint/variant"), the same for the same seed."""
        way = self.ways.get(persona)
        return Latency(way, random.Random(f"{seed}/{place}/latency")) if way else None


class Latency:
    """What each request to one variant meets on its way, in nanoseconds."""

    def __init__(self, way: Way, stream: random.Random) -> None:
        self._way, self._stream = way, stream

    def draw(self) -> tuple[int, int]:
        """The network's part, and the service's."""
        return self._way.network.draw_ns(self._stream), self._way.overhead.draw_ns(self._stream)


def names() -> list[str]:
    """The profiles that come along."""
    there = (entry.name for entry in _FOLDER.iterdir())
    return sorted(name.removesuffix(".toml") for name in there if name.endswith(".toml"))


def load(wanted: str) -> Profile | None:
    """The profile of that name, or in that file; None for none. Raises SetupError."""
    if wanted == NONE:
        return None
    own = wanted.endswith(".toml") or "/" in wanted
    if not own and wanted not in names():
        raise SetupError(
            f"There is no latency profile {wanted!r}: set EMULATOR_PROFILE to none, one of "
            f"{', '.join(names())}, or the path of a .toml file."
        )
    place = Path(wanted).expanduser() if own else _FOLDER / f"{wanted}.toml"
    try:
        return parse(place.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise SetupError(f"The latency profile {wanted} cannot be read: {reason}.") from None
    except KeyError as missing:
        raise SetupError(f"The latency profile {wanted} lacks {missing}: add it.") from None
    except (ValueError, TypeError, AttributeError) as fault:
        raise SetupError(f"The latency profile {wanted} cannot be used: {fault}.") from None


def parse(text: str) -> Profile:
    """A profile from TOML. Raises ValueError, KeyError or TypeError for what is wrong in it."""
    document = tomllib.loads(text)
    ways = {
        persona: Way(
            _figure(document[persona.value]["network"], f"{persona.value}.network"),
            _figure(document[persona.value]["overhead"], f"{persona.value}.overhead"),
        )
        for persona in Persona
        if persona.value in document
    }
    if not ways:
        raise ValueError("it has neither a [realtime] nor a [serverless] part")
    return Profile(str(document["name"]), ways)


def _figure(given: Mapping[str, Any], title: str) -> Figure:
    median, p99 = float(given["median_ms"]), float(given["p99_ms"])
    if not 0 < median <= p99 <= LONGEST_MS:
        raise ValueError(
            f"{title} has a median of {median:g} ms and a p99 of {p99:g} ms; both are above 0, the "
            f"second is not below the first, and neither above {LONGEST_MS:g}"
        )
    if given["confidence"] not in CONFIDENCES:
        raise ValueError(f"the confidence {given['confidence']!r} is none of {CONFIDENCES}")
    sigma = math.log(p99 / median) / _P99
    source, date = str(given["source"]), str(given["date"])
    return Figure(median * MILLISECOND, sigma, source, date, given["confidence"])
