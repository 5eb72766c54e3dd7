"""Errors that a test asks for: the next invocations of an endpoint get one instead of an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from emulator import faults
from emulator.errors import (
    InternalDependencyException,
    InternalFailure,
    InternalStreamFailure,
    InvocationError,
    ModelNotReadyException,
    ModelStreamError,
    ServiceUnavailable,
    ThrottlingException,
    ValidationError,
)

IN_STREAM = frozenset({"ModelStreamError", "InternalStreamFailure"})
_PLAIN: dict[str, Callable[[str], InvocationError]] = {
    one.code: one
    for one in (
        InternalDependencyException,
        InternalFailure,
        InternalStreamFailure,
        ModelNotReadyException,
        ServiceUnavailable,
        ThrottlingException,
        ValidationError,
    )
}
Error = Literal[
    "InternalDependencyException",
    "InternalFailure",
    "InternalStreamFailure",
    "ModelError",
    "ModelNotReadyException",
    "ModelStreamError",
    "ServiceUnavailable",
    "ThrottlingException",
    "ValidationError",
]
ErrorCode = Literal["ModelInvocationTimeExceeded", "StreamBroken"]


@dataclass(slots=True)
class Injection:
    """One error for the next `left` invocations. `status` is the container's own, for a ModelError;
    `message` is the error's text, or what the container is to have said; `error_code` is that of a
    ModelStreamError. Those of a stream go to streams alone, and everybody else is served."""

    error: Error
    left: int
    status: int = 0
    message: str = ""
    error_code: ErrorCode = "StreamBroken"

    def take(self, place: faults.Place, streamed: bool) -> InvocationError | None:
        """The error for the next invocation, or None if it is to be served."""
        if not self.left or (self.error in IN_STREAM and not streamed):
            return None
        self.left -= 1
        return self._made(place)

    def _made(self, place: faults.Place) -> InvocationError:
        text = self.message or f"An injected {self.error}."
        if self.error == "ModelStreamError":
            return ModelStreamError(text, self.error_code)
        if self.error != "ModelError":
            return _PLAIN[self.error](text)
        if not self.status and not self.message:
            return faults.no_response(place)
        return faults.container_answered(place, "", self.status, text.encode())
