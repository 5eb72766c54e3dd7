"""The errors that callers of the AWS API can meet. One class each; turned into HTTP in `wire.py`.

LukewarmError
 +- InvocationError                   what InvokeEndpoint answers
 |   +- ModelError                    424  the container failed, timed out or vanished
 |   +- ModelNotReadyException        429  still being provisioned
 |   +- ValidationError               400  no such endpoint, variant, or an oversize body
 |   +- ThrottlingException           400  MaxConcurrency exceeded; the message is null
 |   +- PayloadTooLarge               413  a real-time body over the limit; plain text
 |   +- ServiceUnavailable            503
 |   +- InternalFailure               500  a fault of ours
 |   +- InternalDependencyException   530  the ledger cannot be written
 |   +- ModelStreamError                   in a stream that has begun: the container failed
 |   +- InternalStreamFailure              in a stream that has begun: a fault of ours
 +- ControlError                      what the control plane answers, all 400 but the last
 |   +- ValidationException
 |   |   +- NotFound                  "Could not find ..."; AWS has no code of its own for it
 |   +- ResourceLimitExceeded
 |   +- ResourceInUse                 the name of a training job that there is
 |   +- ResourceNotFound              of a training job, where AWS has a code for it
 |   +- UnknownOperationException      no such operation; AWS says nothing more
 |   +- SerializationException         the request is not what the operation takes
 |   +- RequestTooLarge           413  RequestEntityTooLargeException
 +- AccessError                       who may not call, with EMULATOR_AUTH: `auth.py`, `guard.py`
 |   +- SignatureError                403  what AWS answers instead of the service
 |   |   +- MissingAuthenticationTokenException
 |   |   +- IncompleteSignatureException
 |   |   +- UnrecognizedClientException
 |   |   +- InvalidSignatureException
 |   |   +- ContentMismatch          400  XAmzContentSHA256Mismatch, of S3
 |   +- TokenRequired                 401  our own REST takes a signature or the token
 |   +- ForeignRequest                403  another web site calls our own REST
 +- SetupError                        the server cannot start, or a model cannot be used as given

Codes and statuses are botocore's, message forms those of captured replies: docs/fidelity.md.
"""

from __future__ import annotations


class LukewarmError(Exception):
    """The root: `str()` of any of them is one clear sentence."""

    code = "InternalFailure"
    status = 500


class InvocationError(LukewarmError):
    """An error that InvokeEndpoint answers with."""


class ModelError(InvocationError):
    """The model container answered with an error, timed out, or went away.

    `original_status` is the container's HTTP status, 0 where it gave none; `original_message` its
    body; `log_stream_arn` names where its output is; `timed_out` says that it took too long.
    """

    code = "ModelError"
    status = 424

    def __init__(
        self,
        message: str,
        original_status: int,
        original_message: str,
        log_stream_arn: str,
    ) -> None:
        super().__init__(message)
        self.timed_out = False
        self.original_status = original_status
        self.original_message = original_message
        self.log_stream_arn = log_stream_arn


class ModelNotReadyException(InvocationError):
    code = "ModelNotReadyException"
    status = 429


class ValidationError(InvocationError):
    code = "ValidationError"
    status = 400


class ThrottlingException(InvocationError):
    """AWS sends no message with it: the body is `{"message":null}`."""

    code = "ThrottlingException"
    status = 400


class PayloadTooLarge(InvocationError):
    """AWS answers this one as plain text without an error code."""

    code = ""
    status = 413


class ServiceUnavailable(InvocationError):
    code = "ServiceUnavailable"
    status = 503


class InternalFailure(InvocationError):
    code = "InternalFailure"
    status = 500


class InternalDependencyException(InvocationError):
    """Something that the server needs does not work: its ledger."""

    code = "InternalDependencyException"
    status = 530


class ModelStreamError(InvocationError):
    """The container failed while it streamed its answer. The HTTP status was 200; the one here is
    what the ledger and the metrics count it as."""

    code = "ModelStreamError"
    status = 424

    def __init__(self, message: str, error_code: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class InternalStreamFailure(InvocationError):
    """Something of ours failed while an answer was streamed."""

    code = "InternalStreamFailure"
    status = 500


class ControlError(LukewarmError):
    """An error of creating, describing or deleting a resource."""

    status = 400


class ValidationException(ControlError):
    code = "ValidationException"


class NotFound(ValidationException):
    """There is no resource of that name; our own REST answers 404."""


class ResourceLimitExceeded(ControlError):
    code = "ResourceLimitExceeded"


class ResourceInUse(ControlError):
    code = "ResourceInUse"


class ResourceNotFound(ControlError):
    code = "ResourceNotFound"


class UnknownOperationException(ControlError):
    """AWS sends no message with it."""

    code = "UnknownOperationException"


class SerializationException(ControlError):
    """The body is no JSON, or a value in it is of another type."""

    code = "SerializationException"


class RequestTooLarge(ControlError):
    """The body has more bytes than a request of the control plane may have."""

    code = "RequestEntityTooLargeException"
    status = 413


class AccessError(LukewarmError):
    """The caller is not let in; nothing was done."""

    status = 403


class SignatureError(AccessError):
    """What AWS answers instead of the service, before it looks at what is asked for."""


class MissingAuthenticationTokenException(SignatureError):
    """The request is not signed at all."""

    code = "MissingAuthenticationTokenException"


class IncompleteSignatureException(SignatureError):
    """The Authorization header is not of the form that SigV4 has."""

    code = "IncompleteSignatureException"


class UnrecognizedClientException(SignatureError):
    """There is no such access key."""

    code = "UnrecognizedClientException"


class InvalidSignatureException(SignatureError):
    """Signed with another secret, for another scope, at another time, or changed on the way."""

    code = "InvalidSignatureException"


class ContentMismatch(SignatureError):
    """The body is not the one that was signed."""

    code = "XAmzContentSHA256Mismatch"
    status = 400


class TokenRequired(AccessError):
    """Our own REST is asked without a signature and without the token."""

    code = "TokenRequired"
    status = 401


class ForeignRequest(AccessError):
    """A web page from elsewhere asks for what only the server's own pages and tools may do."""

    code = "ForeignRequest"


class SetupError(LukewarmError):
    """Something that a person has to mend before the server or a model can start."""
