"""Both clocks: instants, timers in order, and what does not sleep."""

from __future__ import annotations

import asyncio

from emulator.clock import Timer, VirtualClock, WallClock, iso
from emulator.core import SECOND


def test_virtual_time_moves_only_when_advanced_and_fires_timers_in_order() -> None:
    clock = VirtualClock(100 * SECOND)
    log: list[tuple[str, int]] = []
    clock.call_at(130 * SECOND, lambda: log.append(("late", clock.now())))
    clock.call_at(110 * SECOND, lambda: log.append(("early", clock.now())))
    clock.call_at(110 * SECOND, lambda: log.append(("early, second", clock.now())))
    assert clock.now() == 100 * SECOND
    clock.advance(20 * SECOND)
    assert log == [("early", 110 * SECOND), ("early, second", 110 * SECOND)]
    assert clock.now() == 120 * SECOND
    clock.advance(10 * SECOND)
    assert log[-1] == ("late", 130 * SECOND)


def test_a_timer_set_by_a_timer_fires_in_the_same_advance() -> None:
    clock = VirtualClock(0)
    log: list[int] = []

    def again() -> None:
        log.append(clock.now())
        if len(log) < 5:
            clock.call_at(clock.now() + SECOND, again)

    clock.call_at(SECOND, again)
    clock.advance(10 * SECOND)
    assert log == [n * SECOND for n in range(1, 6)]


def test_a_cancelled_timer_does_not_fire() -> None:
    clock = VirtualClock(0)
    log: list[int] = []
    timer: Timer = clock.call_at(SECOND, lambda: log.append(1))
    timer.cancel()
    clock.advance(2 * SECOND)
    assert log == []


def test_the_virtual_clock_does_not_wait_for_a_modelled_delay() -> None:
    async def pause_a_year() -> None:
        await asyncio.wait_for(VirtualClock(0).pause(365 * 86_400 * SECOND), 5)

    asyncio.run(pause_a_year())


def test_a_wall_timer_never_fires_before_its_instant() -> None:
    async def wait() -> int:
        clock, done = WallClock(), asyncio.get_running_loop().create_future()
        when = clock.now() + SECOND // 100
        clock.call_at(when, lambda: done.set_result(clock.now() - when))
        late: int = await asyncio.wait_for(done, 10)
        return late

    assert asyncio.run(wait()) >= 0


def test_wall_time_is_the_date_and_never_goes_back() -> None:
    clock = WallClock()
    instants = [clock.now() for _ in range(1000)]
    assert instants == sorted(instants)
    assert iso(instants[0])[:2] == "20"


def test_instants_are_shown_in_utc() -> None:
    assert iso(1_700_000_000_123 * 1_000_000) == "2023-11-14T22:13:20.123Z"
