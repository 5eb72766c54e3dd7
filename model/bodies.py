"""What a function of the user's returned as a body: bytes at once, or parts as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model.messages import Response


def as_bytes(value: Any, name: str) -> bytes:
    """Text, bytes or a stream, as `requests` takes them. Raises TypeError naming the function."""
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{name} gave {type(value).__name__} as the body; str or bytes is due.")


def answer(value: Any, content_type: str, name: str, status: int = 200) -> Response:
    """A response of a body, or of the parts of one where the value is an iterator."""
    if isinstance(value, Iterator) and not hasattr(value, "read"):
        return Response(status, content_type, b"", parts=parts(value, name))
    return Response(status, content_type, as_bytes(value, name))


def parts(value: Iterator[Any], name: str) -> Iterator[bytes]:
    """What the user's code yields, as bytes. Closing this closes that."""
    try:
        for part in value:
            yield as_bytes(part, name)
    finally:
        if (close := getattr(value, "close", None)) is not None:
            close()


def collected(response: Response) -> Response:
    """The response with all its parts in the body. Raises whatever the user's code raises."""
    if response.parts is None:
        return response
    body = b"".join(response.parts)
    return Response(response.status, response.content_type, body, response.custom_attributes)
