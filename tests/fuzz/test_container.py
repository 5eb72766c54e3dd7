"""The container by itself, over models made of NumPy whose inputs the shipped model has not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.inference import Container, Request, Response
from model.signatures import Call, Servable, Signature, Tensor
from tests.fuzz.bodies import requests
from tests.fuzz.conftest import EXAMPLES, SENT, examples

SHARE = 0.15  # of all inputs
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


def container(call: Call, **inputs: tuple[Any, Any]) -> Container:
    tensors = {k: Tensor(k, np.dtype(dtype), shape) for k, (dtype, shape) in inputs.items()}
    model = Servable("model", 1, {"serving_default": Signature(tensors, call)})
    made = Container({"model": model}, "model")
    made.warm_up(batch=8)
    assert made.together == 8
    return made


MODELS = {
    "numbers": container(lambda a: {"y": a["x"] * 2}, x=(np.float32, (None,))),
    "vectors": container(lambda a: {"y": a["x"] * 2}, x=(np.float64, (None, 2))),
    "any shape": container(lambda a: {"y": a["x"]}, x=(np.float16, (None, None))),
    "integers": container(lambda a: {"y": a["x"]}, x=(np.int64, (None,))),
    "bytes": container(lambda a: {"y_bytes": a["x"]}, x=(object, (None,))),
    "texts": container(lambda a: {"y": a["x"]}, x=(object, (None, 1))),
    "flags": container(lambda a: {"y": ~a["x"]}, x=(bool, (None,))),
    "two": container(
        lambda a: {"sum": a["a"] + a["x"], "both": np.stack([a["a"], a["x"]], 1)},
        a=(np.float32, (None,)),
        x=(np.float32, (None,)),
    ),
}


@pytest.mark.filterwarnings("ignore")  # of NumPy, and of Python's parser: here of no interest
def test_whatever_is_sent_alone_or_together_gets_an_answer_that_is_no_fault() -> None:
    @examples(round(EXAMPLES * SHARE))
    @given(st.sampled_from(sorted(MODELS)), st.lists(requests(), min_size=1, max_size=2))
    def send(name: str, several: list[tuple[dict[str, str], bytes]]) -> None:
        SENT["container"] += 1
        model = MODELS[name]
        asked = [
            Request(body, headers["content-type"], headers["accept"], headers.get(ATTRIBUTES, ""))
            for headers, body in several
        ]
        alone = [model.handle(one) for one in asked]
        for answer in alone:
            assert answer.status in (200, 400, 404, 406, 415), answer
            assert answer.status == 200 or in_a_sentence(answer)
        assert model.handle_all(asked) == alone

    send()


def in_a_sentence(answer: Response) -> bool:
    said: str = json.loads(answer.body)["error"]
    return 0 < len(said) < 2010
