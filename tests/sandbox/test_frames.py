"""Frames through a socket and through the incremental reader."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.sandbox.frames import (
    HEADER,
    MAX_BODY_BYTES,
    MAX_META_BYTES,
    SMALL_BYTES,
    Frame,
    FrameError,
    Kind,
    Reader,
    head,
    receive,
    send,
)

SIZES = st.one_of(
    st.integers(0, 300), st.integers(SMALL_BYTES - 60, SMALL_BYTES + 60), st.just(200_000)
)


def read(data: bytes, step: int) -> list[Frame]:
    reader, frames, view = Reader(), [], memoryview(data)
    while view:
        room = reader.buffer()
        count = min(len(room), len(view), step)
        room[:count] = view[:count]
        view = view[count:]
        frames += reader.received(count)
    return frames


@given(st.lists(SIZES, max_size=5), st.integers(1, 100_000))
def test_frames_survive_any_division_into_pieces(sizes: list[int], step: int) -> None:
    step = max(step, sum(sizes) // 2000 + 1)
    sent = [Frame(Kind.REPLY, {"n": i}, bytes([i + 1]) * size) for i, size in enumerate(sizes)]
    data = b"".join(head(f.kind, f.meta, len(f.body)) + f.body for f in sent)
    assert read(data, step) == sent


def test_a_large_body_crosses_a_socket() -> None:
    ours, theirs = socket.socketpair()
    body = bytes(range(256)) * 20_000
    with ours, theirs:
        sender = threading.Thread(target=send, args=(ours, Kind.INVOKE, {"a": "ü"}, body))
        sender.start()
        assert receive(theirs) == Frame(Kind.INVOKE, {"a": "ü"}, body)
        sender.join()
        ours.close()
        assert receive(theirs) is None


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.pack(99, 2, 0), "99 is not a kind"),
        (HEADER.pack(Kind.REPLY, MAX_META_BYTES + 1, 0), "meta of 1048577 bytes"),
        (HEADER.pack(Kind.REPLY, 2, MAX_BODY_BYTES + 1), "body of 268435457 bytes"),
    ],
)
def test_a_header_that_cannot_be_is_refused(header: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        read(header, len(header))


def test_meta_that_is_no_json_is_refused() -> None:
    with pytest.raises(FrameError, match="not JSON"):
        head(Kind.REPLY, {"a": object()}, 0)
