"""Messages of an event stream, as botocore reads them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator import eventstream

botocore = pytest.importorskip("botocore.eventstream")


def read(*messages: bytes, chunk: int = 7) -> list[Any]:
    """What botocore makes of the messages, which it gets in pieces. It checks both checksums."""
    buffer = botocore.EventStreamBuffer()
    content = b"".join(messages)
    found = []
    for at in range(0, len(content), chunk):
        buffer.add_data(content[at : at + chunk])
        found += list(buffer)
    return found


def test_an_event_and_an_exception() -> None:
    part = eventstream.event("PayloadPart", "application/octet-stream", b"\x00\xffbytes")
    broken = eventstream.exception("ModelStreamError", b'{"Message":"gone"}')
    first, second = read(part, broken)
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    assert first.payload == b"\x00\xffbytes"
    assert second.headers[":message-type"] == "exception"
    assert second.headers[":exception-type"] == "ModelStreamError"
    assert second.payload == b'{"Message":"gone"}'


@given(
    st.dictionaries(st.text(min_size=1, max_size=60), st.text(max_size=200), max_size=5),
    st.lists(st.binary(max_size=3000), max_size=4),
    st.integers(1, 5000),
)
def test_whatever_is_sent_is_read(
    headers: dict[str, str], payloads: list[bytes], chunk: int
) -> None:
    found = read(*(eventstream.message(headers, one) for one in payloads), chunk=chunk)
    assert [one.payload for one in found] == payloads
    assert all(one.headers == headers for one in found)


@pytest.mark.parametrize("at", range(4, 40))  # a wrong length of all of it is one to wait for
def test_one_wrong_byte_is_noticed(at: int) -> None:
    wrong = bytearray(eventstream.event("PayloadPart", "text/plain", b"some bytes"))
    wrong[at] ^= 1
    with pytest.raises((botocore.ChecksumMismatch, botocore.InvalidHeadersLength)):
        read(bytes(wrong))


def test_the_lengths_are_those_of_the_message() -> None:
    whole = eventstream.message({"a": "bc"}, b"def")
    total, headers = struct.unpack_from("!II", whole)
    assert (total, headers) == (len(whole), 1 + 1 + 1 + 2 + 2)
