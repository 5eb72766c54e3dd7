"""What the containers of scikit-learn, XGBoost and PyTorch do, as one object inside an execution
environment: the user's script loads the model and answers, by the contract of the public
SageMaker inference toolkit.

Imports nothing but the standard library, since the interpreter need not have more, and nothing of
the server.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model import bodies, defaults
from model.context import CUSTOM_ATTRIBUTES, Context
from model.messages import (
    JSON,
    ModelLoadError,
    Refused,
    Request,
    Response,
    Surroundings,
    error,
)
from model.program import imported

__all__ = ["Request", "ScriptContainer", "Surroundings", "load"]

ACCEPT_VARIABLE = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"
ANY = "*/*"
UNSUPPORTED = ("UnsupportedFormat", "UnsupportedFormatError")  # ours, and the toolkit's
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Functions:
    """What a script defines; `transform` stands for the three before it."""

    load: Function
    decode: Function
    predict: Function
    encode: Function
    transform: Function | None
    before: Function | None
    warm_up: Function | None


def load(
    model_dir: Path,
    variables: Mapping[str, str],
    program: str,
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - it is frozen
    alone: bool = True,
) -> ScriptContainer:
    """The container around `code/<program>`, with the model that its `model_fn` has loaded.

    `alone` says that nothing but this script runs in the process. Raises ModelLoadError for a
    script that does not keep to the contract, and whatever `model_fn` raises.
    """
    file = model_dir / "code" / program
    if alone:
        _make_way(file.parent)
    functions = found(file)
    context = Context(str(model_dir), {})
    if functions.before:
        called(functions.before, context, str(model_dir))
    model = called(functions.load, context, str(model_dir))
    if functions.warm_up:
        called(functions.warm_up, context, str(model_dir), model)
    accept = variables.get(ACCEPT_VARIABLE) or JSON
    return ScriptContainer(functions, model, str(model_dir), accept, surroundings)


def _make_way(code: Path) -> None:
    """A script's own `model` is what it means by `import model`, not this package."""
    for name in ("model", "emulator"):
        if (code / f"{name}.py").is_file() or (code / name).is_dir():
            for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
                del sys.modules[loaded]


def found(file: Path) -> Functions:
    """The functions of the script. Raises ModelLoadError."""
    module = imported(file, file.stem)
    own = {
        name: getattr(module, name, None)
        for name in ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")
    }
    loads, transform = own.pop("model_fn"), own.pop("transform_fn")
    if loads is None:
        raise ModelLoadError(f"code/{file.name} has no model_fn, which has to load the model.")
    if transform and any(own.values()):
        named = ", ".join(name for name, function in own.items() if function)
        raise ModelLoadError(
            f"code/{file.name} has transform_fn and {named}; transform_fn stands for all of "
            "input_fn, predict_fn and output_fn."
        )
    if not transform and not own["input_fn"]:
        defaults.arrays()  # imported now, not with the first request
    return Functions(
        loads,
        own["input_fn"] or defaults.decoded,
        own["predict_fn"] or defaults.predicted,
        own["output_fn"] or defaults.encoded,
        transform,
        getattr(module, "pre_model_fn", None),
        getattr(module, "model_warmup_fn", None),
    )


class ScriptContainer:
    """A loaded model behind one `handle`. `together` is 1: a script has one request at a time."""

    together = 1

    def __init__(
        self,
        functions: Functions,
        model: Any,
        model_dir: str,
        accept: str,
        surroundings: Surroundings,
    ) -> None:
        self._functions, self._model = functions, model
        self._model_dir, self._accept = model_dir, accept
        self._hint = surroundings.hint

    def handle(self, request: Request) -> Response:
        """Answer one POST to /invocations. Never raises: what goes wrong is a 4xx or 5xx answer
        with `{"error": "..."}`."""
        return self._guarded(lambda: bodies.collected(self._answer(request)))

    def handle_all(self, requests: Sequence[Request]) -> list[Response]:
        """Answer each request, one after the other. Never raises."""
        return [self.handle(request) for request in requests]

    def stream(self, request: Request) -> Response:
        """As `handle`, but what the script yields is in `parts`, which raise what it raises."""
        return self._guarded(lambda: self._answer(request))

    def failed(self, fault: BaseException) -> Response:
        """The answer that tells of an exception of the script."""
        traceback.print_exception(fault, file=sys.stderr)
        if said := self._hint(fault):
            print(said, file=sys.stderr)
        status = getattr(fault, "status_code", None)
        if not isinstance(status, int) or not 400 <= status < 600:
            return error(500, str(fault))
        return error(status, str(getattr(fault, "message", None) or fault))

    def warm_up(self, batch: int = 1, compile: bool = False) -> None:
        """Nothing: what a script needs, its `model_warmup_fn` has done."""

    def close(self) -> None:
        """Nothing is open."""

    def _guarded(self, work: Callable[[], Response]) -> Response:
        try:
            return work()
        except Refused as refusal:
            return error(refusal.status, str(refusal))
        except Exception as fault:  # noqa: BLE001 - the container answers and lives on
            return self.failed(fault)

    def _answer(self, request: Request) -> Response:
        content_type = request.content_type or JSON
        accept = self._accept if request.accept in ("", ANY) else request.accept
        context = Context(self._model_dir, headers(request, content_type, accept))
        body = request.body.decode() if content_type in defaults.TEXTS else request.body
        result = self._result(context, body, content_type, accept)
        if isinstance(result, tuple) and len(result) == 2:
            result, accept = result
        return self._finished(context, result, accept)

    def _result(self, context: Context, body: Any, content_type: str, accept: str) -> Any:
        functions, model = self._functions, self._model
        if functions.transform:
            return called(functions.transform, context, model, body, content_type, accept)
        with refusing(415):
            data = called(functions.decode, context, body, content_type)
        prediction = called(functions.predict, context, data, model)
        if isinstance(prediction, Iterator) and functions.encode is defaults.encoded:
            return prediction
        with refusing(406):
            return called(functions.encode, context, prediction, accept)

    def _finished(self, context: Context, result: Any, content_type: str) -> Response:
        name = "transform_fn" if self._functions.transform else "output_fn"
        given = context.get_response_content_type(0) or str(content_type)
        response = bodies.answer(result, given, name, context.status)
        if attributes := context.answer.get(CUSTOM_ATTRIBUTES):
            return replace(response, custom_attributes=attributes)
        return response


def headers(request: Request, content_type: str, accept: str) -> dict[str, str]:
    """The request's headers as a container gets them."""
    given = {"Content-Type": content_type, "Accept": accept}
    if request.custom_attributes:
        given[CUSTOM_ATTRIBUTES] = request.custom_attributes
    return given


def called(function: Function, context: Context, *given: Any) -> Any:
    """Call a function of the contract, with the context if it takes one argument more."""
    takes = len(inspect.signature(function).parameters)
    if takes == len(given):
        return function(*given)
    if takes == len(given) + 1:
        return function(*given, context)
    raise TypeError(
        f"{function.__name__} takes {takes} arguments; it is given {len(given)}, or the context "
        "as one more."
    )


@contextmanager
def refusing(status: int) -> Iterator[None]:
    """A type that is not supported is that status, whoever says so."""
    try:
        yield
    except Exception as fault:
        if type(fault).__name__ not in UNSUPPORTED:
            raise
        raise Refused(status, str(fault)) from None
