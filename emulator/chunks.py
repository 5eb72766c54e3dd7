"""The form `aws-chunked` that clients give to bodies with trailing checksums. Pure: bytes in, bytes
out, whatever pieces they come in. Signatures of chunks are dropped, as the body's hash is checked
elsewhere or nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator

LONGEST_LINE = 8192  # bytes; a signature of a chunk is some 90
_SIZE, _DATA, _END, _TRAILER, _DONE = range(5)


class Malformed(ValueError):
    """What came is not of this form; the text is a sentence."""


class Unchunked:
    """Takes the form off. `trailers` is complete once `done` is true; names are in lower case."""

    def __init__(self) -> None:
        self.trailers: dict[str, str] = {}
        self._held = b""
        self._left = 0
        self._state = _SIZE

    @property
    def done(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payload in these bytes. Raises Malformed."""
        data, self._held = self._held + data, b""
        start = 0
        while start < len(data) and not self.done:
            if self._state == _DATA:
                piece = data[start : start + self._left]
                self._left -= len(piece)
                start += len(piece)
                if not self._left:
                    self._state = _END
                yield piece
                continue
            end = data.find(b"\n", start)
            if end < 0:
                self._held = data[start:]
                if len(self._held) > LONGEST_LINE:
                    raise Malformed("A line of the chunked body has no end.")
                return
            self._line(data[start:end].rstrip(b"\r"))
            start = end + 1

    def _line(self, line: bytes) -> None:
        if self._state == _END:
            if line:
                raise Malformed("A chunk of the body is longer than it says.")
            self._state = _SIZE
        elif self._state == _SIZE:
            self._left = _size(line)
            self._state = _DATA if self._left else _TRAILER
        elif not line:
            self._state = _DONE
        else:
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers[name.strip().lower()] = value.strip()


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        size = int(digits, 16)
    except ValueError:
        size = -1
    if size < 0:
        raise Malformed(f"A chunk's size is {digits[:32].decode('latin-1')!r}, which is no number.")
    return size
