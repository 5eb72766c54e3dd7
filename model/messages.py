"""What passes in and out of the container, and the two ways in which it says no. Data only."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

import orjson

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """One POST to /invocations. A header that was not sent is the empty string."""

    body: bytes
    content_type: str
    accept: str = ""
    custom_attributes: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """The container's answer; `status` is an HTTP status."""

    status: int
    content_type: str
    body: bytes
    custom_attributes: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host gives the container: a listening socket for TensorFlow Serving's REST port, if
    it must be that one, and a sentence on what the host may have to do with an error."""

    rest_port: socket.socket | None = None
    hint: Callable[[BaseException], str] = lambda error: ""


class ModelLoadError(Exception):
    """The model cannot be served: one sentence that names what was found and what was wanted."""


class Refused(Exception):
    """A request that gets `status` and `{"error": message}` instead of a prediction."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def error(status: int, message: str) -> Response:
    """An error in TensorFlow Serving's form."""
    return Response(
        status, JSON, orjson.dumps({"error": message.encode(errors="replace").decode()})
    )
