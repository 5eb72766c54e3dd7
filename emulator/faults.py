"""What a caller is told when a container answers with an error, times out, or vanishes.

The message forms are those of captured ModelErrors; what is not captured from
the real service is said in `docs/fidelity.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulator.address import Home, Key
from emulator.core import Cause
from emulator.errors import (
    InternalFailure,
    InternalStreamFailure,
    InvocationError,
    ModelError,
    ModelStreamError,
    ThrottlingException,
)
from emulator.errors import ServiceUnavailable as Unavailable

MAX_ORIGINAL = 2048  # OriginalMessage in botocore's service model
TIME_EXCEEDED, BROKEN = "ModelInvocationTimeExceeded", "StreamBroken"  # ErrorCode of a stream


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container runs, as messages and ARNs name it."""

    region: str
    account: str
    endpoint: str
    variant: str

    @property
    def key(self) -> Key:
        """What the endpoint is known by."""
        return Key(Home(self.account, self.region), self.endpoint)

    def log_stream_arn(self, environment: str) -> str:
        return (
            f"arn:aws:logs:{self.region}:{self.account}:log-group:/aws/sagemaker/Endpoints/"
            f"{self.endpoint}:log-stream:{self.variant}/{environment or '-'}"
        )


def arn(key: Key, kind: str) -> str:
    """The ARN of a SageMaker resource. AWS lower-cases the name in it, as captured replies show."""
    return f"arn:aws:sagemaker:{key.home.region}:{key.home.account}:{kind}/{key.name.lower()}"


def container_answered(place: Place, environment: str, status: int, body: bytes) -> ModelError:
    """The container gave a status other than 2xx."""
    side = "client" if 400 <= status < 500 else "server"
    text = body[:MAX_ORIGINAL].decode("utf-8", "replace")
    return _model_error(place, environment, f"Received {side} error ({status})", status, text)


def response_too_large(place: Place, environment: str, status: int) -> ModelError:
    """The container's body is over the response limit."""
    return ModelError(
        f"Received server error ({status}) from primary and could not load the entire response "
        f"body. {_see(place)}",
        status,
        "",
        place.log_stream_arn(environment),
    )


def unusable_header(place: Place, environment: str, status: int, value: str) -> ModelError:
    """The container's content type or custom attributes are no header."""
    text = f"The container answered with a header that cannot be sent: {value[:80]!r}."
    return _model_error(place, environment, f"Received server error ({status})", status, text)


def no_response(place: Place) -> ModelError:
    """The container took no request, or gave nothing back."""
    text = (
        f"Amazon SageMaker could not get a response from the {place.endpoint} endpoint. This can "
        "occur when CPU or memory utilization is high. To check your utilization, see Amazon "
        "CloudWatch. To fix this problem, use an instance type with more CPU capacity or memory."
    )
    message = f'Received server error (0) from model with message "{text}". {_see(place)}'
    return ModelError(message, 0, text, place.log_stream_arn(""))


def unanswered(place: Place, environment: str, cause: Cause, words: str) -> InvocationError:
    """No answer came: `words` is what the environment or the host had to say about it."""
    if cause is Cause.THROTTLED:
        return ThrottlingException("")
    if cause is Cause.CLOSED:
        return Unavailable(f"The endpoint {place.endpoint} is being taken out of service.")
    if cause not in _TEXTS:
        return InternalFailure(f"The invocation ended as {cause.value}. {words}".strip())
    text = _TEXTS[cause].format(endpoint=place.endpoint)
    if words:
        text = f"{text} {words}"
    error = _model_error(place, environment, "Received server error (0)", 0, text)
    error.timed_out = cause is Cause.TIMED_OUT
    return error


def in_stream(error: InvocationError) -> ModelStreamError | InternalStreamFailure:
    """What ends a stream that has begun: there is no status left to say it with."""
    if isinstance(error, ModelStreamError | InternalStreamFailure):
        return error
    text = str(error)[:MAX_ORIGINAL]
    if isinstance(error, ModelError):
        return ModelStreamError(text, TIME_EXCEEDED if error.timed_out else BROKEN)
    return InternalStreamFailure(text)


def creation_failure(place: Place, cause: Cause, words: str) -> str:
    """`FailureReason` of an endpoint whose environments did not come up."""
    if cause is Cause.START_TIMED_OUT:
        reason = (
            f"The primary container for production variant {place.variant} did not pass the ping "
            "health check. Please check CloudWatch logs for this endpoint."
        )
        return f"{reason} {words}".strip()
    text = f"{_TEXTS.get(cause, _TEXTS[Cause.DIED])} {words}".strip()
    return f'Received server error (0) from primary with message "{text}". {_see(place)}'


_TEXTS = {
    Cause.TIMED_OUT: (
        "Your invocation timed out while waiting for a response from container primary. Review "
        "the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try "
        "again."
    ),
    Cause.START_TIMED_OUT: (
        "The primary container did not pass the ping health check within its start-up limit."
    ),
    Cause.LOAD_FAILED: (
        "An error occurred while handling request as the model process could not load the model."
    ),
    Cause.DIED: "An error occurred while handling request as the model process exited.",
    Cause.OUT_OF_MEMORY: (
        "An error occurred while handling request as the model process was ended for "
        "insufficient memory."
    ),
}


def _model_error(
    place: Place, environment: str, start: str, status: int, original: str
) -> ModelError:
    return ModelError(
        f'{start} from primary with message "{original}". {_see(place)}',
        status,
        original,
        place.log_stream_arn(environment),
    )


def _see(place: Place) -> str:
    return (
        f"See https://{place.region}.console.aws.amazon.com/cloudwatch/home?region={place.region}"
        f"#logEventViewer:group=/aws/sagemaker/Endpoints/{place.endpoint} in account "
        f"{place.account} for more information."
    )
