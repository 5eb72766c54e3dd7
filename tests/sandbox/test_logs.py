"""The pipe that an environment's output comes through: every line, in turns, without a stall."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from itertools import pairwise

from emulator.sandbox.logs import LINES, LogPipe
from tests.sandbox.conftest import Run, until


def reached(seen: list[str], wanted: int) -> bool:
    return len(seen) == wanted


def test_a_flood_of_short_lines_leaves_turns_to_others(run: Run) -> None:
    async def flood() -> None:
        loop, seen, turns = asyncio.get_running_loop(), list[str](), list[int]()
        output, log = os.pipe()
        pipe = LogPipe(output, seen.append)

        def turn() -> None:
            turns.append(len(seen))
            if len(seen) < 3 * 4000:
                loop.call_soon(turn)

        for number in range(3):
            os.write(log, b"%d\n" % number * 4000)
            loop.call_soon(turn)
            await until(partial(reached, seen, 4000 * (number + 1)))
        steps = [after - before for before, after in pairwise(turns)]
        assert max(steps) <= 2 * LINES
        assert [seen.count(str(number)) for number in range(3)] == [4000] * 3
        os.close(log)
        pipe.close()

    run(flood())


def test_closing_leaves_out_all_but_the_end_of_a_flood(run: Run) -> None:
    async def flood() -> None:
        seen = list[str]()
        output, log = os.pipe()
        pipe = LogPipe(output, seen.append)
        os.write(log, b"".join(b"%d\n" % number for number in range(5000)))
        pipe.close()
        os.close(log)
        assert seen == ["... 4900 lines are left out ...", *map(str, range(4900, 5000))]
        assert list(pipe.tail)[-1] == "4999"

    run(flood())
