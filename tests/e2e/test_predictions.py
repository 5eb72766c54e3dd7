"""Real Fashion-MNIST images through both endpoints of a first start."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from tests.servers import JSON, SNEAKER, Server, predictions, sample

BOTH = ["fashion-mnist-realtime", "fashion-mnist-serverless"]


@pytest.mark.parametrize("endpoint", BOTH)
def test_a_sneaker_is_a_sneaker(server: Server, endpoint: str) -> None:
    answer = server.invoke(endpoint)
    assert predictions(answer).argmax() == 7
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("endpoint", BOTH)
def test_a_hundred_real_images_in_one_call(server: Server, endpoint: str) -> None:
    images, labels = sample()
    body = json.dumps({"instances": images.tolist()}).encode()
    found = predictions(server.invoke(endpoint, body)).argmax(axis=1)
    assert (found == labels).mean() >= 0.85


def test_npy_in_and_out_is_the_same_answer(server: Server) -> None:
    images, _ = sample()
    body = io.BytesIO()
    np.save(body, images)
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    binary = server.invoke(BOTH[0], body.getvalue(), headers)
    assert binary.headers["content-type"] == "application/x-npy"
    text = server.invoke(BOTH[0], json.dumps({"instances": images.tolist()}).encode())
    np.testing.assert_allclose(
        np.load(io.BytesIO(binary.content), allow_pickle=False), predictions(text), atol=1e-5
    )


def test_csv_and_jsonlines(server: Server) -> None:
    images, _ = sample()
    flat = images[:3].reshape(3, -1)
    csv = "\n".join(",".join(f"{value:.4f}" for value in row) for row in flat).encode()
    lines = "\n".join(json.dumps(image.tolist()) for image in images[:3]).encode()
    by_csv = predictions(server.invoke(BOTH[1], csv, {"content-type": "text/csv"}))
    by_lines = predictions(server.invoke(BOTH[1], lines, {"content-type": "application/jsonlines"}))
    np.testing.assert_allclose(by_csv, by_lines, atol=1e-3)


@pytest.mark.parametrize("endpoint", BOTH)
def test_reply_headers(server: Server, endpoint: str) -> None:
    headers = server.invoke(endpoint).headers
    assert len(headers["x-amzn-requestid"]) == 36
    assert headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert headers["x-emulator-cold-start"] == "false"
    billed, model_us = (
        int(headers["x-emulator-billed-ms"]),
        int(headers["x-emulator-model-latency-us"]),
    )
    assert model_us > 0
    serverless = endpoint == BOTH[1]
    assert billed == (-(-model_us // 1000) if serverless else 0) or billed == model_us // 1000 + 1
    assert int(headers["x-emulator-overhead-latency-us"]) > 0
    assert headers["x-emulator-setup-time-us"] == "0"
    assert float(headers["x-emulator-cost-usd"]) > 0


def test_an_evicted_endpoint_starts_cold_and_says_what_it_took(server: Server) -> None:
    endpoint = BOTH[1]
    server.invoke(endpoint)
    (before,) = server.environments(endpoint)
    assert server.evict(endpoint) == 1
    assert server.environments(endpoint) == []
    cold = server.invoke(endpoint)
    assert predictions(cold).argmax() == 7
    assert cold.headers["x-emulator-cold-start"] == "true"
    setup = int(cold.headers["x-emulator-setup-time-us"])
    assert 10_000 < setup <= int(cold.headers["x-emulator-overhead-latency-us"])
    (after,) = server.environments(endpoint)
    assert after["pid"] != before["pid"]
    assert after["runtime_us"] + after["load_us"] == pytest.approx(setup, abs=2)
    warm = server.invoke(endpoint)
    assert warm.headers["x-emulator-cold-start"] == "false"
    assert warm.headers["x-emulator-setup-time-us"] == "0"
    (row,) = [
        r for r in server.rows(endpoint) if r["request_id"] == cold.headers["x-amzn-requestid"]
    ]
    assert row["cold_start"] is True
    assert row["runtime_us"] + row["load_us"] == pytest.approx(setup, abs=2)


def test_every_answer_is_in_the_ledger_when_it_arrives(server: Server) -> None:
    for _ in range(20):
        answer = server.invoke(BOTH[0], SNEAKER, {**JSON, "X-Amzn-SageMaker-Inference-Id": "mine"})
        row = server.rows(BOTH[0])[-1]
        assert row["request_id"] == answer.headers["x-amzn-requestid"]
        assert row["inference_id"] == "mine"
        assert row["response_bytes"] == len(answer.content)
        assert row["request_bytes"] == len(SNEAKER)
