"""The form `aws-chunked`: however it is cut, payload and trailers are the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.chunks import LONGEST_LINE, Malformed, Unchunked


def chunked(payloads: list[bytes], trailers: dict[str, str], signed: bool) -> bytes:
    extra = b";chunk-signature=" + b"0" * 64 if signed else b""
    made = b"".join(
        b"%x%s\r\n%s\r\n" % (len(payload), extra, payload) for payload in payloads if payload
    )
    lines = "".join(f"{name}:{value}\r\n" for name, value in trailers.items())
    return made + b"0" + extra + b"\r\n" + lines.encode() + b"\r\n"


@given(
    st.lists(st.binary(max_size=300), max_size=5),
    st.lists(st.integers(0, 1500), max_size=20),
    st.booleans(),
)
def test_the_payload_is_the_same_however_it_is_cut(
    payloads: list[bytes], cuts: list[int], signed: bool
) -> None:
    raw = chunked(payloads, {"x-amz-checksum-crc32": "AAAAAA=="}, signed)
    form, got = Unchunked(), b""
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for start, end in pairwise(edges):
        got += b"".join(form.feed(raw[start:end]))
    assert got == b"".join(payloads)
    assert form.done
    assert form.trailers == {"x-amz-checksum-crc32": "AAAAAA=="}


@pytest.mark.parametrize(
    "raw", [b"xyz\r\n", b"-1\r\n", b"2\r\nabcd\r\n0\r\n\r\n", b"1" * (LONGEST_LINE + 1)]
)
def test_what_is_not_of_the_form_is_said_to_be_so(raw: bytes) -> None:
    with pytest.raises(Malformed):
        list(Unchunked().feed(raw))


def test_a_body_that_ends_early_is_not_done() -> None:
    form = Unchunked()
    assert b"".join(form.feed(b"5\r\nab")) == b"ab"
    assert not form.done
