"""Our own REST, as /openapi.json describes it: what comes back is described there, and is no fault
of the server's, whatever is sent.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import positive_data_acceptance
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.fuzz.conftest import EXAMPLES, SENT, examples
from tests.servers import DEADLINE_S, KERAS, Server, until

SHARE = 0.1  # of all inputs
CREATE, RESET = "PUT /_emulator/endpoints/{name}", "POST /_emulator/reset"
INVOKE = "POST /endpoints/{name}/invocations"
WEIGHTS = {  # where there is more to vary, more is sent
    CREATE: 8,
    "GET /_emulator/invocations": 4,
    "POST /_emulator/clock/advance": 3,
    INVOKE: 3,
}
NAMES = ("fashion-mnist-realtime", "fashion-mnist-serverless", "fuzzed", "FUZZED", "-")


def test_every_operation_keeps_to_its_description(target: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    assert set(WEIGHTS) < {operation.label for operation in operations}
    total = sum(WEIGHTS.get(operation.label, 1) for operation in operations)
    with requests.Session() as session, ExitStack() as stack:
        stack.callback(reset, target)  # what was deleted is there again for the tests to come
        for operation in operations:
            number = EXAMPLES * SHARE * WEIGHTS.get(operation.label, 1) / total
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                with suppress(Unsatisfiable):  # there is nothing that could be wrong
                    check(target, session, operation, mode, round(number / 2))


def check(
    target: Server, session: requests.Session, operation: Any, mode: Any, number: int
) -> None:
    possible = operation.label == CREATE and mode is GenerationMode.POSITIVE
    excluded = [positive_data_acceptance]  # that there is no such model, no schema can say
    if operation.label == INVOKE:
        excluded.append(negative_data_rejection)  # its bodies are the model's affair

    @examples(number)
    @given(operation.as_strategy(generation_mode=mode), st.data())
    def send(case: Any, data: st.DataObject) -> None:
        if "name" in (case.path_parameters or {}) and data.draw(st.booleans()):
            case.path_parameters["name"] = data.draw(st.sampled_from(NAMES))
        if possible and data.draw(st.integers(0, 20)) == 0:
            make_possible(case)
        SENT["REST"] += 1
        answer = case.call(session=session, timeout=DEADLINE_S)
        case.validate_response(answer, excluded_checks=excluded)
        if answer.status_code == 201:
            name = answer.json()["name"]
            target.settled(name)
            target.delete(name)
        if operation.label == RESET:
            reset(target)

    send()


def reset(target: Server) -> None:
    assert target.client.post("/_emulator/reset").status_code == 200
    until(lambda: target.client.get("/ping").status_code == 200, "the defaults are back")


def make_possible(case: Any) -> None:
    """Let a creation name a model that there is, and not take more than one process."""
    variants = case.body.get("variants") if isinstance(case.body, dict) else None
    for number, variant in enumerate(variants if isinstance(variants, list) else []):
        if isinstance(variant, dict):
            variant |= {"model": str(KERAS), "name": f"Variant{number}"}
            for persona, size in (
                ("serverless", "max_concurrency"),
                ("realtime", "instance_count"),
            ):
                if isinstance(variant.get(persona), dict):
                    variant[persona] = {size: 1}
