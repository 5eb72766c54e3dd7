"""What passes in and out of the container, and the two ways in which it says no. Data only, and
nothing but the standard library: the interpreter of a script may have no more."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

JSON = "application/json"
LONGEST = 2000  # characters of a refusal
ADDRESS = re.compile(r" object at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Request:
    """One POST to /invocations. A header that was not sent is the empty string."""

    body: bytes
    content_type: str
    accept: str = ""
    custom_attributes: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """The container's answer; `status` is an HTTP status. Where the user's code yields it, `parts`
    is what is still to come of the body, and raises what that code raises."""

    status: int
    content_type: str
    body: bytes
    custom_attributes: str = ""
    parts: Iterator[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host gives the container: a listening socket for TensorFlow Serving's REST port, if
    it must be that one, and a sentence on what the host may have to do with an error."""

    rest_port: socket.socket | None = None
    hint: Callable[[BaseException], str] = lambda error: ""


class ModelLoadError(Exception):
    """The model cannot be served: one sentence that names what was found and what was wanted."""


class Refused(Exception):
    """A request that gets `status` and `{"error": message}` instead of a prediction.

    A message may quote what it refuses, which may be megabytes, so it is cut at LONGEST.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message if len(message) <= LONGEST else f"{message[:LONGEST]} ...")
        self.status = status


def shortened(fault: Exception) -> str:
    """What a library says of a damaged input, on one line, cut, and without addresses of memory."""
    text = " ".join(ADDRESS.sub("", str(fault)).split()).rstrip(".") or type(fault).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."


def error(status: int, message: str) -> Response:
    """An error in TensorFlow Serving's form."""
    text = json.dumps({"error": message}, ensure_ascii=False, separators=(",", ":"))
    return Response(status, JSON, text.encode(errors="replace"))
