"""What a caller is told in place of an answer, in the form that the protocol's clients parse."""

from __future__ import annotations

import uuid
from xml.sax.saxutils import escape

import orjson

Headers = list[tuple[bytes, bytes]]
UNKNOWN = "UnknownOperationException"


class Refusal(Exception):
    """An error of AWS's kind: its code, one sentence, and the HTTP status."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.text, self.status = code, text, status


def refuse(service: str, headers: dict[bytes, bytes], error: Refusal) -> tuple[Headers, bytes]:
    """Headers and body of an error: XML for S3, CBOR, JSON or XML for others, as they asked."""
    request_id = str(uuid.uuid4())
    told: Headers = [
        (b"x-amzn-requestid", request_id.encode()),
        (b"x-amzn-errortype", error.code.encode()),
    ]
    content_type = headers.get(b"content-type", b"")
    if service in ("s3", "s3-object-lambda"):
        return [*told, (b"content-type", b"application/xml")], _s3(error, request_id)
    if headers.get(b"smithy-protocol") == b"rpc-v2-cbor":
        told += [(b"content-type", b"application/cbor"), (b"smithy-protocol", b"rpc-v2-cbor")]
        return told, cbor_error(error.code, error.text)
    if content_type.startswith(b"application/x-www-form-urlencoded"):
        return [*told, (b"content-type", b"text/xml")], _query(error, request_id)
    body = {"__type": error.code, "message": error.text}
    return [*told, (b"content-type", b"application/x-amz-json-1.1")], orjson.dumps(body)


def _s3(error: Refusal, request_id: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.text)}</Message>"
        f"<RequestId>{request_id}</RequestId></Error>"
    ).encode()


def _query(error: Refusal, request_id: str) -> bytes:
    code = "InvalidAction" if error.code == UNKNOWN else error.code
    whose = "Sender" if error.status < 500 else "Receiver"
    return (
        f"<ErrorResponse><Error><Type>{whose}</Type><Code>{escape(code)}</Code>"
        f"<Message>{escape(error.text)}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def cbor_error(code: str, message: str) -> bytes:
    """The body of an error in CBOR: a map of two texts."""
    made = bytearray([0xA2])
    for word in ("__type", code, "message", message):
        raw = word.encode()
        made += b"\x7a" + len(raw).to_bytes(4, "big") + raw
    return bytes(made)
