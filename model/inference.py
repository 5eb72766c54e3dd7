"""What the TensorFlow serving container does, as one object inside an execution environment.

`import_runtime()` once per machine, `load()` once per environment, `Container.handle()` once per
request. Importing this file imports neither TensorFlow nor Keras, and nothing of the server.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model import handlers
from model.binding import bound
from model.decoding import Layout, Query, decode, from_json
from model.encoding import chosen, encode
from model.loading import import_runtime, servables
from model.messages import JSON, ModelLoadError, Refused, Request, Response, error
from model.rest import Loopback, Route
from model.signatures import DEFAULT_SIGNATURE, Array, Servable

__all__ = [
    "Container",
    "ModelLoadError",
    "Request",
    "Response",
    "import_runtime",
    "load",
]

DEFAULT_MODEL = "SAGEMAKER_TFS_DEFAULT_MODEL_NAME"
ATTRIBUTE = re.compile(r"tfs-[a-z\-]+=[^,]+")


def load(model_dir: Path, variables: Mapping[str, str]) -> Container:
    """The container of an unpacked model archive, loaded and ready to answer.

    `variables` is the container's environment; read are SAGEMAKER_TFS_DEFAULT_MODEL_NAME,
    SAGEMAKER_TFS_INTRA_OP_PARALLELISM and SAGEMAKER_TFS_INTER_OP_PARALLELISM. Runs the import of
    `code/inference.py`, if there is one. Raises ModelLoadError.
    """
    import_runtime()  # where no zygote has done it
    models = servables(model_dir, variables)
    default = variables.get(DEFAULT_MODEL) or next(iter(models))
    if default not in models:
        raise ModelLoadError(
            f"{DEFAULT_MODEL} is {default!r}, but the archive has {', '.join(models)}."
        )
    return Container(models, default, handlers.find(model_dir))


class Container:
    """Loaded models behind one `handle`, with or without the user's code in front of them."""

    def __init__(
        self, models: Mapping[str, Servable], default: str, script: handlers.Script | None = None
    ) -> None:
        self._models = models
        self._default = default
        self._script = script
        # Only a `handler` posts to TensorFlow Serving by itself; nobody else needs the port.
        self._loopback = Loopback(self.predict) if script and script.handler else None

    def handle(self, request: Request) -> Response:
        """Answer one POST to /invocations. Never raises: what goes wrong is a 4xx or 5xx answer
        with `{"error": "..."}`."""
        try:
            route = self._route(request.custom_attributes)
            if self._script:
                context = handlers.context(request, route, self._loopback)
                return self._script.answer(request, context, lambda b: self.predict(route, b))
            return self._answer(request, route)
        except Refused as refusal:
            return error(refusal.status, str(refusal))
        except Exception as fault:  # noqa: BLE001  (the container answers 500 and lives on)
            traceback.print_exc(file=sys.stderr)
            return error(500, str(fault))

    def predict(self, route: Route, body: bytes) -> Response:
        """TensorFlow Serving's predict API: what the user's code posts to. Never raises."""
        try:
            model = self._asked(route)
            query = from_json(body)
            return Response(200, JSON, encode(JSON, run(model, query), query.layout))
        except Refused as refusal:
            return error(refusal.status, str(refusal))
        except Exception as fault:  # noqa: BLE001
            traceback.print_exc(file=sys.stderr)
            return error(500, str(fault))

    def warm_up(self) -> None:
        """One inference on zeros through the compiled function; what it answers is ignored."""
        signature = self._models[self._default].signatures[DEFAULT_SIGNATURE]
        try:
            signature.call({name: tensor.zeros() for name, tensor in signature.inputs.items()})
        except Refused:
            return  # zeros need not be valid input

    def close(self) -> None:
        """Close the loopback port, if one was opened."""
        if self._loopback:
            self._loopback.close()

    def _answer(self, request: Request, route: Route) -> Response:
        accept = chosen(request.accept)
        model = self._asked(route)
        query = decode(request.content_type, request.body)
        return Response(200, accept, encode(accept, run(model, query), query.layout))

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


def run(model: Servable, query: Query) -> Mapping[str, Array]:
    """The outputs for a query, in one call for the whole batch. Raises Refused."""
    signature = model.signatures.get(query.signature)
    if signature is None:
        raise Refused(
            400,
            f"Serving signature name: {query.signature!r} not found in signature def; "
            f"the model has {', '.join(model.signatures)}.",
        )
    arrays = bound(query, signature)
    outputs = signature.call(arrays)
    if query.layout is Layout.ROWS:
        refuse_other_batch(arrays, outputs)
    return outputs


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
