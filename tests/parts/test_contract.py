"""Which contract an archive is served by: its image and its files decide, and none is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.artifacts import prepare
from emulator.contract import SCRIPT_BYTES, Contract, contract
from emulator.errors import SetupError

SCRIPT = "import os\ndef model_fn(model_dir):\n    return 1\n"
HANDLER = "def handler(data, context):\n    return b'', ''\n"
TENSORFLOW, SKLEARN = Contract(), Contract("inference.py")
ECR = "763104351884.dkr.ecr.eu-west-3.amazonaws.com"


def model(folder: Path, *files: str, script: str = "", program: str = "inference.py") -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    if script:
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / program).write_text(script)
    return folder


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (f"{ECR}/tensorflow-inference:2.12.1-cpu", TENSORFLOW),
        (f"{ECR}/tensorflow-inference@sha256:{'0' * 64}", TENSORFLOW),
        ("sagemaker-tensorflow-serving-eia:1.14", TENSORFLOW),
        ("localhost:5000/team/my-tensorflow-serving", TENSORFLOW),
        (f"{ECR}/sagemaker-scikit-learn:1.2-1-cpu-py3", SKLEARN),
        (f"{ECR}/pytorch-inference:2.1-cpu", SKLEARN),
        (f"{ECR}/tensorflow-training:2.12", SKLEARN),
        (f"{ECR}/huggingface-tensorflow-inference:2.11", SKLEARN),
        ("tensorflow-serving.example/xgboost", SKLEARN),
    ],
)
def test_the_image_decides(tmp_path: Path, image: str, expected: Contract) -> None:
    assert contract(model(tmp_path, "1/saved_model.pb", script=SCRIPT), image, {}) == expected


@pytest.mark.parametrize(
    ("files", "script", "expected"),
    [
        (["1/saved_model.pb"], "", TENSORFLOW),
        (["m.keras"], HANDLER, TENSORFLOW),
        (["m.keras"], HANDLER + SCRIPT, TENSORFLOW),
        (["m.keras"], SCRIPT, SKLEARN),
        (["model.joblib"], SCRIPT, SKLEARN),
        (["model.pt"], "from net import *", SKLEARN),
        ([], "try:\n    from fast import load as model_fn\nexcept ImportError:\n    pass", SKLEARN),
        ([], "if True:\n    model_fn = print", SKLEARN),
        ([], "model_fn: object = print", SKLEARN),
    ],
)
def test_without_an_image_the_archive_decides(
    tmp_path: Path, files: list[str], script: str, expected: Contract
) -> None:
    assert contract(model(tmp_path, *files, script=script), "", {}) == expected


def test_the_script_can_be_named(tmp_path: Path) -> None:
    model(tmp_path, "model.joblib", script=SCRIPT, program="serve.py")
    assert contract(tmp_path, "", {"SAGEMAKER_PROGRAM": "serve.py"}) == Contract("serve.py")
    assert contract(tmp_path, "x", {"SAGEMAKER_PROGRAM": "serve"}) == Contract("serve.py")


@pytest.mark.parametrize(
    ("image", "script", "variables", "said"),
    [
        ("", "", {}, "neither a SavedModel nor a .keras file, and there is no code/inference.py"),
        ("xgb:1", "", {}, "The image xgb:1 is not one of TensorFlow Serving"),
        ("xgb:1", "def predict_fn(d, m): pass", {}, "defines predict_fn but no model_fn"),
        ("xgb:1", HANDLER, {}, "does not define model_fn"),
        ("xgb:1", "def (", {}, "no Python that can be read (invalid syntax"),
        ("xgb:1", "x = " + "(" * 100_000, {}, "no Python that can be read"),
        ("xgb:1", "\0", {}, "no Python that can be read"),
        ("xgb:1", SCRIPT, {"SAGEMAKER_PROGRAM": "train.py"}, "there is no code/train.py"),
        ("xgb:1", SCRIPT, {"SAGEMAKER_PROGRAM": "../inference.py"}, "which is no file in code/"),
        ("xgb:1", SCRIPT, {"SAGEMAKER_PROGRAM": "/etc/passwd"}, "which is no file in code/"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, image: str, script: str, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(SetupError) as caught:
        contract(model(tmp_path, "model.joblib", script=script), image, variables)
    assert said in str(caught.value)


def test_nothing_of_a_script_is_run(tmp_path: Path) -> None:
    harm = f"open({str(tmp_path / 'harm')!r}, 'w').close()\n"
    contract(model(tmp_path, script=harm + SCRIPT), "", {})
    assert not (tmp_path / "harm").exists()


def test_an_archive_with_a_script_may_hold_what_it_loads(tmp_path: Path) -> None:
    folder = model(tmp_path / "a", "model.joblib", "net.pt", script=SCRIPT, program="serve.py")
    named = {"SAGEMAKER_PROGRAM": "serve.py"}
    prepare(folder, tmp_path / "out", 1 << 20, named)
    assert (tmp_path / "out/model.joblib").read_bytes() == b"x"
    with pytest.raises(SetupError, match=r"pack it with a script .* model_fn"):
        prepare(folder, tmp_path / "other", 1 << 20)


def test_a_script_excuses_no_keras_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no \.keras file"):
        prepare(model(tmp_path / "a", "m.keras", script=SCRIPT), tmp_path / "out", 1 << 20)


def test_a_script_of_any_size_is_not_parsed(tmp_path: Path) -> None:
    archive = model(tmp_path, script=SCRIPT + "#" * SCRIPT_BYTES)
    with pytest.raises(SetupError, match=rf"inference.py has more than {SCRIPT_BYTES} bytes"):
        contract(archive, "", {})
