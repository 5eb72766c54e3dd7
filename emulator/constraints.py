"""A request held to the constraints of AWS's service model, with AWS's words for what breaks them.

Pure: shapes are compiled from botocore's model once (`service.py`) and checked by walking them.
Members that the model does not know are left out, as AWS ignores them; null is as good as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from emulator.errors import SerializationException, ValidationException

TOLD = 50  # violations in one message
SHOWN = 512  # characters of a value in a message
MATCHED = 8192  # a longer text is told by its length alone
INT32, INT64 = 1 << 31, 1 << 63
_NAMES = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE"}


@dataclass(frozen=True, slots=True)
class Text:
    """A string. `pattern` has to match all of it; AWS shows it with a `^` in front."""

    least: int | None = None
    most: int | None = None
    pattern: Any = None
    values: tuple[str, ...] = ()

    def read(self, value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise _unreadable(value, "a String")
        return value

    def broken(self, value: str, path: str) -> Iterator[str]:
        if self.values and value not in self.values:
            yield f"Member must satisfy enum value set: [{', '.join(self.values)}]"
        yield from _length(len(value), self.least, self.most)
        if self.pattern and len(value) <= MATCHED and not self.pattern.fullmatch(value):
            shown = self.pattern.pattern.removeprefix("^")
            yield f"Member must satisfy regular expression pattern: ^{shown}"


@dataclass(frozen=True, slots=True)
class Number:
    """An integer of `bits`, or with 0 bits a number."""

    least: float | None = None
    most: float | None = None
    bits: int = 32

    def read(self, value: Any, path: str) -> float:
        kind = "an Integer" if self.bits == 32 else "a Long" if self.bits else "a Float"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _unreadable(value, kind)
        if not self.bits:
            if not math.isfinite(value):
                raise _unreadable(value, kind)
            return value
        if value != int(value) or not -INT64 <= value < INT64:
            raise _unreadable(value, kind)
        if self.bits == 32 and not -INT32 <= value < INT32:
            raise _unreadable(value, kind)
        return int(value)

    def broken(self, value: float, path: str) -> Iterator[str]:
        if self.least is not None and value < self.least:
            yield f"Member must have value greater than or equal to {self.least:g}"
        if self.most is not None and value > self.most:
            yield f"Member must have value less than or equal to {self.most:g}"


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    def read(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool):
            raise _unreadable(value, "a Boolean")
        return value


@dataclass(frozen=True, slots=True)
class Instant:
    """A timestamp: seconds since 1970, or ISO 8601. Read as seconds."""

    def read(self, value: Any, path: str) -> float:
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                raise _unreadable(value, "a Timestamp") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _unreadable(value, "a Timestamp")
        return value


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    member: Shape
    least: int | None = None
    most: int | None = None

    def read(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _misplaced(value, "list")
        return [self.member.read(one, path) for one in value if one is not None]

    def broken(self, value: list[Any], path: str) -> Iterator[str]:
        yield from _length(len(value), self.least, self.most)

    def inner(self, value: list[Any], path: str) -> Iterator[tuple[Shape, Any, str]]:
        for number, one in enumerate(value, 1):
            yield self.member, one, f"{path}.{number}.member"


@dataclass(frozen=True, slots=True)
class Pairs:
    """A map of strings."""

    key: Text
    value: Shape
    least: int | None = None
    most: int | None = None

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _misplaced(value, "map")
        return {key: self.value.read(one, path) for key, one in value.items() if one is not None}

    def broken(self, value: Mapping[str, Any], path: str) -> Iterator[str]:
        yield from _length(len(value), self.least, self.most)

    def inner(self, value: Mapping[str, Any], path: str) -> Iterator[tuple[Shape, Any, str]]:
        for key, one in value.items():
            yield self.key, key, f"{path}.key"
            yield self.value, one, f"{path}.value"


@dataclass(slots=True)
class Structure:
    """A structure: its members, and which of them have to be there."""

    members: dict[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _misplaced(value, "structure")
        return {
            name: self.members[name].read(one, name)
            for name, one in value.items()
            if one is not None and name in self.members
        }

    def inner(self, value: Mapping[str, Any], path: str) -> Iterator[tuple[Shape, Any, str]]:
        for name, one in value.items():
            yield self.members[name], one, _below(path, name)


Shape = Text | Number | Flag | Instant | Many | Pairs | Structure


def checked(shape: Structure, value: Any) -> dict[str, Any]:
    """The members of a request that the model knows, as what they are.

    Raises SerializationException for a value of another type, ValidationException, which names
    every constraint that is broken, for a value that may not be.
    """
    read = shape.read(value, "")
    broken = list(islice(_violations(shape, read, ""), TOLD))
    if broken:
        number = f"{len(broken)} validation error{'' if len(broken) == 1 else 's'} detected: "
        raise ValidationException(number + "; ".join(broken))
    return read


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(shape, Structure):
        for name in shape.required:
            if name not in value:
                yield _violation("null", _below(path, name), "Member must not be null")
    elif not isinstance(shape, Flag | Instant):
        for constraint in shape.broken(value, path):
            yield _violation(f"'{_shown(value)}'", path, constraint)
    if isinstance(shape, Structure | Many | Pairs):
        for inner, one, where in shape.inner(value, path):
            yield from _violations(inner, one, where)


def _violation(value: str, path: str, constraint: str) -> str:
    return f"Value {value} at '{path}' failed to satisfy constraint: {constraint}"


def _below(path: str, name: str) -> str:
    """AWS writes members with a small first letter."""
    member = name[:1].lower() + name[1:]
    return f"{path}.{member}" if path else member


def _length(length: int, least: int | None, most: int | None) -> Iterator[str]:
    if least is not None and length < least:
        yield f"Member must have length greater than or equal to {least}"
    if most is not None and length > most:
        yield f"Member must have length less than or equal to {most}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        text = f"[{', '.join(_shown(one) for one in value[:50])}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}={_shown(one)}' for key, one in value.items())}}}"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _unreadable(value: Any, wanted: str) -> SerializationException:
    if isinstance(value, bool):
        name = "TRUE_VALUE" if value else "FALSE_VALUE"
    elif isinstance(value, list):
        return SerializationException("Unexpected list: expected " + wanted + ".")
    elif isinstance(value, dict):
        return SerializationException("Start of structure or map found where not expected.")
    else:
        name = _NAMES.get(type(value), "VALUE")
    return SerializationException(f"{name} can not be converted to {wanted}")


def _misplaced(value: Any, wanted: str) -> SerializationException:
    if isinstance(value, dict):
        return SerializationException("Start of structure or map found where not expected.")
    if isinstance(value, list):
        return SerializationException("Start of list found where not expected.")
    return SerializationException(f"Unexpected value: expected a {wanted}.")
