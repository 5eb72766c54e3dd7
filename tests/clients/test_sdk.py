"""The SageMaker Python SDK, versions 2 and 3."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.aws import client
from tests.clients.conftest import Arriving
from tests.clients.people import ACCOUNT, BUCKET, HERE, REGION, Person, person
from tests.servers import Server, until

PATIENT = {
    "sdk2.py": "sagemaker2",
    "sdk2_train.py": "sagemaker2",
    "sdk3_builder.py": "sagemaker3",
    "sdk3_train.py": "sagemaker3",
}
Waiting = dict[str, tuple[Person, subprocess.Popen[str]]]


@pytest.fixture(scope="module", autouse=True)
def patient(
    tmp_path_factory: pytest.TempPathFactory, here: Server, given: dict[str, str], luggage: Path
) -> Iterator[Waiting]:
    """Those who wait half a minute, as the SDKs do, while the other tests run."""
    waiting: Waiting = {}
    try:
        for script, name in PATIENT.items():
            somebody = person(name, tmp_path_factory.mktemp("patient"), here, given)
            process = somebody.begin(str(HERE / "scripts" / script), str(luggage))
            waiting[script] = somebody, process
            # The first makes the bucket; two at once would stumble over each other, as at AWS.
            until(lambda: BUCKET in _buckets(here), f"{BUCKET} is there")
        yield waiting
    finally:
        for _, process in waiting.values():
            process.kill()
            process.communicate()


def _buckets(server: Server) -> list[str]:
    listed = client(server, "s3", ACCOUNT, REGION).list_buckets()["Buckets"]
    return [one["Name"] for one in listed]


def test_version_3_by_its_resources(arrive: Arriving, luggage: Path, expected: Any) -> None:
    done = arrive("sagemaker3").runs("sdk3.py", str(luggage))
    assert done.attempts == []
    assert done.json["left"] == []
    for kind in ("realtime", "serverless"):
        np.testing.assert_allclose(done.json[kind], expected, atol=1e-5)


def test_version_2_deploys_serverless_scripts_and_plain_models(
    arrive: Arriving, luggage: Path, expected: Any
) -> None:
    done = arrive("sagemaker2").runs("sdk2_more.py", str(luggage))
    assert done.attempts == []
    np.testing.assert_allclose(done.json["serverless"], expected, atol=1e-5)
    np.testing.assert_allclose(done.json["plain"], expected, atol=1e-5)
    assert done.json["script"] == expected.argmax(axis=1).tolist()
    assert done.json["sklearn"] == {"sum": 6.5, "files": ["1", "code"]}


def test_version_2_deploys_as_its_documents_have_it(patient: Waiting, expected: Any) -> None:
    somebody, process = patient["sdk2.py"]
    done = somebody.end(process)
    assert done.attempts == []
    assert done.json["version"].startswith("2.")
    assert done.json["bucket"] == BUCKET
    assert done.json["uploaded"] == f"s3://{BUCKET}/by-hand/model.tar.gz"
    assert done.json["status"] == "InService"
    np.testing.assert_allclose(done.json["predictions"], expected, atol=1e-5)


def test_version_3_deploys_as_its_documents_have_it(patient: Waiting, expected: Any) -> None:
    somebody, process = patient["sdk3_builder.py"]
    done = somebody.end(process)
    assert done.attempts == []
    assert done.json["uploaded"] == f"s3://{BUCKET}/built/model.tar.gz"
    assert done.json["status"] == "InService"
    for kind in ("predictions", "serverless"):
        np.testing.assert_allclose(done.json[kind], expected, atol=1e-5)


def test_version_2_trains_and_deploys_what_it_has_trained(patient: Waiting) -> None:
    somebody, process = patient["sdk2_train.py"]
    done = somebody.end(process)
    assert done.attempts == []
    assert done.json["status"] == "Completed"
    assert done.json["model"].startswith(f"s3://{BUCKET}/tensorflow-training-")
    assert done.json["metrics"] == {"loss": 1.0}
    assert done.json["answers"] == {
        "serverless": {"predictions": [[3.0]]},
        "script": {"wrapped": {"predictions": [[3.0]]}},
    }
    assert "said good day" in done.stdout
    assert "Training - Training image download completed. Training in progress." in done.stdout
    assert "Billable seconds: " in done.stdout


def test_version_3_trains(patient: Waiting) -> None:
    somebody, process = patient["sdk3_train.py"]
    done = somebody.end(process)
    assert done.attempts == []
    assert done.json["status"] == "Completed"
    assert done.json["model"].startswith(f"s3://{BUCKET}/third/third-")
    assert done.json["seconds"] >= 1
    assert "said good day" in done.stdout
