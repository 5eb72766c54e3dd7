"""The AWS wire: the control plane with a thousand endpoints in its records, how long a creation
takes, and what a signature costs an invocation."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import wrk
from benchmarks.measure import ROOT, SNEAKER, Figure, Running, percentile, seconds, server

STORED, ASKED = 1000, 500
ROUNDS, ROUND_S = 5, 3
CONNECTIONS = 8
ENDPOINT = "fashion-mnist-realtime"
MODEL = ROOT / "model" / "artifacts" / "fashion-mnist"
ROLE = "arn:aws:iam::123456789012:role/benchmark"
IMAGE = "tensorflow-inference:2.16.1-cpu"
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=123456789012/20261101/eu-west-3/sagemaker/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date, Signature=" + "0" * 64
)
VARIANTS: dict[str, dict[str, Any]] = {
    "real-time": {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1},
    "serverless": {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}},
}


def figures() -> list[Figure]:
    with server() as running:
        running.wait("/ping")
        sagemaker = running.boto3("sagemaker")
        try:
            return [
                *(_creation(sagemaker, name) for name in VARIANTS),
                _signature(running),
                *_descriptions(sagemaker),
            ]
        finally:
            sagemaker.close()


def _creation(sagemaker: Any, persona: str) -> Figure:
    """From CreateEndpoint to InService, for the model that comes along."""
    taken = []
    for number in range(ROUNDS):
        name = f"{persona}-{number}"
        _configure(sagemaker, name, MODEL.as_uri(), VARIANTS[persona])
        begin = time.perf_counter()
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        while _status(sagemaker, name) == "Creating":
            time.sleep(0.005)
        taken.append(time.perf_counter() - begin)
        assert _status(sagemaker, name) == "InService"
        sagemaker.delete_endpoint(EndpointName=name)
    return Figure(f"CreateEndpoint to InService, {persona}", median(taken), "s", 2.0)


def _signature(running: Running) -> Figure:
    """Throughput with the headers that an AWS client sends over that without, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "image.json"
        body.write_bytes(SNEAKER)
        url, ratios = running.invocations(ENDPOINT), []
        for _ in range(ROUNDS):
            plain = wrk.post(url, [body], CONNECTIONS, ROUND_S)
            signed = wrk.post(url, [body], CONNECTIONS, ROUND_S, authorization=SIGNED)
            assert not plain.errors
            assert not signed.errors
            ratios.append(signed.per_second / plain.per_second)
    title = "InvokeEndpoint with an AWS signature, throughput over that without"
    return Figure(title, median(ratios), "x", 0.95, "above")


def _descriptions(sagemaker: Any) -> list[Figure]:
    """DescribeEndpoint and ListEndpoints by boto3, its own time included."""
    _configure(sagemaker, "stored", "/nowhere.tar.gz", VARIANTS["serverless"])
    for number in range(STORED):
        sagemaker.create_endpoint(EndpointName=f"stored-{number}", EndpointConfigName="stored")
        while _status(sagemaker, f"stored-{number}") == "Creating":  # it fails at once
            time.sleep(0.001)
    named = [f"stored-{number * STORED // ASKED}" for number in range(ASKED)]
    described = [seconds(lambda n=n: _status(sagemaker, n)) for n in named]  # type: ignore[misc]
    listed = [seconds(lambda: sagemaker.list_endpoints(MaxResults=100)) for _ in range(100)]
    note = f"{STORED} endpoints stored"
    page = percentile(listed, 0.5) * 1000
    return [
        Figure("DescribeEndpoint, p50", percentile(described, 0.5) * 1000, "ms", 3.0, note=note),
        Figure("DescribeEndpoint, p99", percentile(described, 0.99) * 1000, "ms", note=note),
        Figure("ListEndpoints, a page of 100, p50", page, "ms", note=note),
    ]


def _configure(sagemaker: Any, name: str, url: str, variant: dict[str, Any]) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": url}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    one = {"VariantName": "AllTraffic", "ModelName": name, **variant}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[one])


def _status(sagemaker: Any, name: str) -> str:
    return str(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])
