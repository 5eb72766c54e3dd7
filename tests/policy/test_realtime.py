"""The real-time persona's decisions, one law at a time."""

from __future__ import annotations

from collections import Counter

from emulator.core import (
    NEVER,
    SECOND,
    Assign,
    Capacity,
    Cause,
    Hold,
    Reject,
    Resource,
    Start,
    Stop,
)
from emulator.realtime import Draw, RealTimePolicy, RealTimeRules, Routing, choose_variant

LEAST = Routing.LEAST_OUTSTANDING_REQUESTS


def in_service(
    instances: int = 1, workers: int = 1, routing: Routing = Routing.RANDOM
) -> RealTimePolicy:
    one = RealTimePolicy(RealTimeRules(instances, workers, routing))
    one.launch(0, warm=True)
    for environment in range(1, instances * workers + 1):
        one.ready(0, environment)
    return one


def test_instances_are_held_once_every_worker_is_up() -> None:
    one = RealTimePolicy(RealTimeRules(instances=2, workers=2))
    assert one.launch(0, warm=True) == [Start(1), Start(2), Start(3), Start(4)]
    assert [one.ready(0, number) for number in (1, 2, 3)] == [[], [], []]
    assert one.ready(0, 4) == [Hold(Resource.INSTANCES, 2)]


def test_requests_queue_in_order_and_are_never_throttled() -> None:
    one = in_service()
    assert one.arrive(1, 1) == [Assign(1, 1)]
    for request in range(2, 500):
        assert one.arrive(1, request) == []
    assert one.done(2, 1) == [Assign(2, 1)]
    assert one.done(3, 1) == [Assign(3, 1)]


def test_least_outstanding_routing_balances() -> None:
    one = in_service(3, routing=LEAST)
    taken = [action for request in range(3) for action in one.arrive(0, request)]
    assert {action.environment for action in taken if isinstance(action, Assign)} == {1, 2, 3}


def test_random_routing_uses_every_instance_evenly() -> None:
    one = in_service(3)
    counts: Counter[int] = Counter()
    for request in range(3000):
        (action,) = one.arrive(request, request)
        assert isinstance(action, Assign)
        counts[action.environment] += 1
        one.done(request, action.environment)
    assert all(850 < counts[number] < 1150 for number in (1, 2, 3))


def test_a_crashed_instance_is_replaced_while_the_others_serve() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1)
    one.arrive(0, 2)
    one.arrive(0, 3)  # queues behind request 1
    actions = one.broken(1, 1, Cause.DIED)
    assert actions[:2] == [Reject(1, Cause.DIED), Start(3)]
    assert one.done(2, 2) == [Assign(3, 2)]  # moved to the instance that is alive
    assert one.arrive(3, 4) == []  # the other one is being replaced
    assert one.ready(4, 3) == []
    assert one.arrive(5, 5) == [Assign(5, 3)]


def test_the_only_instance_crashing_keeps_the_queue_for_its_replacement() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.arrive(0, 2)
    assert one.broken(1, 1, Cause.OUT_OF_MEMORY) == [Reject(1, Cause.OUT_OF_MEMORY), Start(2)]
    assert one.ready(2, 2) == [Assign(2, 2)]


def test_a_replacement_that_fails_tells_the_queue_and_the_next_request_tries_again() -> None:
    one = in_service()
    one.broken(1, 1, Cause.DIED)
    assert one.arrive(2, 1) == []
    assert one.broken(3, 2, Cause.LOAD_FAILED) == [Reject(1, Cause.LOAD_FAILED)]
    assert one.next_deadline() == 3 + 5 * SECOND
    assert one.arrive(4, 2) == [Start(3)]
    assert one.ready(5, 3) == [Assign(2, 3)]


def test_a_failed_replacement_is_tried_again_by_itself() -> None:
    one = in_service()
    one.broken(1, 1, Cause.DIED)
    one.broken(2, 2, Cause.LOAD_FAILED)
    assert one.tick(2 + 5 * SECOND - 1) == []
    assert one.tick(2 + 5 * SECOND) == [Start(3)]


def test_a_worker_that_keeps_dying_before_an_answer_is_tried_less_and_less_often() -> None:
    one = in_service()
    assert one.broken(1, 1, Cause.DIED) == [Start(2)]
    pauses, now = [], 2
    for environment in range(2, 15):
        one.ready(now, environment)
        assert one.broken(now, environment, Cause.DIED) == []
        pauses.append(one.next_deadline() - now)
        now = one.next_deadline()
        assert one.tick(now) == [Start(environment + 1)]
    assert pauses[:3] == [5 * SECOND, 10 * SECOND, 20 * SECOND]
    assert pauses[-1] == 3600 * SECOND
    one.ready(now, 15)
    one.arrive(now, 1)
    one.done(now, 15)
    assert one.broken(now, 15, Cause.DIED) == [Start(16)]  # it had answered


def test_the_death_of_one_that_had_answered_is_not_held_against_its_replacement() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.done(0, 1)
    assert one.broken(1, 1, Cause.DIED) == [Start(2)]
    one.ready(2, 2)
    assert one.broken(2, 2, Cause.DIED) == [Start(3)]  # the first that has not


def test_workers_lost_together_are_all_replaced_at_once() -> None:
    one = in_service(instances=1, workers=4)
    started = [action for n in range(1, 5) for action in one.broken(n, n, Cause.DIED)]
    assert started == [Start(5), Start(6), Start(7), Start(8)]


def test_one_worker_that_is_up_does_not_cancel_the_retry_of_another() -> None:
    one = RealTimePolicy(RealTimeRules(instances=1, workers=2))
    one.launch(0, warm=False)
    assert one.broken(1, 1, Cause.LOAD_FAILED) == []
    assert one.ready(2, 2) == []
    assert one.tick(1 + 5 * SECOND) == [Start(3)]
    assert one.ready(6 * SECOND, 3) == [Hold(Resource.INSTANCES, 1)]


def test_a_queue_moves_to_the_instance_that_is_coming_up() -> None:
    for seed in range(20):
        one = RealTimePolicy(RealTimeRules(instances=2, seed=seed))
        one.launch(0, warm=True)
        one.ready(0, 1)
        one.ready(0, 2)
        one.arrive(0, 1)
        one.arrive(0, 2)
        one.broken(1, 1, Cause.DIED)  # 3 starts
        one.broken(1, 2, Cause.DIED)  # 4 starts
        one.arrive(2, 3)
        one.arrive(2, 4)
        assert not any(isinstance(a, Reject) for a in one.broken(3, 3, Cause.LOAD_FAILED))
        served = [*one.ready(4, 4), *one.done(5, 4), *one.done(6, 4)]
        assert {a.request for a in served if isinstance(a, Assign)} >= {3, 4}


def test_sixty_seconds_count_from_arrival_queue_included() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.arrive(SECOND, 2)
    assert one.tick(60 * SECOND) == [
        Reject(1, Cause.TIMED_OUT),
        Stop(1, Cause.TIMED_OUT),
        Start(2),
    ]
    assert one.tick(61 * SECOND) == [Reject(2, Cause.TIMED_OUT)]


def test_a_worker_has_its_own_sixty_seconds_for_what_queued_before() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.arrive(0, 2)
    assert one.done(59 * SECOND, 1) == [Assign(2, 1)]
    assert one.tick(60 * SECOND) == [Reject(2, Cause.TIMED_OUT)]
    assert one.next_deadline() == 119 * SECOND
    assert one.arrive(61 * SECOND, 3) == []
    assert one.done(62 * SECOND, 1) == [Assign(3, 1)]
    assert one.tick(121 * SECOND) == [Reject(3, Cause.TIMED_OUT)]
    assert one.tick(122 * SECOND) == [Stop(1, Cause.TIMED_OUT), Start(2)]


def test_a_stream_has_eight_minutes_from_its_assignment() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.arrive(0, 2)
    assert one.streams(30 * SECOND, 1) == []
    assert one.tick(60 * SECOND) == [Reject(2, Cause.TIMED_OUT)]  # which has not begun
    assert one.next_deadline() == 480 * SECOND
    assert one.tick(479 * SECOND) == []
    assert one.tick(480 * SECOND) == [
        Stop(1, Cause.TIMED_OUT),
        Reject(1, Cause.TIMED_OUT),
        Start(2),
    ]


def test_a_stream_ends_as_any_answer() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.streams(1, 1)
    assert one.done(100 * SECOND, 1) == []
    assert one.next_deadline() == NEVER
    assert one.arrive(100 * SECOND, 2) == [Assign(2, 1)]
    one.streams(100 * SECOND, 1)
    assert one.broken(101 * SECOND, 1, Cause.DIED) == [Reject(2, Cause.DIED), Start(2)]
    one.ready(102 * SECOND, 2)
    one.arrive(102 * SECOND, 3)
    one.streams(102 * SECOND, 2)
    assert Reject(3, Cause.CLOSED) in one.close(103 * SECOND)


def test_what_queued_meanwhile_is_given_together() -> None:
    one = RealTimePolicy(RealTimeRules(1, batch=3))
    one.launch(0, warm=True)
    one.ready(0, 1, together=32)
    assert one.arrive(0, 1, 2) == [Assign(1, 1), Assign(2, 1)]
    assert one.arrive(1, 3, 4, 5, 6) == []
    assert one.done(2, 1) == [Assign(3, 1), Assign(4, 1), Assign(5, 1)]
    assert one.broken(3, 1, Cause.DIED) == [
        *(Reject(request, Cause.DIED) for request in (3, 4, 5)),
        Start(2),
    ]
    assert one.ready(4, 2, together=1) == [Assign(6, 2)]


def test_idle_workers_share_what_arrives_together() -> None:
    one = RealTimePolicy(RealTimeRules(1, workers=2, batch=8))
    one.launch(0, warm=True)
    one.ready(0, 1, together=8)
    one.ready(0, 2, together=8)
    given = one.arrive(1, 1, 2, 3)
    assert given == [Assign(1, 2), Assign(2, 2), Assign(3, 1)]


def test_a_batch_of_one_gives_one_at_a_time() -> None:
    one = in_service()
    assert one.arrive(0, 1, 2) == [Assign(1, 1)]
    assert one.done(1, 1) == [Assign(2, 1)]


def test_what_queued_for_a_dead_instance_is_given_to_one_that_is_idle() -> None:
    two = RealTimePolicy(RealTimeRules(2, routing=Routing.LEAST_OUTSTANDING_REQUESTS))
    two.launch(0, warm=True)
    two.ready(0, 1)
    two.ready(0, 2)
    assert two.arrive(0, 1, 2, 3) == [Assign(1, 1), Assign(2, 2)]
    assert two.done(1, 2) == []
    assert two.broken(2, 1, Cause.DIED) == [Reject(1, Cause.DIED), Start(3), Assign(3, 2)]


def test_an_instance_that_does_not_start_in_time_is_stopped_and_tried_again() -> None:
    one = RealTimePolicy(RealTimeRules(1))
    one.launch(0, warm=True)
    assert one.tick(240 * SECOND) == [Stop(1, Cause.START_TIMED_OUT)]
    assert one.tick(245 * SECOND) == [Start(2)]


def test_instance_time_goes_on_through_a_crash() -> None:
    one = in_service()
    assert not any(isinstance(a, Hold) for a in one.broken(1, 1, Cause.DIED))
    assert not any(isinstance(a, Hold) for a in one.ready(2, 2))
    assert one.close(3)[-1] == Hold(Resource.INSTANCES, 0)


def test_close_rejects_what_waits_and_what_is_served() -> None:
    one = in_service()
    one.arrive(0, 1)
    one.arrive(0, 2)
    assert one.close(1) == [
        Stop(1, Cause.CLOSED),
        Reject(1, Cause.CLOSED),
        Reject(2, Cause.CLOSED),
        Hold(Resource.INSTANCES, 0),
    ]
    assert one.done(2, 1) == []


def test_weights_share_the_traffic() -> None:
    draw, counts = Draw(1), Counter[int]()
    for _ in range(10_000):
        counts[choose_variant([3.0, 1.0, 0.0], draw)] += 1
    assert counts[2] == 0
    assert 7_200 < counts[0] < 7_800


def test_all_weights_zero_goes_to_the_first() -> None:
    assert choose_variant([0.0, 0.0], Draw(1)) == 0


# -- a capacity that changes in service --------------------------------------------------------


def test_new_instances_start_while_the_others_serve_and_are_billed_once_all_are_up() -> None:
    one = in_service(1, workers=2)
    one.arrive(0, 1, 2)
    assert one.resize(1, Capacity(3)) == [Start(number) for number in (3, 4, 5, 6)]
    one.arrive(2, 3)
    assert one.done(3, 1) == [Assign(3, 1)]
    assert [one.ready(4, number) for number in (3, 4, 5)] == [[], [], []]
    assert one.ready(5, 6) == [Hold(Resource.INSTANCES, 3)]
    assert one.rules.instances == 3


def test_a_new_instance_serves_as_soon_as_it_is_up() -> None:
    one = in_service(1, routing=LEAST)
    one.arrive(0, 1)
    one.resize(1, Capacity(3))
    assert one.ready(2, 2) == []
    assert one.arrive(3, 2) == [Assign(2, 2)]


def test_a_surplus_instance_that_is_idle_ends_at_once_the_newest_first() -> None:
    one = in_service(3, workers=2)
    assert one.resize(1, Capacity(1)) == [
        *(Stop(number, Cause.SURPLUS) for number in (5, 6, 3, 4)),
        Hold(Resource.INSTANCES, 1),
    ]
    assert one.arrive(2, 1, 2, 3) == [Assign(1, 2), Assign(2, 1)]


def test_a_surplus_instance_finishes_its_queue_gets_nothing_new_and_ends() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2, 3, 4)  # the second one has 2, and 4 in its queue
    assert one.resize(1, Capacity(1)) == [Hold(Resource.INSTANCES, 1)]
    assert one.arrive(2, 5) == []
    assert one.done(3, 2) == [Assign(4, 2)]
    assert one.arrive(4, 6) == []
    assert one.done(5, 2) == [Stop(2, Cause.SURPLUS)]
    assert [one.done(6, 1) for _ in range(4)] == [
        *([Assign(request, 1)] for request in (3, 5, 6)),
        [],
    ]
    assert one.next_deadline() == NEVER


def test_the_idle_worker_of_a_surplus_instance_ends_before_its_busy_one() -> None:
    one = in_service(2, workers=2, routing=LEAST)
    one.arrive(0, 1, 2)  # 2 and 4 are busy
    assert one.resize(1, Capacity(1)) == [
        Stop(3, Cause.SURPLUS),
        Hold(Resource.INSTANCES, 1),
    ]
    assert one.done(2, 4) == [Stop(4, Cause.SURPLUS)]


def test_a_surplus_instance_keeps_its_deadlines() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2)
    one.arrive(SECOND, 3, 4)
    one.resize(2 * SECOND, Capacity(1))
    one.done(3 * SECOND, 1)
    assert one.next_deadline() == 60 * SECOND
    assert one.tick(60 * SECOND) == [
        Reject(2, Cause.TIMED_OUT),
        Stop(2, Cause.TIMED_OUT),  # and no other in its place: what queued there moves
    ]
    assert one.tick(61 * SECOND) == [Reject(3, Cause.TIMED_OUT), Reject(4, Cause.TIMED_OUT)]


def test_a_surplus_instance_that_is_stuck_is_ended_in_time() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2, 3, 4)
    one.resize(1, Capacity(1))
    one.done(59 * SECOND, 2)  # and is given 4
    one.done(59 * SECOND, 1)  # and is given 3
    one.done(59 * SECOND, 1)
    assert one.tick(60 * SECOND) == [Reject(4, Cause.TIMED_OUT)]
    assert one.next_deadline() == 119 * SECOND
    assert one.tick(119 * SECOND) == [Stop(2, Cause.TIMED_OUT)]


def test_a_surplus_instance_does_not_try_again_what_it_lacks() -> None:
    one = in_service(2, workers=2, routing=LEAST)
    one.arrive(0, 1, 2)
    one.broken(1, 3, Cause.DIED)  # 5 starts
    one.broken(1, 5, Cause.LOAD_FAILED)
    assert one.next_deadline() == 1 + 5 * SECOND
    one.resize(2, Capacity(1))
    assert one.tick(30 * SECOND) == []
    assert one.done(31 * SECOND, 4) == [Stop(4, Cause.SURPLUS)]


def test_who_stays_keeps_its_idle_workers_while_another_leaves() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2)
    one.resize(1, Capacity(1))
    assert one.done(2, 1) == []
    assert one.arrive(3, 3) == [Assign(3, 1)]


def test_what_queued_for_a_surplus_instance_that_dies_is_served_by_another() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2, 3, 4)
    one.resize(1, Capacity(1))
    assert one.broken(2, 2, Cause.DIED) == [Reject(2, Cause.DIED)]
    assert one.done(3, 1) == [Assign(3, 1)]
    assert one.done(4, 1) == [Assign(4, 1)]


def test_an_instance_that_is_not_up_leaves_before_one_that_is() -> None:
    one = in_service(2)
    one.broken(0, 1, Cause.DIED)  # 3 starts
    assert one.resize(1, Capacity(1)) == [
        Stop(3, Cause.SURPLUS),
        Hold(Resource.INSTANCES, 1),
    ]
    assert one.arrive(2, 1) == [Assign(1, 2)]


def test_what_queued_for_an_instance_that_is_not_up_moves_when_it_leaves() -> None:
    one = in_service(2, routing=LEAST)
    one.broken(0, 1, Cause.DIED)  # 3 starts
    one.broken(0, 2, Cause.DIED)  # 4 starts
    assert one.arrive(1, 1, 2) == []
    assert one.resize(2, Capacity(1)) == [Stop(4, Cause.SURPLUS), Hold(Resource.INSTANCES, 1)]
    assert one.ready(3, 3) == [Assign(1, 3)]
    assert one.done(4, 3) == [Assign(2, 3)]


def test_an_instance_that_leaves_comes_back_before_a_new_one_starts() -> None:
    one = in_service(2, workers=2, routing=LEAST)
    one.arrive(0, 1, 2)
    one.resize(1, Capacity(1))  # 3 has ended, 4 is busy
    assert one.resize(2, Capacity(3)) == [Start(5), Start(6), Start(7)]
    assert one.done(3, 4) == []
    assert [one.ready(4, number) for number in (5, 6)] == [[], []]
    assert one.ready(5, 7) == [Hold(Resource.INSTANCES, 3)]


def test_an_instance_that_leaves_and_comes_back_is_billed_at_once() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2)
    assert one.resize(1, Capacity(1)) == [Hold(Resource.INSTANCES, 1)]
    assert one.resize(2, Capacity(2)) == [Hold(Resource.INSTANCES, 2)]
    assert one.arrive(3, 3, 4) == []
    assert one.done(4, 2) == [Assign(4, 2)]


def test_a_surplus_instance_that_has_died_is_not_held_against_a_new_one() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2)
    one.resize(1, Capacity(1))
    one.broken(2, 2, Cause.DIED)
    assert one.resize(3, Capacity(2)) == [Start(3)]
    one.ready(4, 3)
    assert one.broken(5, 3, Cause.DIED) == [Start(4)]  # its first failure


def test_instances_that_do_not_start_can_be_put_back_and_are_never_billed() -> None:
    one = in_service(1)
    assert one.resize(1, Capacity(3)) == [Start(2), Start(3)]
    assert one.broken(2, 2, Cause.LOAD_FAILED) == []
    assert one.resize(3, Capacity(1)) == [Stop(3, Cause.SURPLUS)]
    assert one.next_deadline() == NEVER
    assert one.arrive(4, 1) == [Assign(1, 1)]


def test_a_new_instance_takes_over_what_waits_for_one_that_keeps_dying() -> None:
    one = in_service(1)
    one.arrive(1, 1, 2, 3)
    one.broken(1, 1, Cause.DIED)
    one.ready(1, 2)
    assert one.broken(1, 2, Cause.DIED) == [Reject(2, Cause.DIED)]  # and is tried again later
    assert one.resize(2, Capacity(2)) == [Start(3)]
    assert one.ready(3, 3) == [Assign(3, 3)]


def test_what_a_surplus_instance_leaves_behind_goes_to_one_that_stays() -> None:
    for seed in range(6):  # whatever the draw
        one = RealTimePolicy(RealTimeRules(1, seed=seed))
        one.launch(0, warm=True)
        one.ready(0, 1)
        one.arrive(1, 1, 2)
        assert one.broken(1, 1, Cause.DIED) == [Reject(1, Cause.DIED), Start(2)]
        assert one.resize(2, Capacity(3)) == [Start(3), Start(4)]
        assert one.ready(3, 3) == one.ready(3, 4) == []  # 2 is about to be up again, too
        assert one.resize(4, Capacity(1)) == [
            Stop(2, Cause.SURPLUS),
            Assign(2, 3),
            Stop(4, Cause.SURPLUS),
        ]


def test_fewer_instances_during_the_starts_need_no_more_than_those() -> None:
    one = RealTimePolicy(RealTimeRules(3))
    one.launch(0, warm=True)
    one.ready(1, 2)
    assert one.resize(2, Capacity(2)) == [Stop(3, Cause.SURPLUS)]
    assert one.resize(3, Capacity(1)) == [Stop(1, Cause.SURPLUS), Hold(Resource.INSTANCES, 1)]
    assert one.ready(4, 1) == []
    assert one.arrive(5, 1) == [Assign(1, 2)]


def test_a_resize_of_instances_settles_deadlines_first() -> None:
    one = in_service(1)
    one.arrive(0, 1)
    assert one.resize(60 * SECOND, Capacity(2)) == [
        Reject(1, Cause.TIMED_OUT),
        Stop(1, Cause.TIMED_OUT),
        Start(2),
        Start(3),
    ]


def test_a_close_ends_what_is_about_to_leave() -> None:
    one = in_service(2, routing=LEAST)
    one.arrive(0, 1, 2)
    one.resize(1, Capacity(1))
    assert one.close(2) == [
        Stop(1, Cause.CLOSED),
        Stop(2, Cause.CLOSED),
        Reject(1, Cause.CLOSED),
        Reject(2, Cause.CLOSED),
        Hold(Resource.INSTANCES, 0),
    ]
    assert one.resize(3, Capacity(2)) == []
    assert one.next_deadline() == NEVER
