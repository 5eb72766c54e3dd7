"""SageMaker's service model, from botocore: what its operations take and answer.

Read when the control plane is first used, and only what is needed of it is kept: the model of all
of SageMaker is large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import regex
from botocore.loaders import Loader

from emulator.constraints import Flag, Instant, Many, Number, Pairs, Shape, Structure, Text

SERVICE = "sagemaker"
# These types take https and s3 in botocore's model. Models and data of this machine are the point
# of an emulator, so that for it file:// and absolute paths are as good.
WIDENED = dict.fromkeys(("Url", "S3Uri"), "(https|s3)://([^/]+)/?(.*)|file://.*|/.*")
_BITS = {"integer": 32, "long": 64, "float": 0, "double": 0}


@dataclass(frozen=True, slots=True)
class Service:
    """The names of all operations, and of those asked for what they take and answer."""

    operations: frozenset[str]
    requests: Mapping[str, Structure]
    answers: Mapping[str, tuple[str, ...]]


def load(operations: Iterable[str], service: str = SERVICE) -> Service:
    """Read the model; SageMaker's takes a tenth of a second."""
    model = Loader().load_service_model(service, "service-2")
    shapes = _Shapes(model["shapes"])
    requests, answers = {}, {}
    for name in operations:
        given = model["operations"][name]
        request = shapes.compiled(given["input"]["shape"])
        assert isinstance(request, Structure)
        requests[name] = request
        output = given.get("output")
        answers[name] = tuple(model["shapes"][output["shape"]]["members"]) if output else ()
    return Service(frozenset(model["operations"]), requests, answers)


class _Shapes:
    """Compiles the shapes of a model, each once."""

    def __init__(self, shapes: Mapping[str, Any]) -> None:
        self._shapes = shapes
        self._compiled: dict[str, Shape] = {}

    def compiled(self, name: str) -> Shape:
        if name not in self._compiled:
            given = self._shapes[name]
            if given["type"] == "structure":
                structure = self._compiled[name] = Structure()  # before its members: it may recur
                structure.required = tuple(given.get("required", ()))
                for member, shape in given["members"].items():
                    structure.members[member] = self.compiled(shape["shape"])
            else:
                self._compiled[name] = self._simple(name, given)
        return self._compiled[name]

    def _simple(self, name: str, given: Mapping[str, Any]) -> Shape:
        least, most = given.get("min"), given.get("max")
        match given["type"]:
            case "string":
                pattern = WIDENED.get(name) or given.get("pattern")
                compiled = regex.compile(pattern) if pattern else None
                return Text(least or None, most, compiled, tuple(given.get("enum", ())))
            case "integer" | "long" | "float" | "double" as kind:
                return Number(least, most, _BITS[kind])
            case "boolean":
                return Flag()
            case "timestamp":
                return Instant()
            case "list":
                return Many(self.compiled(given["member"]["shape"]), least or None, most)
            case "map":
                key = self.compiled(given["key"]["shape"])
                assert isinstance(key, Text)
                return Pairs(key, self.compiled(given["value"]["shape"]), least or None, most)
            case kind:
                raise TypeError(f"{name} is of the type {kind}, which no request has had so far")
