"""The Prometheus exposition, read back with prometheus_client's own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from emulator.address import Home, Key
from emulator.metrics import COUNTERS, HISTOGRAMS, Metrics
from tests.billing.rows import DIGITS, HOME, row, throttled

MS = 1_000_000


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Values by name and label values but the account and the region, which are those of all rows
    here; the labels in alphabetical order of their names."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert Home(labels.pop("account"), labels.pop("region")) == HOME
            found[(sample.name, *(labels[name] for name in sorted(labels)))] = sample.value
    return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, endpoint: str = "digits") -> float:
    return samples(metrics)[f"sagemaker_{name}", endpoint, "AllTraffic"]


def test_an_answer_counts_once_and_gives_both_latencies(metrics: Metrics) -> None:
    metrics.observe(row(model_ns=45 * MS, overhead_ns=2 * MS))
    assert value(metrics, "invocations_total") == 1
    assert value(metrics, "model_latency_seconds_sum") == 0.045
    assert value(metrics, "model_latency_seconds_count") == 1
    assert value(metrics, "overhead_latency_seconds_sum") == 0.002
    for name in ("invocation_4xx_errors", "throttles", "cold_starts", "invocation_model_errors"):
        assert value(metrics, f"{name}_total") == 0
    assert value(metrics, "model_setup_time_seconds_count") == 0


def test_a_cold_start_shows_its_setup(metrics: Metrics) -> None:
    metrics.observe(
        row(cold_start=True, provision_ns=2_000 * MS, runtime_ns=300 * MS, load_ns=200 * MS)
    )
    assert value(metrics, "cold_starts_total") == 1
    assert value(metrics, "model_setup_time_seconds_sum") == 2.5


def test_a_throttled_call_is_a_client_error_without_latency(metrics: Metrics) -> None:
    metrics.observe(throttled())
    for name in ("invocations", "invocation_4xx_errors", "throttles"):
        assert value(metrics, f"{name}_total") == 1
    for name, _ in HISTOGRAMS:
        assert value(metrics, f"{name}_seconds_count") == 0


@pytest.mark.parametrize(
    ("status", "code", "counted"),
    [
        (424, "ModelError", {"invocation_4xx_errors", "invocation_model_errors"}),
        (400, "ValidationError", {"invocation_4xx_errors"}),
        (503, "ServiceUnavailable", {"invocation_5xx_errors"}),
        (500, "InternalFailure", {"invocation_5xx_errors"}),
    ],
)
def test_errors_count_by_class_and_cause(
    metrics: Metrics, status: int, code: str, counted: set[str]
) -> None:
    metrics.observe(row(status=status, error_code=code))
    raised = {name for name, _ in COUNTERS if value(metrics, f"{name}_total")}
    assert raised == {"invocations"} | counted


def test_a_call_that_no_model_saw_has_no_model_latency(metrics: Metrics) -> None:
    metrics.observe(row(status=424, error_code="ModelError", model_ns=0))
    assert value(metrics, "model_latency_seconds_count") == 0
    assert value(metrics, "overhead_latency_seconds_count") == 1


def test_provisioned_calls_are_counted(metrics: Metrics) -> None:
    metrics.observe(row(provisioned=True))
    assert value(metrics, "serverless_provisioned_concurrency_invocations_total") == 1


def test_buckets_are_cumulative_and_hold_their_bound(metrics: Metrics) -> None:
    for model_ns in (1, 10 * MS, 10 * MS + 1, 10**13):
        metrics.observe(row(model_ns=model_ns))
    buckets = {
        key[2]: count
        for key, count in samples(metrics).items()
        if key[0] == "sagemaker_model_latency_seconds_bucket"
    }
    assert buckets["0.00001"] == 1
    assert buckets["0.01"] == 2
    assert buckets["0.025"] == buckets["240.0"] == 3
    assert buckets["+Inf"] == 4


def test_environments_are_those_told_last(metrics: Metrics) -> None:
    metrics.environments(
        [(DIGITS, "v", "idle", 10), (DIGITS, "v", "busy", 20), (DIGITS, "v", "idle", 5)]
    )
    found = samples(metrics)
    assert found["sagemaker_environments", "digits", "idle", "v"] == 2
    assert found["sagemaker_environments", "digits", "busy", "v"] == 1
    assert found["sagemaker_environments_memory_bytes", "digits", "v"] == 35
    metrics.environments([])
    assert samples(metrics) == {}


def test_a_forgotten_endpoint_leaves_no_series(metrics: Metrics) -> None:
    metrics.observe(row(endpoint="gone"))
    metrics.observe(row(endpoint="gone", variant="other"))
    metrics.observe(row())
    metrics.forget(Key(HOME, "gone"))
    metrics.forget(Key(HOME, "gone"))
    assert b"gone" not in metrics.render()
    assert value(metrics, "invocations_total") == 1


def test_two_servers_in_one_process_count_separately(metrics: Metrics) -> None:
    other = Metrics()
    metrics.observe(row())
    assert samples(other) == {}


def test_label_values_are_escaped(metrics: Metrics) -> None:
    metrics.observe(row(endpoint='a"b\\c\n'))
    assert value(metrics, "invocations_total", 'a"b\\c\n') == 1


def test_the_content_type_is_the_text_format() -> None:
    assert Metrics.content_type.startswith("text/plain; version=")
