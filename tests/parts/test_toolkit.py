"""What the training toolkit makes of a request, without a machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.address import Home, Key
from emulator.errors import ValidationException
from emulator.toolkit import Machine, Training

KEY = Key(Home("123456789012", "eu-west-3"), "job")
ARN = "arn:aws:sagemaker:eu-west-3:123456789012:training-job/job"
SUBMIT = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": '"s3://b/source.tar.gz"'}


def training(parameters: dict[str, str], **more: Any) -> Training:
    request = {
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "an-image"},
        "ResourceConfig": {"InstanceType": "ml.m5.large"},
        "HyperParameters": parameters,
        **more,
    }
    return Training(KEY, ARN, request, Machine(2, "python"))


@given(st.dictionaries(st.text("abcdefghij-_", min_size=1, max_size=8), st.text(max_size=20)))
def test_texts_that_sdks_encode_come_back_as_they_were(given: dict[str, str]) -> None:
    made = training(SUBMIT | {name: json.dumps(value) for name, value in given.items()})
    command = made.command(package=False)
    assert command[:2] == ["python", "train.py"]
    words = command[2:]
    assert words[::2] == [f"--{n}" if len(n) > 1 else f"-{n}" for n in sorted(given)]
    assert words[1::2] == [given[name] for name in sorted(given)]
    variables = made.variables()
    assert json.loads(variables["SM_HPS"]) == given
    assert json.loads(variables["SM_USER_ARGS"]) == words


@pytest.mark.parametrize(
    ("written", "argument", "variable"),
    [
        ("3", "3", "3"),
        ("0.5", "0.5", "0.5"),
        ("true", "True", "true"),
        ("null", "", ""),
        ("[1,2]", "[1, 2]", "[1,2]"),
        ('{"b": 1, "a": 2}', "a=2,b=1", '{"a":2,"b":1}'),
        ("plain text", "plain text", "plain text"),
    ],
)
def test_other_values_become_what_the_toolkit_makes_of_them(
    written: str, argument: str, variable: str
) -> None:
    made = training({**SUBMIT, "value": written})
    assert made.command(package=False)[2:] == ["--value", argument]
    assert made.variables()["SM_HP_VALUE"] == variable


def test_what_begins_with_sagemaker_is_the_toolkits_own() -> None:
    made = training({**SUBMIT, "sagemaker_job_name": '"job"', "sagemaker_distributed": "1"})
    assert made.hyperparameters == {}
    assert json.loads(made.variables()["SM_FRAMEWORK_PARAMS"]) == {"sagemaker_distributed": 1}


def test_programs_that_are_not_python() -> None:
    shell = training({**SUBMIT, "sagemaker_program": '"run.sh"', "name": '"a b"'})
    assert shell.command(package=False) == ["/bin/sh", "-c", "./run.sh --name 'a b'"]
    assert training(SUBMIT).command(package=True) == ["python", "-m", "train"]


def test_an_entrypoint_has_no_toolkit() -> None:
    algorithm = {
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/bash"],
        "ContainerArguments": ["-c", "true"],
    }
    made = training({}, AlgorithmSpecification=algorithm, Environment={"OWN": "1"})
    assert made.command(package=False) == ["/bin/bash", "-c", "true"]
    variables = made.variables()
    assert variables["OWN"] == "1"
    assert not [name for name in variables if name.startswith("SM_")]


def test_an_image_by_itself_is_not_run() -> None:
    with pytest.raises(ValidationException, match="'an-image' is not run here"):
        training({})
