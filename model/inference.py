"""What the TensorFlow serving container does, as one object inside an execution environment.

`import_runtime()` once per machine, `load()` once per environment, `Container.handle()` once per
request. Importing this file imports no runtime (TensorFlow and Keras, or LiteRT) and nothing of
the server.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from model import batching, handlers, litert, loading
from model.binding import bound
from model.bodies import collected
from model.compiling import compiled
from model.decoding import Layout, Query, decode, from_json
from model.encoding import chosen, encode
from model.messages import (
    JSON,
    ModelLoadError,
    Refused,
    Request,
    Response,
    Surroundings,
    error,
)
from model.rest import Loopback, Route
from model.signatures import DEFAULT_SIGNATURE, Array, Servable, Signature

__all__ = [
    "Container",
    "ModelLoadError",
    "Request",
    "Response",
    "Surroundings",
    "import_runtime",
    "load",
]

DEFAULT_MODEL = "SAGEMAKER_TFS_DEFAULT_MODEL_NAME"
P = ParamSpec("P")
T = TypeVar("T")

ATTRIBUTE = re.compile(r"tfs-[a-z\-]+=[^,]+")


def import_runtime(name: str = "tensorflow") -> None:
    """Import `tensorflow` or `litert`; the process can still fork. Cheap to repeat. Raises
    ModelLoadError if LiteRT is not installed."""
    (litert if name == "litert" else loading).import_runtime()


def load(
    model_dir: Path,
    variables: Mapping[str, str],
    conversion: Path | None = None,
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - it is frozen
) -> Container:
    """The container of an unpacked model archive, loaded and ready to answer.

    TensorFlow serves it, or LiteRT if `conversion` is the directory that `model.convert` wrote for
    this model. `variables` is the container's environment; read are
    SAGEMAKER_TFS_DEFAULT_MODEL_NAME, SAGEMAKER_TFS_INTRA_OP_PARALLELISM and
    SAGEMAKER_TFS_INTER_OP_PARALLELISM. Runs the import of `code/inference.py`, if there is one.
    Raises ModelLoadError.
    """
    import_runtime("litert" if conversion else "tensorflow")  # where no zygote has done it
    if conversion:
        models = litert.servables(conversion, variables)
    else:
        models = loading.servables(model_dir, variables)
    default = variables.get(DEFAULT_MODEL) or next(iter(models))
    if default not in models:
        raise ModelLoadError(
            f"{DEFAULT_MODEL} is {default!r}, but the archive has {', '.join(models)}."
        )
    return Container(models, default, handlers.find(model_dir), surroundings)


@dataclass(frozen=True, slots=True)
class Question:
    """A request that was understood: which function is asked what, and how to answer."""

    signature: Signature
    arrays: Mapping[str, Array]
    layout: Layout
    accept: str

    def answer(self, outputs: Mapping[str, Array]) -> Response:
        return Response(200, self.accept, encode(self.accept, outputs, self.layout))


class Container:
    """Loaded models behind one `handle`, with or without the user's code in front of them.

    `together` is how many requests `handle_all` answers in one call of the model.
    """

    def __init__(
        self,
        models: Mapping[str, Servable],
        default: str,
        script: handlers.Script | None = None,
        surroundings: Surroundings = Surroundings(),  # noqa: B008 - it is frozen
    ) -> None:
        self.together = 1
        self._models = dict(models)
        self._default = default
        self._script = script
        # Only a `handler` posts to TensorFlow Serving by itself; nobody else needs the port.
        posts = bool(script and script.handler)
        self._loopback = Loopback(self.predict, surroundings.rest_port) if posts else None
        if surroundings.rest_port and not posts:
            surroundings.rest_port.close()
        self._hint = surroundings.hint

    def handle(self, request: Request) -> Response:
        """Answer one POST to /invocations. Never raises: what goes wrong is a 4xx or 5xx answer
        with `{"error": "..."}`."""
        return guarded(lambda: collected(self._handled(request)))

    def stream(self, request: Request) -> Response:
        """As `handle`, but what a handler yields is in `parts`, which raise what it raises."""
        return guarded(self._handled, request)

    def failed(self, fault: BaseException) -> Response:
        """The answer that tells of an exception out of `parts`."""
        traceback.print_exception(fault, file=sys.stderr)
        if said := self._hint(fault):
            print(said, file=sys.stderr)
        return error(500, str(fault))

    def handle_all(self, requests: Sequence[Request]) -> list[Response]:
        """Answer each request as `handle` would, those that ask the default function the same kind
        of question in one call of the model. Never raises."""
        if len(requests) == 1 or self.together == 1:
            return [self.handle(request) for request in requests]
        answers: dict[int, Response] = {}
        shared: dict[object, dict[int, Question]] = {}
        for index, request in enumerate(requests):
            question = guarded(self._question, request)
            if isinstance(question, Response):
                answers[index] = question
            elif not self._shares(question):
                answers[index] = guarded(answered, question)
            else:
                shared.setdefault(batching.fits(question.arrays), {})[index] = question
        for group in shared.values():
            answers |= zip(group, answered_together(list(group.values())), strict=True)
        return [answers[index] for index in range(len(requests))]

    def predict(self, route: Route, body: bytes) -> Response:
        """TensorFlow Serving's predict API: what the user's code posts to. Never raises."""
        return guarded(lambda: answered(asked(self._asked(route), from_json(body), JSON)))

    def warm_up(self, batch: int = 1, compile: bool = False) -> None:
        """One inference on zeros; what it answers is ignored. Then `compile` asks for the model's
        compiled form, and `batch` for finding out whether up to so many requests can share a call.
        """
        model = self._models[self._default]
        signature = model.signatures.get(DEFAULT_SIGNATURE)
        if signature is None:
            return  # which of the others will be asked for is not known
        try:
            signature.call({name: tensor.zeros() for name, tensor in signature.inputs.items()})
        except Refused:
            return  # zeros need not be valid input
        if self._script is None:  # a script is given one request at a time
            self.together = batching.together(signature, batch)
        if compile:
            signature = compiled(signature, self.together)
            signatures = {**model.signatures, DEFAULT_SIGNATURE: signature}
            self._models[self._default] = replace(model, signatures=signatures)

    def close(self) -> None:
        """Close the loopback port, if one was opened."""
        if self._loopback:
            self._loopback.close()

    @property
    def _function(self) -> Signature | None:
        return self._models[self._default].signatures.get(DEFAULT_SIGNATURE)

    def _shares(self, question: Question) -> bool:
        """Whether it may be asked together with others."""
        rows = question.layout is Layout.ROWS and question.signature is self._function
        return rows and batching.aligned(question.arrays)

    def _handled(self, request: Request) -> Response:
        if self._script is None:
            return answered(self._question(request))
        route = self._route(request.custom_attributes)
        context = handlers.context(request, route, self._loopback)
        try:
            return self._script.answer(request, context, lambda body: self.predict(route, body))
        except Exception as fault:
            if said := self._hint(fault):
                print(said, file=sys.stderr)
            raise

    def _question(self, request: Request) -> Question:
        model = self._asked(self._route(request.custom_attributes))
        accept = chosen(request.accept)
        return asked(model, decode(request.content_type, request.body), accept)

    def _asked(self, route: Route) -> Servable:
        model = self._models.get(route.model)
        if model is None or route.version not in (None, model.version):
            raise Refused(404, f"Servable not found for request: {route.servable}")
        if route.method != "predict":
            raise Refused(
                400,
                f"Expected {route.method} signature method_name to be "
                f"tensorflow/serving/{route.method}. Was: tensorflow/serving/predict",
            )
        return model

    def _route(self, attributes: str) -> Route:
        if not attributes:
            return Route(self._default)
        given = dict(item.split("=", 1) for item in ATTRIBUTE.findall(attributes))
        version = given.get("tfs-model-version")
        if version is not None and not version.isdecimal():
            raise Refused(400, f"tfs-model-version is {version!r}; it must be a number.")
        return Route(
            given.get("tfs-model-name", self._default),
            None if version is None else int(version),
            given.get("tfs-method", "predict"),
        )


def asked(model: Servable, query: Query, accept: str) -> Question:
    """What a query asks of a model. Raises Refused."""
    signature = model.signatures.get(query.signature)
    if signature is None:
        raise Refused(
            400,
            f"Serving signature name: {query.signature!r} not found in signature def; "
            f"the model has {', '.join(model.signatures)}.",
        )
    return Question(signature, bound(query, signature), query.layout, accept)


def answered(question: Question) -> Response:
    """The answer, in one call for the whole batch of the request. Raises Refused."""
    outputs = question.signature.call(question.arrays)
    if question.layout is Layout.ROWS:
        refuse_other_batch(question.arrays, outputs)
    return question.answer(outputs)


def answered_together(questions: Sequence[Question]) -> list[Response]:
    """The answers to questions that fit each other, by one call. If that fails each is asked alone,
    so that nobody is told of another's fault. Never raises."""
    outputs = None
    if len(questions) > 1:
        rows = [batching.count(question.arrays) for question in questions]
        arrays = batching.stacked([question.arrays for question in questions])
        with suppress(Exception):
            outputs = batching.split(questions[0].signature.call(arrays), rows)
    if outputs is None:
        return [guarded(answered, question) for question in questions]
    return [guarded(question.answer, own) for question, own in zip(questions, outputs, strict=True)]


def guarded(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | Response:
    """What `work` gives, or the answer that tells how it failed."""
    try:
        return work(*given, **named)
    except Refused as refusal:
        return error(refusal.status, str(refusal))
    except Exception as fault:  # noqa: BLE001  (the container answers 500 and lives on)
        traceback.print_exc(file=sys.stderr)
        return error(500, str(fault))


def refuse_other_batch(arrays: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Row format needs an output row for each instance, as TensorFlow Serving has it."""
    due = len(next(iter(arrays.values()))) if arrays else 0
    for name, array in outputs.items():
        given = len(array) if np.ndim(array) else 0
        if given != due:
            raise Refused(
                400,
                f"Tensor name: {name} has inconsistent batch size: {given} expecting {due}; "
                "send 'inputs' instead of 'instances' to a model whose outputs are no rows.",
            )
