"""The members of a request to invoke: read out of headers, held to botocore's model of them, and
refused in AWS's words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from emulator.errors import ValidationError
from emulator.sandbox.protocol import Invocation
from emulator.sandbox.stream import Stream

MAX_HEADER = 1024  # characters of a content type or of custom attributes
MAX_QUOTED = 256  # of a value that is refused
NAME = "[a-zA-Z0-9](-*[a-zA-Z0-9])*"
PRINTED = r"\A\S[\p{Print}]*\z"


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A member as the service model has it: its name, header, bounds and pattern. `shown` is the
    pattern as AWS writes it, and the value of one that is `secret` is in no message."""

    name: str
    header: bytes
    least: int
    most: int
    pattern: re.Pattern[str]
    shown: str
    secret: bool = False

    def fits(self, value: str) -> bool:
        """Whether the value is one that the member may have."""
        return self.least <= len(value) <= self.most and bool(self.pattern.fullmatch(value))

    def faults(self, value: str) -> list[str]:
        """What is wrong with the value, each in AWS's words."""
        found = []
        if len(value) > self.most:
            found.append(f"Member must have length less than or equal to {self.most}")
        if len(value) < self.least:
            found.append(f"Member must have length greater than or equal to {self.least}")
        if not self.pattern.fullmatch(value):
            found.append(f"Member must satisfy regular expression pattern: {self.shown}")
        quoted = value if len(value) <= MAX_QUOTED else f"{value[:MAX_QUOTED]}..."
        given = "Value" if self.secret else f"Value '{quoted}'"
        return [f"{given} at '{self.name}' failed to satisfy constraint: {one}" for one in found]


_ASCII = re.compile(r"[\x00-\x7f]*", re.DOTALL)
_PRINTED = re.compile(r"[!-~][ -~]*")
_SENT = b"x-amzn-sagemaker-"
CONTENT_TYPE = Member("contentType", b"content-type", 0, MAX_HEADER, _ASCII, r"\p{ASCII}*")
ACCEPT = Member("accept", b"accept", 0, MAX_HEADER, _ASCII, r"\p{ASCII}*")
STREAM_ACCEPT = Member("accept", _SENT + b"accept", 0, MAX_HEADER, _ASCII, r"\p{ASCII}*")
CUSTOM_ATTRIBUTES = Member(
    "customAttributes", _SENT + b"custom-attributes", 0, MAX_HEADER, _ASCII, r"\p{ASCII}*", True
)
TARGET_VARIANT = Member(
    "targetVariant", _SENT + b"target-variant", 0, 63, re.compile(NAME), f"^{NAME}"
)
INFERENCE_ID = Member("inferenceId", _SENT + b"inference-id", 1, 64, _PRINTED, PRINTED)
PREFIX_ID = Member("prefixAwareId", _SENT + b"prefix-aware-id", 1, 64, _PRINTED, PRINTED)
READ = (CONTENT_TYPE, ACCEPT, CUSTOM_ATTRIBUTES, INFERENCE_ID, PREFIX_ID)
STREAM_READ = tuple(STREAM_ACCEPT if one is ACCEPT else one for one in READ)

_UNSUPPORTED = {
    b"x-amzn-sagemaker-target-model": "names a model of a multi-model endpoint",
    b"x-amzn-sagemaker-target-container-hostname": "names a container of a pipeline",
    b"x-amzn-sagemaker-inference-component": "names an inference component",
    b"x-amzn-sagemaker-session-id": "asks for a stateful session",
    b"x-amzn-sagemaker-enable-explanations": "asks for explanations by an explainer",
}


def target_variant(headers: dict[bytes, bytes]) -> str:
    """The variant that is named, empty if none is. Raises ValidationError."""
    value = headers.get(TARGET_VARIANT.header, b"").decode("latin-1")
    if value and not TARGET_VARIANT.fits(value):
        raise _refused(TARGET_VARIANT.faults(value))
    return value


def invocation(
    body: bytes | bytearray, headers: dict[bytes, bytes], stream: Stream | None = None
) -> tuple[Invocation, str]:
    """What the container gets, and the inference id. Raises ValidationError."""
    for header, meaning in _UNSUPPORTED.items():
        if header in headers:
            raise ValidationError(
                f"The header {header.decode()} {meaning}, which this endpoint is not; leave it out."
            )
    given: dict[Member, str] = {}
    faults: list[str] = []
    for member in READ if stream is None else STREAM_READ:
        raw = headers.get(member.header)
        if raw is not None:
            given[member] = value = raw.decode("latin-1")
            if not member.fits(value):
                faults += member.faults(value)
    if faults:
        raise _refused(faults)
    accept = given.get(ACCEPT if stream is None else STREAM_ACCEPT, "")
    content_type = given.get(CONTENT_TYPE, "")
    attributes = given.get(CUSTOM_ATTRIBUTES, "")
    made = Invocation(body, content_type, accept, attributes, stream)
    return made, given.get(INFERENCE_ID, "")


def _refused(faults: list[str]) -> ValidationError:
    count = "1 validation error" if len(faults) == 1 else f"{len(faults)} validation errors"
    return ValidationError(f"{count} detected: {'; '.join(faults)}")
