"""The serverless persona's decisions, one law at a time. `start(1)` reads as the action itself."""

from __future__ import annotations

from emulator.core import NEVER, SECOND, Assign, Cause, Hold, Reject, Resource, Start, Stop
from emulator.serverless import ServerlessPolicy, ServerlessRules

MINUTE = 60 * SECOND


def policy(
    max_concurrency: int = 2, provisioned: int = 0, keep_warm: int = 600 * SECOND
) -> ServerlessPolicy:
    return ServerlessPolicy(ServerlessRules(max_concurrency, provisioned, keep_warm))


def warm(one: ServerlessPolicy, environments: int) -> None:
    """Bring up that many environments and let them go idle, number 1 first."""
    for request in range(environments):
        one.arrive(0, -10 - request)
    for environment in range(1, environments + 1):
        one.ready(0, environment)
    for environment in range(1, environments + 1):
        one.done(0, environment)


def test_first_request_waits_for_its_own_environment() -> None:
    one = policy()
    assert one.arrive(0, 7) == [Start(1)]
    assert one.ready(5, 1) == [Assign(7, 1, cold=True)]
    assert one.done(9, 1) == []
    assert one.arrive(10, 8) == [Assign(8, 1)]


def test_a_waiting_request_is_not_handed_to_an_environment_that_frees_earlier() -> None:
    one = policy()
    one.arrive(0, 7)
    one.ready(1, 1)
    assert one.arrive(2, 8) == [Start(2)]
    assert one.done(3, 1) == []
    assert one.ready(9, 2) == [Assign(8, 2, cold=True)]


def test_newest_idle_environment_first() -> None:
    one = policy(3)
    warm(one, 3)
    assert one.arrive(1, 1) == [Assign(1, 3)]
    assert one.arrive(1, 2) == [Assign(2, 2)]
    one.done(2, 3)
    assert one.arrive(3, 3) == [Assign(3, 3)]


def test_above_max_concurrency_is_throttled_and_never_queued() -> None:
    one = policy(2)
    one.arrive(0, 1)
    one.arrive(0, 2)
    assert one.arrive(0, 3) == [Reject(3, Cause.THROTTLED)]
    one.ready(1, 1)
    assert one.done(2, 1) == []  # nothing was waiting


def test_idle_environments_expire_after_keep_warm_and_not_before() -> None:
    one = policy(2, keep_warm=600 * SECOND)
    warm(one, 1)
    assert one.next_deadline() <= 600 * SECOND
    assert one.tick(600 * SECOND - 1) == []
    assert one.tick(600 * SECOND) == [Stop(1, Cause.EXPIRED)]
    assert one.arrive(601 * SECOND, 2) == [Start(2)]


def test_a_late_timer_does_not_keep_an_environment_warm() -> None:
    one = policy(2, keep_warm=600 * SECOND)
    warm(one, 1)
    assert one.arrive(700 * SECOND, 2) == [Stop(1, Cause.EXPIRED), Start(2)]


def test_each_answer_renews_keep_warm() -> None:
    one = policy(2, keep_warm=600 * SECOND)
    warm(one, 1)
    one.arrive(599 * SECOND, 1)
    one.done(650 * SECOND, 1)
    assert one.tick(1249 * SECOND) == []
    assert one.tick(1250 * SECOND) == [Stop(1, Cause.EXPIRED)]


def test_keep_warm_is_drawn_between_its_bounds_and_repeats_with_the_seed() -> None:
    rules = ServerlessRules(1, 0, 300 * SECOND, 900 * SECOND, seed=5)

    def lifetimes() -> list[int]:
        found = []
        one = ServerlessPolicy(rules)
        now = 0
        for number in range(1, 40):
            one.arrive(now, number)
            one.ready(now, number)
            one.done(now, number)
            end = one.next_deadline()
            while one.tick(end) == []:
                end = one.next_deadline()
            found.append(end - now)
            now = end
        return found

    drawn = lifetimes()
    assert drawn == lifetimes()
    assert all(300 * SECOND <= one <= 900 * SECOND for one in drawn)
    assert len(set(drawn)) > 30
    assert max(drawn) - min(drawn) > 300 * SECOND


def test_broken_while_serving_rejects_that_request_and_the_next_starts_afresh() -> None:
    one = policy(2)
    one.arrive(0, 1)
    one.ready(1, 1)
    assert one.broken(2, 1, Cause.OUT_OF_MEMORY) == [Reject(1, Cause.OUT_OF_MEMORY)]
    assert one.arrive(3, 2) == [Start(2)]


def test_broken_while_starting_rejects_whoever_waited() -> None:
    one = policy(2)
    one.arrive(0, 1)
    assert one.broken(2, 1, Cause.LOAD_FAILED) == [Reject(1, Cause.LOAD_FAILED)]


def test_news_of_an_environment_that_is_gone_changes_nothing() -> None:
    one = policy(2)
    one.arrive(0, 1)
    one.broken(1, 1, Cause.DIED)
    assert one.ready(2, 1) == []
    assert one.done(2, 1) == []
    assert one.broken(2, 1, Cause.DIED) == []


def test_answer_limit_does_not_count_the_cold_start() -> None:
    one = policy()
    one.arrive(0, 1)
    one.ready(100 * SECOND, 1)
    assert one.tick(160 * SECOND - 1) == []
    assert one.tick(160 * SECOND) == [Stop(1, Cause.TIMED_OUT), Reject(1, Cause.TIMED_OUT)]


def test_start_limit() -> None:
    one = policy()
    one.arrive(0, 1)
    assert one.tick(180 * SECOND - 1) == []
    assert one.tick(180 * SECOND) == [
        Stop(1, Cause.START_TIMED_OUT),
        Reject(1, Cause.START_TIMED_OUT),
    ]


def test_creation_makes_a_test_start_and_a_restart_does_not() -> None:
    created = policy()
    assert created.launch(0, warm=True) == [Start(1)]
    created.ready(1, 1)
    assert created.arrive(2, 7) == [Assign(7, 1)]
    assert policy().launch(0, warm=False) == []


def test_provisioned_environments_never_expire_and_take_requests_first() -> None:
    one = policy(3, provisioned=1)
    assert one.launch(0, warm=True) == [
        Hold(Resource.PROVISIONED, 1),
        Start(1, provisioned=True),
    ]
    one.ready(0, 1)
    assert one.next_deadline() == 180 * SECOND or one.tick(180 * SECOND) == []
    assert one.arrive(86_400 * SECOND, 5) == [Assign(5, 1, provisioned=True)]
    assert one.arrive(86_400 * SECOND, 6) == [Start(2)]  # spill-over, on demand
    one.ready(86_401 * SECOND, 2)
    one.done(86_402 * SECOND, 2)
    one.done(86_402 * SECOND, 1)
    assert one.arrive(86_403 * SECOND, 7) == [Assign(7, 1, provisioned=True)]


def test_a_lost_provisioned_environment_is_replaced_but_not_in_a_loop() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(1, 1)
    assert one.broken(2, 1, Cause.DIED) == [Start(2, provisioned=True)]
    assert one.broken(3, 2, Cause.LOAD_FAILED) == []


def test_a_provisioned_environment_that_keeps_dying_is_left_to_the_next_request() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    for number in range(1, 4):
        one.ready(number, number)
        assert one.broken(number, number, Cause.DIED) == [Start(number + 1, provisioned=True)]
    one.ready(4, 4)
    assert one.broken(4, 4, Cause.DIED) == []


def test_a_floor_that_is_lost_together_is_restored_whole() -> None:
    one = policy(10, provisioned=8)
    one.launch(0, warm=True)
    for number in range(1, 9):
        one.ready(0, number)
    started = [action for n in range(1, 9) for action in one.broken(n, n, Cause.DIED)]
    assert started == [Start(n, provisioned=True) for n in range(9, 17)]


def test_below_max_concurrency_no_request_is_refused_while_the_floor_starts() -> None:
    one = policy(1, provisioned=1)
    one.launch(0, warm=True)
    assert one.arrive(1, 5) == []
    assert one.arrive(1, 6) == [Reject(6, Cause.THROTTLED)]
    assert one.ready(2, 1) == [Assign(5, 1, cold=True, provisioned=True)]


def test_evict_stops_what_is_idle_and_nothing_else() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.arrive(1, 1)
    one.arrive(1, 2)
    one.ready(2, 2)
    one.done(3, 2)
    assert one.evict(4) == [Stop(2, Cause.EVICTED)]
    one.done(5, 1)
    assert one.evict(6) == [Stop(1, Cause.EVICTED), Start(3, provisioned=True)]


def test_close_answers_everyone_and_stops_everything() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.arrive(1, 1)
    one.arrive(1, 2)
    actions = one.close(MINUTE)
    assert {action for action in actions if isinstance(action, Stop)} == {
        Stop(1, Cause.CLOSED),
        Stop(2, Cause.CLOSED),
    }
    assert {a.request for a in actions if isinstance(a, Reject)} == {1, 2}
    assert actions[-1] == Hold(Resource.PROVISIONED, 0)
    assert one.tick(MINUTE) == []
    assert one.next_deadline() == NEVER or one.tick(one.next_deadline()) == []


def test_a_stream_has_no_more_time_than_another_answer() -> None:
    one = policy(1)
    warm(one, 1)
    one.arrive(0, 1)
    assert one.streams(SECOND, 1) == []
    assert one.tick(MINUTE) == [Stop(1, Cause.TIMED_OUT), Reject(1, Cause.TIMED_OUT)]
