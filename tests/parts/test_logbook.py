"""The logbook: lines come back in order, over restarts, and never more than the bounds allow."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from emulator import logbook
from emulator.address import Home
from emulator.logbook import Event, Logbook, Position, Stream

HOME = Home("123456789012", "eu-west-3")
STREAM = Stream("endpoint", "AllTraffic", "one")
T = TypeVar("T")


def run(folder: Path, work: Callable[[Logbook], Awaitable[T]]) -> T:
    async def main() -> T:
        book = Logbook(folder)
        try:
            return await work(book)
        finally:
            await book.close()

    return asyncio.run(main())


async def read(
    book: Logbook, stream: Stream = STREAM, since: Position | None = None
) -> tuple[list[Event], Position]:
    await book.flush()
    return await book.call(lambda: book.read(HOME, stream, since or Position()))


def test_lines_come_back_in_order_and_outlive_the_book(tmp_path: Path) -> None:
    lines = ["first", "", "ä€ \t", "\udcff is no character", '"quotes"\\']

    async def write(book: Logbook) -> None:
        for number, line in enumerate(lines):
            book.write(HOME, *STREAM, number * 1_000_000, line)

    async def again(book: Logbook) -> list[Event]:
        assert await book.call(lambda: book.streams(HOME)) == [STREAM]
        assert await book.call(lambda: book.streams(Home("1" * 12, HOME.region))) == []
        return (await read(book))[0]

    run(tmp_path, write)
    events = run(tmp_path, again)
    assert [event.at_ms for event in events] == [0, 1, 2, 3, 4]
    assert [event.line for event in events] == [*lines[:3], "? is no character", lines[4]]


def test_reading_goes_on_where_it_ended_also_into_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "FILE_BYTES", 1000)

    async def work(book: Logbook) -> list[str]:
        seen: list[str] = []
        position = Position()
        for turn in range(30):
            for number in range(3):
                book.write(HOME, *STREAM, turn, f"{turn}-{number} {'x' * 40}")
            if turn % 3 == 0:
                events, position = await read(book, since=position)
                seen += [event.line.split()[0] for event in events]
            else:
                await book.flush()
        events, position = await read(book, since=position)
        assert (await read(book, since=position))[0] == []
        return seen + [event.line.split()[0] for event in events]

    expected = [f"{turn}-{number}" for turn in range(30) for number in range(3)]
    assert run(tmp_path, work) == expected
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 3000


def test_what_comes_too_fast_is_left_out_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "HELD_BYTES", 10_000)

    async def work(book: Logbook) -> list[Event]:
        for _ in range(10_000):
            book.write(HOME, *STREAM, 5_000_000, "x" * 100)
        return (await read(book))[0]

    events = run(tmp_path, work)
    assert len(events) < 100
    assert events[-1].line == (
        f"... {10_000 - len(events) + 1} lines are left out: they came faster than they could be"
        " kept ..."
    )
    assert events[-1].at_ms == 5


def test_the_oldest_environments_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "STREAMS", 3)

    async def work(book: Logbook) -> list[Stream]:
        for number in range(6):
            stream = STREAM._replace(environment=str(number))
            book.write(HOME, *stream, 0, "line")
            await book.flush()
            path = next(tmp_path.rglob(f"{number}.log"))
            os.utime(path, (number, number))
        return await book.call(lambda: book.streams(HOME))

    assert [stream.environment for stream in run(tmp_path, work)] == ["3", "4", "5"]


def test_what_is_two_weeks_old_goes_and_so_does_what_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "ALL_BYTES", 1000)
    monkeypatch.setattr(logbook, "PRUNED_EVERY", 2)
    now = time.time()

    async def work(book: Logbook) -> set[str]:
        for name, age_s, size in (
            ("old", 15 * 86_400, 1),
            ("large", 60, 900),
            ("recent", 30, 1),
            ("b", 20, 1),
        ):
            book.write(HOME, name, "v", "e", 0, "x" * size)
            await book.flush()
            os.utime(next(tmp_path.rglob(f"{name}/v/e.log")), (now - age_s, now - age_s))
        book.write(HOME, "last", "v", "e", 0, "x" * 200)
        await book.flush()
        return {stream.endpoint for stream in await book.call(lambda: book.streams(HOME))}

    assert run(tmp_path, work) == {"recent", "b", "last"}


def test_names_do_not_lead_elsewhere(tmp_path: Path) -> None:
    odd = Stream("..", "a/b", "../../c")

    async def work(book: Logbook) -> list[Stream]:
        book.write(HOME, *odd, 0, "line")
        await book.flush()
        return await book.call(lambda: book.streams(HOME))

    assert run(tmp_path / "logs", work) == [odd]
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
