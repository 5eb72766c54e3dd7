"""What the tests share: the server's settings, and a picture."""

from __future__ import annotations

import json
from importlib import resources

import pytest


@pytest.fixture(scope="session")
def lukewarm_settings() -> dict[str, str]:
    # What AWS adds to a cold start; under the virtual clock it counts, and nobody waits for it.
    return {"EMULATOR_REGION": "eu-west-3", "EMULATOR_COLD_START": "2"}


@pytest.fixture(scope="session")
def sneaker() -> list[list[float]]:
    request = resources.files("model").joinpath("artifacts/sneaker.json").read_text()
    picture: list[list[float]] = json.loads(request)["instances"][0]
    return picture
