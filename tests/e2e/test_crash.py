"""kill -9 of the server under load: every answer that a client got is in the ledger, once, and no
more than a beat of instance time is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.load import REALTIME, SERVERLESS, Load, Reading, check_bill, read_meter, rows
from tests.servers import LIGHT, Server, alive, descendants, serving, until

ROUNDS = int(os.environ.get("LUKEWARM_CRASH_ROUNDS", "3"))
BEAT_S = 1.0  # the most instance time that a crash loses: docs/fidelity.md
ROUNDING_S = 0.1


def reached(moment: float) -> bool:
    return time.monotonic() >= moment


def check_children(pids: list[int]) -> None:
    assert len(pids) >= 3  # the zygote and two environments
    until(lambda: not any(map(alive, pids)), "no child outlives the server", 2)


def check_invocations(server: Server, load: Load) -> None:
    recorded = Counter(row["request_id"] for row in rows(server))
    assert max(recorded.values()) == 1
    assert load.answers.keys() <= recorded.keys()
    assert load.statuses().keys() == {200}
    check_bill(server)


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_no_answer_is_lost_or_counted_twice_when_the_server_is_killed(tmp_path: Path) -> None:
    chance, load = random.Random(7), Load()
    with serving(tmp_path, **LIGHT) as server:
        before = read_meter(server)
        for _ in range(ROUNDS):
            known = len(load.answers)
            with load.on(server, [REALTIME, SERVERLESS, SERVERLESS], may_end=True):
                load.wait(200, chance.randrange(20, 200), "some answers")
                moment = before.told + 2 * BEAT_S + chance.random()
                until(partial(reached, moment), "the moment has come")
                pids = descendants(server.process.pid)
                killed = time.monotonic()
                server.process.send_signal(signal.SIGKILL)
                server.process.wait(10)
                dead = time.monotonic()
            check_children(pids)
            server.client.close()
            restarted = time.monotonic()
            server.start()
            check_invocations(server, load)
            states = {server.endpoint(one)["status"] for one in (REALTIME, SERVERLESS)}
            assert states == {"InService"}
            # Any turn of the loop may be late by what some answer was late.
            most_lost = BEAT_S + load.slowest_s(known) + ROUNDING_S
            after = read_meter(server)
            check_time(before, after, killed - most_lost, dead + after.told - restarted)
            before = after


def check_time(before: Reading, after: Reading, least: float, most: float) -> None:
    """The instance was held from before the first reading until between the two instants."""
    grown = after.held - before.held
    assert least - before.told <= grown <= most - before.asked + ROUNDING_S
