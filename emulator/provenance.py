"""Where a figure that was not measured here comes from. Every file of figures says so for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONFIDENCES = ("sure", "likely", "derived", "unsure")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The source of a figure, when it was taken there, and how sure it is (of CONFIDENCES)."""

    source: str
    date: str
    confidence: str

    @classmethod
    def of(cls, block: Mapping[str, Any]) -> Provenance:
        """That of a table in a TOML file. Raises KeyError or ValueError where it lacks."""
        if block["confidence"] not in CONFIDENCES:
            raise ValueError(f"confidence {block['confidence']!r} is none of {CONFIDENCES}")
        for field in ("source", "date"):
            if not isinstance(block[field], str) or not block[field].strip():
                raise ValueError(f"the {field} of a figure is {block[field]!r}, not a text")
        return cls(block["source"], block["date"], block["confidence"])
