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
from statistics import NormalDist
from typing import Any

from emulator.core import MILLISECOND, Persona
from emulator.errors import SetupError
from emulator.provenance import Provenance

NONE = "none"
PERCENTILES = {"p90_ms": 0.90, "p95_ms": 0.95, "p99_ms": 0.99}  # one of these makes the spread
LONGEST_MS = 60_000.0  # of a call's parts, and of what is drawn: who hangs up is not noticed
LONGEST_START_MS = 3_600_000.0
_FOLDER = files("emulator") / "profiles"


@dataclass(frozen=True, slots=True)
class Figure:
    """A lognormal duration that is never above `longest_ns`, and where it is from."""

    median_ns: float
    sigma: float
    longest_ns: int
    provenance: Provenance

    def draw_ns(self, stream: random.Random) -> int:
        drawn = self.median_ns * math.exp(self.sigma * stream.gauss(0, 1))
        return min(round(drawn), self.longest_ns)


@dataclass(frozen=True, slots=True)
class Way:
    """What a request to one persona meets: `network` is in no metric, `overhead` is part of
    OverheadLatency. `total` is what a client saw in all, the model included: nothing waits for it,
    it is what the others were made from and are held to."""

    network: Figure
    overhead: Figure
    total: Figure | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One file. `cold_start` is the time in which a serverless endpoint finds a machine and an
    image, before a runtime starts."""

    name: str
    ways: Mapping[Persona, Way]
    cold_start: Figure | None = None

    def latency(self, persona: Persona, seed: int, place: str) -> Latency | None:
        """The draws of the variant `place` ("endpoint/variant"), the same for the same seed."""
        way = self.ways.get(persona)
        return Latency(way, random.Random(f"{seed}/{place}/latency")) if way else None

    def refusals(self, seed: int) -> Latency | None:
        """The draws of requests that reach no variant: they come the way of the first persona."""
        return self.latency(next(iter(self.ways)), seed, "") if self.ways else None


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
    way_out = f"EMULATOR_PROFILE is none, one of {', '.join(names())}, or the path of a .toml file"
    own = wanted.endswith(".toml") or "/" in wanted
    if not own and wanted not in names():
        raise SetupError(f"There is no latency profile {wanted!r}: {way_out}.")
    try:
        place = Path(wanted).expanduser() if own else _FOLDER / f"{wanted}.toml"
        return parse(place.read_text(encoding="utf-8"))
    except OSError as error:
        fault = f"cannot be read ({error.strerror or error})"
    except (ValueError, TypeError, RuntimeError) as error:
        fault = f"cannot be used: {error}"
    raise SetupError(f"The latency profile {wanted} {fault}; {way_out}.")


def parse(text: str) -> Profile:
    """A profile from TOML. Raises ValueError or TypeError for what is wrong in it."""
    document = tomllib.loads(text)
    _only(document, ("name", "region", "cold_start", *Persona), "it")
    ways = {one: _way(document[one], one) for one in Persona if one in document}
    cold_start = None
    if "cold_start" in document:
        cold_start = _figure(document["cold_start"], "cold_start", LONGEST_START_MS)
    if not ways and not cold_start:
        raise ValueError("it has none of the parts [realtime], [serverless] and [cold_start]")
    return Profile(str(_field(document, "name", "it")), ways, cold_start)


def _way(given: object, title: str) -> Way:
    parts = _only(given, ("network", "overhead", "total"), title)
    figures = {part: _figure(parts[part], f"{title}.{part}", LONGEST_MS) for part in parts}
    network, overhead = (_field(figures, part, title) for part in ("network", "overhead"))
    return Way(network, overhead, figures.get("total"))


def _figure(given: object, title: str, longest_ms: float) -> Figure:
    known = ("median_ms", *PERCENTILES, "source", "date", "confidence")
    block = _only(given, known, title)
    median, (key, spread) = float(_field(block, "median_ms", title)), _spread(block, title)
    if not 0 < median <= spread <= longest_ms:
        raise ValueError(
            f"{title} has a median of {median:g} ms and a {key.removesuffix('_ms')} of {spread:g} "
            "ms; both are above 0, the second is not below the first, and neither above "
            f"{longest_ms:g}"
        )
    sigma = math.log(spread / median) / NormalDist().inv_cdf(PERCENTILES[key])
    longest_ns = round(longest_ms * MILLISECOND)
    for key in ("source", "date", "confidence"):
        _field(block, key, title)
    return Figure(median * MILLISECOND, sigma, longest_ns, Provenance.of(block))


def _spread(block: Mapping[str, Any], title: str) -> tuple[str, float]:
    """Which percentile there is, and its milliseconds; a `total` may do without."""
    found = [key for key in PERCENTILES if key in block]
    if len(found) > 1:
        raise ValueError(f"{title} has {' and '.join(found)}, where one of them makes the spread")
    if not found and title.endswith(".total"):
        return "p99_ms", float(block["median_ms"])
    key = found[0] if found else "p99_ms"
    return key, float(_field(block, key, title))


def _field(block: Mapping[str, Any], key: str, title: str) -> Any:
    if key not in block:
        raise ValueError(f"{title} lacks {key!r}")
    return block[key]


def _only(given: object, known: tuple[str, ...], title: str) -> Mapping[str, Any]:
    """A table with no other keys than these: one that is misspelt would be without effect."""
    if not isinstance(given, dict):
        raise TypeError(f"{title} is {given!r}, not a table")
    for key in given:
        if key not in known:
            raise ValueError(f"{title} has {key!r}, where there are only {', '.join(known)}")
    return given
