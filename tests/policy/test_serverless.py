"""The serverless persona's decisions, one law at a time. `start(1)` reads as the action itself."""

from __future__ import annotations

from emulator.core import (
    NEVER,
    SECOND,
    Assign,
    Capacity,
    Cause,
    Hold,
    Provision,
    Reject,
    Resource,
    Start,
    Stop,
)
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


def test_a_vacant_place_of_the_floor_is_taken_last() -> None:
    one = policy(2, provisioned=1)
    one.launch(0, warm=True)
    one.broken(1, 1, Cause.LOAD_FAILED)
    assert one.arrive(2, 1, 2) == [Start(2), Start(3, provisioned=True)]


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


# -- a capacity that changes in service --------------------------------------------------------


def busy(one: ServerlessPolicy, requests: int) -> None:
    """Bring up that many environments, each with a request: 1 with 1, and so on."""
    one.arrive(0, *range(1, requests + 1))
    for environment in range(1, requests + 1):
        one.ready(0, environment)


def test_a_higher_limit_admits_more_at_once() -> None:
    one = policy(1)
    busy(one, 1)
    assert one.arrive(1, 2) == [Reject(2, Cause.THROTTLED)]
    assert one.resize(2, Capacity(3)) == []
    assert one.arrive(3, 3, 4, 5) == [Start(2), Start(3), Reject(5, Cause.THROTTLED)]
    assert one.ready(4, 3) == [Assign(4, 3, cold=True)]
    assert one.rules.max_concurrency == 3


def test_a_floor_that_grows_takes_in_what_is_warm_and_idle_the_oldest_first() -> None:
    one = policy(4)
    warm(one, 3)
    assert one.resize(1, Capacity(4, 2)) == [
        Hold(Resource.PROVISIONED, 2),
        Provision(1, provisioned=True),
        Provision(2, provisioned=True),
    ]
    assert one.arrive(2, 1, 2, 3) == [
        Assign(1, 2, provisioned=True),
        Assign(2, 1, provisioned=True),
        Assign(3, 3),
    ]
    for environment in (1, 2, 3):
        one.done(3, environment)
    assert one.tick(86_400 * SECOND) == [Stop(3, Cause.EXPIRED)]


def test_a_floor_that_grows_starts_what_it_lacks() -> None:
    one = policy(4)
    warm(one, 1)
    assert one.resize(1, Capacity(4, 3)) == [
        Hold(Resource.PROVISIONED, 3),
        Provision(1, provisioned=True),
        Start(2, provisioned=True),
        Start(3, provisioned=True),
    ]
    assert one.ready(2, 2) == []
    assert one.arrive(3, 1) == [Assign(1, 2, provisioned=True)]


def test_a_floor_that_grows_waits_for_a_start_that_is_under_way_for_nobody() -> None:
    one = policy(2)
    assert one.launch(0, warm=True) == [Start(1)]
    assert one.resize(1, Capacity(2, 1))[1:] == [Provision(1, provisioned=True)]
    assert one.ready(2, 1) == []
    assert one.arrive(86_400 * SECOND, 1) == [Assign(1, 1, provisioned=True)]


def test_a_floor_that_grows_starts_beside_what_is_busy_while_there_is_room() -> None:
    one = policy(3)
    busy(one, 2)
    assert one.resize(1, Capacity(3, 2))[1:] == [
        Start(3, provisioned=True),
        Provision(1, provisioned=True),  # no room for another one
    ]
    assert one.done(2, 1) == []
    assert one.arrive(3, 9) == [Assign(9, 1, provisioned=True)]


def test_a_lower_limit_ends_what_is_idle_at_once_and_what_is_busy_after_its_answer() -> None:
    one = policy(5)
    busy(one, 5)
    one.done(1, 4)
    one.done(2, 3)
    assert one.resize(3, Capacity(4)) == [Stop(4, Cause.SURPLUS)]  # the oldest of the idle
    assert one.resize(3, Capacity(2)) == [Stop(3, Cause.SURPLUS)]
    assert one.arrive(4, 6) == [Reject(6, Cause.THROTTLED)]
    assert one.done(5, 1) == [Stop(1, Cause.SURPLUS)]
    assert one.arrive(6, 7) == [Reject(7, Cause.THROTTLED)]  # two are at work
    assert one.done(7, 2) == []
    assert one.arrive(8, 8, 9) == [Assign(8, 2), Reject(9, Cause.THROTTLED)]


def test_a_lower_limit_lets_requests_wait_on_for_their_cold_starts() -> None:
    one = policy(2)
    one.arrive(0, 1, 2)
    assert one.resize(1, Capacity(1)) == []
    assert one.ready(2, 1) == [Assign(1, 1, cold=True)]
    assert one.ready(3, 2) == [Assign(2, 2, cold=True)]
    assert one.done(4, 2) == [Stop(2, Cause.SURPLUS)]
    assert one.done(5, 1) == []


def test_a_lower_limit_ends_a_start_for_nobody_before_what_is_warm() -> None:
    one = policy(2, provisioned=1)
    one.launch(0, warm=True)
    assert one.arrive(1, 1) == [Start(2)]
    one.ready(2, 2)
    one.done(3, 2)
    assert one.resize(4, Capacity(1, 1)) == [
        Stop(1, Cause.SURPLUS),
        Provision(2, provisioned=True),
    ]


def test_a_lower_limit_ends_what_is_on_demand_before_the_floor() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.arrive(1, 1, 2)
    one.ready(2, 2)
    one.done(3, 1)
    one.done(4, 2)
    assert one.resize(5, Capacity(1, 1)) == [Stop(2, Cause.SURPLUS)]


def test_what_is_warm_is_worth_more_than_a_start_for_nobody() -> None:
    two = []
    for capacity in (Capacity(1), Capacity(2, 1)):
        one = policy(2)
        one.launch(0, warm=True)
        assert one.arrive(1, 1) == [Start(2)]
        one.ready(2, 2)
        one.done(3, 2)
        two.append(one.resize(4, capacity)[-1])
    assert two == [Stop(1, Cause.SURPLUS), Provision(2, provisioned=True)]


def test_who_ends_for_a_lower_limit_leaves_its_place_in_the_floor_to_another() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.arrive(0, 1, 2)
    one.ready(0, 2)
    assert one.resize(1, Capacity(1, 1)) == []
    assert one.done(2, 1) == [Stop(1, Cause.SURPLUS), Provision(2, provisioned=True)]
    assert one.done(3, 2) == []
    assert one.tick(86_400 * SECOND) == []


def test_a_crash_while_there_are_too_many_fills_the_floor_without_a_start() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.arrive(0, 1, 2, 3)
    one.ready(0, 2)
    one.resize(1, Capacity(2, 1))
    assert one.broken(2, 1, Cause.DIED) == [
        Reject(1, Cause.DIED),
        Provision(2, provisioned=True),
    ]
    assert one.done(3, 2) == []
    assert one.arrive(4, 4, 5) == [Assign(4, 2, provisioned=True), Reject(5, Cause.THROTTLED)]


def test_who_leaves_the_floor_stays_warm_from_now_on_as_after_an_answer() -> None:
    one = policy(3, provisioned=2, keep_warm=600 * SECOND)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.ready(1, 2)
    assert one.resize(86_400 * SECOND, Capacity(3, 1)) == [
        Hold(Resource.PROVISIONED, 1),
        Provision(1, provisioned=False),
    ]
    assert one.tick(87_000 * SECOND - 1) == []
    assert one.tick(87_000 * SECOND) == [Stop(1, Cause.EXPIRED)]
    assert one.arrive(88_000 * SECOND, 1) == [Assign(1, 2, provisioned=True)]


def test_who_is_not_up_leaves_the_floor_first_and_who_is_idle_last() -> None:
    one = policy(4, provisioned=4)
    one.launch(0, warm=True)
    one.ready(0, 1)
    one.ready(0, 2)
    one.arrive(1, 1)  # 2 is busy, 3 and 4 start
    left = [one.resize(2, Capacity(4, floor))[1:] for floor in (3, 2, 1, 0)]
    assert left == [[Provision(number, provisioned=False)] for number in (3, 4, 2, 1)]
    assert one.ready(3, 3) == []
    assert one.arrive(4, 2, 3) == [Assign(2, 3), Assign(3, 1)]


def test_who_starts_for_a_request_leaves_the_floor_after_who_starts_for_none() -> None:
    one = policy(2, provisioned=2)
    one.launch(0, warm=True)
    one.arrive(1, 1)  # waits for 1
    assert one.resize(2, Capacity(2, 1))[1:] == [Provision(2, provisioned=False)]
    assert one.resize(2, Capacity(2, 0))[1:] == [Provision(1, provisioned=False)]
    assert one.ready(3, 1) == [Assign(1, 1, cold=True)]


def test_a_floor_without_room_takes_in_who_starts_after_who_is_busy() -> None:
    one = policy(2)
    one.arrive(0, 1, 2)
    one.ready(1, 2)
    assert one.resize(2, Capacity(2, 1))[1:] == [Provision(2, provisioned=True)]
    assert one.resize(2, Capacity(2, 2))[1:] == [Provision(1, provisioned=True)]
    assert one.ready(3, 1) == [Assign(1, 1, cold=True, provisioned=True)]


def test_a_floor_that_lost_a_start_while_there_were_too_many_takes_in_who_is_idle() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.arrive(0, 1, 2, 3)
    one.ready(1, 2)
    one.ready(1, 3)
    one.resize(2, Capacity(2, 1))
    assert one.broken(3, 1, Cause.LOAD_FAILED) == [Reject(3, Cause.LOAD_FAILED)]
    assert one.done(4, 3) == [Provision(3, provisioned=True)]
    assert one.arrive(5, 4) == [Assign(4, 3, provisioned=True)]


def test_a_resize_settles_deadlines_first() -> None:
    one = policy(2, keep_warm=600 * SECOND)
    warm(one, 1)
    assert one.resize(600 * SECOND, Capacity(2, 1)) == [
        Stop(1, Cause.EXPIRED),
        Hold(Resource.PROVISIONED, 1),
        Start(2, provisioned=True),
    ]


def test_a_floor_that_does_not_start_can_be_put_back() -> None:
    one = policy(3, provisioned=1)
    one.launch(0, warm=True)
    one.ready(0, 1)
    assert one.resize(1, Capacity(3, 3))[1:] == [Start(2, True), Start(3, True)]
    assert one.broken(2, 2, Cause.LOAD_FAILED) == []
    assert one.resize(3, Capacity(3, 1)) == [
        Hold(Resource.PROVISIONED, 1),
        Provision(3, provisioned=False),
    ]
    assert one.ready(4, 3) == []
    assert one.next_deadline() <= 4 + 600 * SECOND


def test_resizes_in_a_row_start_and_end_nothing_that_is_wanted() -> None:
    one = policy(2)
    warm(one, 2)
    assert one.resize(1, Capacity(8)) == []
    assert one.resize(1, Capacity(2)) == []
    assert one.resize(1, Capacity(2, 2))[1:] == [Provision(1, True), Provision(2, True)]
    assert one.resize(1, Capacity(2, 0))[1:] == [Provision(1, False), Provision(2, False)]
    assert one.arrive(2, 1, 2, 3) == [Assign(1, 2), Assign(2, 1), Reject(3, Cause.THROTTLED)]


def test_a_resize_before_and_after_the_close() -> None:
    one = policy(2)
    busy(one, 2)
    one.resize(1, Capacity(1, 1))
    assert one.close(2) == [
        Stop(1, Cause.CLOSED),
        Reject(1, Cause.CLOSED),
        Stop(2, Cause.CLOSED),
        Reject(2, Cause.CLOSED),
        Hold(Resource.PROVISIONED, 0),
    ]
    assert one.resize(3, Capacity(4, 4)) == []
    assert one.arrive(4, 3) == [Reject(3, Cause.CLOSED)]
