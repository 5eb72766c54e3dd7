"""Every constraint of the service model on what the control plane takes, one value inside and one
outside, sent to a real server. Botocore's model is read here once more, by its own classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import regex
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from emulator.control import OPERATIONS
from tests.aws import scope_of
from tests.servers import Server

MODEL = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
DETECTED = " validation error"
REGION = "ap-northeast-3"  # nobody else's

# Texts for the model's patterns, made longer at the star, or at the end: the first that fits
# pattern and lengths is taken.
SAMPLES = (
    "a",
    "s3://bucket/key",
    "s3://b/key",  # this pattern has buckets of one letter, and botocore's does not mind
    "arn:aws:iam::123456789012:role/name",
    "arn:aws:sns:eu-west-3:123456789012:topic",
    "arn:aws:sagemaker:eu-west-3:123456789012:model/none",
    "arn:aws:sagemaker:eu-west-3:123456789012:ml-reservation/x",
    "arn:aws*:sagemaker:eu-west-3:123456789012:p/n",
    "mig-1g.5gb+a",
    "text/csv",
    "/metrics",
)
NEVER = "\t \n"  # which hardly any pattern takes


class Case(NamedTuple):
    """One constraint of one member: where it is, a value inside, one outside, what is said."""

    operation: str
    path: tuple[str, ...]
    inside: Any
    outside: Any
    said: str

    def __str__(self) -> str:
        return f"{self.operation}.{'.'.join(self.path)}: {self.said[:60]}"


def sample(shape: Shape, length: int = 0) -> Any:
    """A value that keeps every constraint; a text or list of that length if it is given."""
    match shape.type_name:
        case "structure":
            assert isinstance(shape, StructureShape)
            return {name: sample(shape.members[name]) for name in shape.required_members}
        case "list":
            assert isinstance(shape, ListShape)
            return [sample(shape.member)] * max(length, shape.metadata.get("min", 1) or 1)
        case "map":
            assert isinstance(shape, MapShape)
            return {f"a{n}": sample(shape.value) for n in range(max(length, 1))}
        case "string":
            return text(shape, length)
        case "boolean":
            return True
        case "timestamp":
            return 0
        case _:
            return max(1, shape.metadata.get("min", 1))


def text(shape: Shape, length: int = 0) -> str:
    if enum := getattr(shape, "enum", None):
        return str(enum[0])
    pattern = regex.compile(shape.metadata.get("pattern", ".*"))
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 1 << 20)
    if length > most:  # breaks the pattern, too, where that bounds the length
        return "a" * length
    for one in SAMPLES:
        begin, _, end = one.partition("*")
        longer = begin + "a" * (max(length, least) - len(begin + end)) + end
        if pattern.fullmatch(longer) and least <= len(longer) <= most:
            return str(longer)
    raise AssertionError(f"no sample fits {shape.name}: add one")


def cases() -> Iterator[Case]:
    for operation in OPERATIONS:
        shape = MODEL.operation_model(operation).input_shape
        assert isinstance(shape, StructureShape)
        yield from members(operation, shape, ())


def members(operation: str, shape: StructureShape, path: tuple[str, ...]) -> Iterator[Case]:
    for name, member in shape.members.items():
        here = (*path, name)
        if name in shape.required_members:
            yield Case(operation, here, sample(member), None, "Member must not be null")
        yield from constraints(operation, member, here)


def constraints(operation: str, shape: Shape, path: tuple[str, ...]) -> Iterator[Case]:
    if isinstance(shape, StructureShape):
        yield from members(operation, shape, path)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from numbers(operation, shape, path)
    elif shape.type_name in ("string", "list", "map"):
        yield from lengths(operation, shape, path)
    if isinstance(shape, ListShape):
        yield from constraints(operation, shape.member, (*path, "[]"))
    if isinstance(shape, MapShape):
        yield from constraints(operation, shape.key, (*path, "{key}"))
        yield from constraints(operation, shape.value, (*path, "{value}"))


def numbers(operation: str, shape: Shape, path: tuple[str, ...]) -> Iterator[Case]:
    for bound, step, word in (("min", -1, "greater"), ("max", 1, "less")):
        if bound in shape.metadata:
            edge = shape.metadata[bound]
            said = f"Member must have value {word} than or equal to {edge}"
            yield Case(operation, path, edge, edge + step, said)


def lengths(operation: str, shape: Shape, path: tuple[str, ...]) -> Iterator[Case]:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
    if least:
        said = f"Member must have length greater than or equal to {least}"
        inside = sample(shape, least)
        yield Case(operation, path, inside, inside[: least - 1], said)
    if most is not None:
        said = f"Member must have length less than or equal to {most}"
        yield Case(operation, path, sample(shape, most), sample(shape, most + 1), said)
    if enum := getattr(shape, "enum", None):
        said = f"Member must satisfy enum value set: [{', '.join(enum)}]"
        yield Case(operation, path, enum[-1], "Nonsense", said)
    pattern = shape.metadata.get("pattern")
    if pattern and not regex.fullmatch(pattern, NEVER):
        said = "Member must satisfy regular expression pattern: ^"
        yield Case(operation, path, sample(shape), NEVER, said)


def placed(shape: Shape, path: tuple[str, ...], value: Any) -> Any:
    """A sample of the shape with the value at the path; None takes a member away."""
    step, rest = path[0], path[1:]
    if step == "[]":
        assert isinstance(shape, ListShape)
        one = placed(shape.member, rest, value) if rest else value
        return [one] * max(1, shape.metadata.get("min", 1) or 1)
    if step == "{key}":
        assert isinstance(shape, MapShape)
        return {value: sample(shape.value)}
    if step == "{value}":
        return {"a": value}
    assert isinstance(shape, StructureShape)
    made = sample(shape)
    made[step] = placed(shape.members[step], rest, value) if rest else value
    return {name: one for name, one in made.items() if one is not None}


def spelt(path: tuple[str, ...]) -> str:
    """The path as AWS spells it."""
    steps: list[str] = []
    for step in path:
        known = {"[]": ("1", "member"), "{key}": ("key",), "{value}": ("value",)}
        steps += known.get(step, (step[0].lower() + step[1:],))
    return ".".join(steps)


def said(server: Server, case: Case, value: Any) -> str:
    """What the server says to a request with the value there; empty if it takes it."""
    shape = MODEL.operation_model(case.operation).input_shape
    answer = server.client.post(
        "/",
        content=json.dumps(placed(shape, case.path, value)),
        headers={
            "x-amz-target": f"SageMaker.{case.operation}",
            "content-type": "application/x-amz-json-1.1",
            **scope_of("sagemaker", region=REGION),
        },
    )
    assert answer.status_code in (200, 400), answer.text
    return "" if answer.status_code == 200 else str(answer.json()["message"])


CASES = list(cases())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_constraint_of_an_operation_is_held(server: Server, operation: str) -> None:
    mine = [case for case in CASES if case.operation == operation]
    wrong = []
    for case in mine:
        where = f" at '{spelt(case.path)}' failed to satisfy constraint: {case.said}"
        if DETECTED in said(server, case, case.inside):
            wrong.append(f"{case} refuses {case.inside!r}: {said(server, case, case.inside)}")
        answer = said(server, case, case.outside)
        if where not in answer or DETECTED not in answer:
            wrong.append(f"{case} takes {case.outside!r}: {answer}")
    assert mine
    assert not wrong, "\n".join(wrong)


def test_the_walk_finds_the_constraints_that_the_model_has() -> None:
    """The model grows with botocore; a walk that finds less has gone astray."""
    assert len(CASES) > 500
    kinds = {case.said.split(" than ")[0].split(":")[0].split(" [")[0] for case in CASES}
    assert len(kinds) >= 7, kinds
