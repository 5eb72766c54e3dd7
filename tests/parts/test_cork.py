"""What leaves a corked transport, and in how many writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from emulator.cork import SMALL, Cork


class Recorder(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def write(self, data: Any) -> None:
        self.told.append(bytes(data))

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def is_closing(self) -> bool:
        return False


def told(*calls: tuple[Any, ...]) -> list[Any]:
    """What the transport below is told of calls within one turn, and after it."""

    async def turn() -> list[Any]:
        below = Recorder()
        above = Cork(below, asyncio.get_running_loop())
        for name, *given in calls:
            getattr(above, name)(*given)
        await asyncio.sleep(0)
        return below.told

    return asyncio.run(turn())


LARGE = b"x" * (SMALL + 1)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("write", b"head"), ("write", b"body")], [b"headbody"]),
        ([("write", b"head")], [b"head"]),
        ([("write", b"head"), ("write", LARGE)], [b"head", LARGE]),
        ([("write", LARGE), ("write", b"tail")], [LARGE, b"tail"]),
        ([("write", b"1"), ("write", b"2"), ("write", b"3")], [b"12", b"3"]),
        ([("write", b"head"), ("close",)], [b"head", "close"]),
        ([("write", b"head"), ("write_eof",)], [b"head", "eof"]),
        ([("write", b"head"), ("abort",)], ["abort"]),
    ],
)
def test_nothing_is_lost_or_overtaken(calls: list[Any], expected: list[Any]) -> None:
    assert told(*calls) == expected
