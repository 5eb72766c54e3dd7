"""The user's `code/inference.py`: finding it, and calling what it defines.

These are the handlers of the TensorFlow container; the functions of the others are `script.py`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from model.bodies import answer, as_bytes
from model.messages import JSON, ModelLoadError, Request, Response
from model.program import imported
from model.rest import Loopback, Route

REST_PORT, GRPC_PORT = 8501, 9000  # TensorFlow Serving's own, as a script may print them


class Context(NamedTuple):
    """What a handler is told of its request; the fields are the container's."""

    model_name: str
    model_version: str | None
    method: str
    rest_uri: str
    grpc_port: str
    channel: None
    custom_attributes: str
    request_content_type: str
    accept_header: str
    content_length: int


def context(request: Request, route: Route, loopback: Loopback | None) -> Context:
    uri = loopback.uri(route) if loopback else f"http://localhost:{REST_PORT}{route.path}"
    return Context(
        model_name=route.model,
        model_version=None if route.version is None else str(route.version),
        method=route.method,
        rest_uri=uri,
        grpc_port=str(GRPC_PORT),
        channel=None,
        custom_attributes=request.custom_attributes,
        request_content_type=request.content_type or JSON,
        accept_header=request.accept or JSON,
        content_length=len(request.body),
    )


class HTTPError(OSError):
    """What `raise_for_status` raises."""


class ServingResponse:
    """TensorFlow Serving's answer with what handlers use of a `requests.Response`."""

    def __init__(self, response: Response, url: str) -> None:
        self.status_code = response.status
        self.content = response.body
        self.url = url
        self.encoding = "utf-8"
        self.headers = Message()  # its look-up ignores case, as that of requests does
        self.headers["Content-Type"] = response.content_type
        self.headers["Content-Length"] = str(len(response.body))

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding, "replace")

    def json(self, **options: Any) -> Any:
        return json.loads(self.content, **options)

    def raise_for_status(self) -> None:
        if not self.ok:
            raise HTTPError(f"{self.status_code} Error for url: {self.url}")


@dataclass(frozen=True, slots=True)
class Script:
    """The functions of a user's script: `handler`, or the two others."""

    handler: Callable[..., Any] | None
    input_handler: Callable[..., Any] | None
    output_handler: Callable[..., Any] | None

    def answer(
        self, request: Request, context: Context, predict: Callable[[bytes], Response]
    ) -> Response:
        """Run the user's functions around `predict`. Raises whatever they raise."""
        data = io.BytesIO(request.body)
        if self.handler:
            return returned(self.handler(data, context), "handler")
        assert self.input_handler is not None
        assert self.output_handler is not None
        query = as_bytes(self.input_handler(data, context), "input_handler")
        response = ServingResponse(predict(query), context.rest_uri)
        return returned(self.output_handler(response, context), "output_handler")


def returned(value: Any, name: str) -> Response:
    try:
        body, content_type = value
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} returned {type(value).__name__}; it must return (body, content type)."
        ) from None
    return answer(body, str(content_type), name)


def find(model_dir: Path) -> Script | None:
    """The user's script, imported, or None where there is none. Raises ModelLoadError."""
    file = model_dir / "code" / "inference.py"
    if not file.is_file():
        return None
    module = imported(file, "inference")
    handler = getattr(module, "handler", None)
    both = [getattr(module, name, None) for name in ("input_handler", "output_handler")]
    if handler is None and None in both:
        raise ModelLoadError("Handlers are not implemented correctly in user script.")
    return Script(handler, *(both if handler is None else (None, None)))
