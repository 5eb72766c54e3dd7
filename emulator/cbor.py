"""The protocol `rpc-v2-cbor` for a service that is answered in AWS's JSON: requests and answers
are turned from one into the other, by botocore's model of the service.

moto does not know this protocol; current SDKs other than boto3 speak it to CloudWatch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from emulator.calls import Answer, Request
from emulator.refusals import UNKNOWN, Headers, Refusal, cbor_error

MARK = b"rpc-v2-cbor"
_TARGETS = {"monitoring": ("cloudwatch", "GraniteServiceVersion20100801")}
_JSON = b"application/x-amz-json-1.0"
_CBOR: Headers = [(b"content-type", b"application/cbor"), (b"smithy-protocol", MARK)]


def answered(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    """A request in CBOR, answered by what answers it in JSON. Raises Refusal."""
    if request.address.service not in _TARGETS:
        raise Refusal(UNKNOWN, "This service is not asked in CBOR.")
    service, target = _TARGETS[request.address.service]
    name = operation(request.raw_path.decode("latin-1"))
    assert isinstance(request.body, bytes)
    headers = {k: v for k, v in request.headers.items() if k != b"smithy-protocol"}
    headers |= {b"content-type": _JSON, b"x-amz-target": f"{target}.{name}".encode()}
    made = answer(request._replace(raw_path=b"/", headers=headers, body=_as_json(request.body)))
    assert isinstance(made.body, bytes)
    told = [pair for pair in made.headers if pair[0] != b"content-type"]
    if made.status >= 400:
        return Answer(made.status, [*told, *_CBOR], _error(made.body))
    return Answer(made.status, [*told, *_CBOR], _from_json(service, name, made.body))


def _error(body: bytes) -> bytes:
    found = json.loads(body)
    message = found.get("message") or found.get("Message") or ""
    return cbor_error(str(found.get("__type", UNKNOWN)), str(message))


def operation(path: str) -> str:
    """The name of the operation in /service/.../operation/Name. Raises Refusal without one."""
    parts = path.split("/")
    if len(parts) != 5 or parts[3] != "operation" or not parts[4].isalnum():
        raise Refusal(UNKNOWN, f"There is no operation {path[:200]!r} here.")
    return parts[4]


def _as_json(body: bytes) -> bytes:
    """A request's body, instants as numbers. Raises Refusal if it is not CBOR."""
    from botocore.parsers import RpcV2CBORParser

    if not body:
        return b"{}"
    try:
        stream = RpcV2CBORParser().get_peekable_stream_from_bytes(body)
        return json.dumps(RpcV2CBORParser().parse_data_item(stream), default=_plain).encode()
    except Exception as error:  # noqa: BLE001 - whatever botocore trips over in foreign bytes
        raise Refusal("SerializationException", f"The body is not CBOR: {error}.") from None


def _from_json(service: str, name: str, body: bytes) -> bytes:
    """An answer's body, by the shape that the operation's answer has."""
    from botocore.serialize import RpcV2CBORSerializer

    shape = _model(service).operation_model(name).output_shape
    if shape is None:
        return b"\xa0"
    parsed = _parser(shape, body)
    made = bytearray()
    RpcV2CBORSerializer()._serialize_data_item(made, parsed, shape)
    return bytes(made)


def _parser(shape: Any, body: bytes) -> dict[str, Any]:
    from botocore.parsers import JSONParser

    answer = {"status_code": 200, "headers": {}, "body": body or b"{}", "context": {}}
    parsed: dict[str, Any] = JSONParser().parse(answer, shape)
    parsed.pop("ResponseMetadata", None)
    return parsed


@cache
def _model(service: str) -> Any:
    import botocore.session

    return botocore.session.Session().get_service_model(service)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{type(value).__name__} has no place here")
