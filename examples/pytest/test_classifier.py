"""The classifier's tests, offline, against real endpoints: python -m pytest examples/pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import pytest
from classifier import Busy, Classifier, TooSlow

from emulator.testbed import Lukewarm

REALTIME, SERVERLESS = "fashion-mnist-realtime", "fashion-mnist-serverless"
MODEL = str(resources.files("model").joinpath("artifacts/fashion-mnist/fashion-mnist.keras"))
Picture = list[list[float]]
HOUR_S = 3600


@pytest.mark.parametrize("endpoint", [REALTIME, SERVERLESS])
def test_an_answer(lukewarm_boto3: Any, sneaker: Picture, endpoint: str) -> None:
    assert Classifier(lukewarm_boto3("sagemaker-runtime"), endpoint).name(sneaker) == "Sneaker"


def test_a_cold_start_after_idling(
    lukewarm: Lukewarm, lukewarm_boto3: Any, sneaker: Picture
) -> None:
    classifier = Classifier(lukewarm_boto3("sagemaker-runtime"), SERVERLESS)
    classifier.name(sneaker)
    classifier.name(sneaker)
    lukewarm.advance(601)  # an environment is kept for ten minutes
    classifier.name(sneaker)
    *_, warm, cold = lukewarm.calls(SERVERLESS)
    assert (warm.cold_start, cold.cold_start) == (False, True)
    assert cold.provision_ms == 2000
    lukewarm.assert_latency(SERVERLESS, warm=True, p50_ms=1000)
    with pytest.raises(AssertionError, match="p100 is 2"):
        lukewarm.assert_latency(SERVERLESS, p100_ms=1000)


def test_a_cold_start_that_takes_too_long(
    lukewarm: Lukewarm, lukewarm_boto3: Any, sneaker: Picture
) -> None:
    hasty = Classifier(lukewarm_boto3("sagemaker-runtime", read_timeout=0.01), SERVERLESS)
    lukewarm.evict(SERVERLESS)
    with pytest.raises(TooSlow):
        hasty.name(sneaker)


def test_a_throttle_at_max_concurrency(
    lukewarm: Lukewarm, lukewarm_boto3: Any, sneaker: Picture
) -> None:
    small = lukewarm.deploy(MODEL, "small", memory_mb=1024, concurrency=1)
    lukewarm.evict(small)  # so that the first of them takes a while
    patient = Classifier(lukewarm_boto3("sagemaker-runtime"), small)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(patient.name, [sneaker] * 4)) == {"Sneaker"}
    assert lukewarm.bill(small).throttles >= 1


def test_a_client_that_gives_up(lukewarm: Lukewarm, lukewarm_boto3: Any, sneaker: Picture) -> None:
    lukewarm.faults(SERVERLESS, "ThrottlingException", times=3)
    classifier = Classifier(lukewarm_boto3("sagemaker-runtime"), SERVERLESS, 3, pause_s=0)
    with pytest.raises(Busy, match="has throttled 3 attempts"):
        classifier.name(sneaker)
    assert classifier.name(sneaker) == "Sneaker"


def test_a_day_of_traffic(lukewarm: Lukewarm, lukewarm_boto3: Any, sneaker: Picture) -> None:
    runtime = lukewarm_boto3("sagemaker-runtime")
    for _ in range(8):
        for endpoint in (REALTIME, SERVERLESS):
            Classifier(runtime, endpoint).name(sneaker)
        lukewarm.advance(3 * HOUR_S)
    # 24 hours of one ml.t2.medium at 0.063 USD, and less than a cent's worth of data.
    lukewarm.assert_costs(REALTIME, at_least="1.512", at_most="1.513")
    # A call each three hours is a cold start, but for the first, and still next to nothing.
    assert lukewarm.bill(SERVERLESS).cold_starts == 7
    lukewarm.assert_costs(SERVERLESS, at_most="0.01")
