"""Scripts with `model_fn`: spawned by every backend, and run by another interpreter that has
nothing but the standard library."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.core import Cause, Runtime
from emulator.errors import SetupError
from emulator.sandbox import interpreter
from emulator.sandbox.backends import create
from emulator.sandbox.protocol import (
    Environment,
    EnvironmentFailed,
    Invocation,
    Sandbox,
    Spec,
)
from tests.sandbox.conftest import DEADLINE_S, Run, ask, told, until

SCRIPT = """
import importlib.util, json, os, sys, threading

kept = []

def model_fn(model_dir):
    with open(os.path.join(model_dir, "weights.json")) as file:
        return json.load(file)

def input_fn(body, content_type):
    return body.decode() if isinstance(body, bytes) else body

def predict_fn(data, model):
    command, _, argument = data.partition(" ")
    return globals()["do_" + command](argument, model)

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"

def do_dot(argument, model):
    return sum(w * x for w, x in zip(model["weights"], json.loads(argument)))
def do_has(name, model): return importlib.util.find_spec(name) is not None
def do_about(_, model): return [sys.executable, os.getppid(), sorted(sys.modules)]
def do_environ(_, model): return dict(os.environ)
def do_write(path, model): open(path, "w")
def do_leak(megabytes, model): kept.append(bytearray(b"x") * (int(megabytes) << 20))
def do_say(text, model): print(text)
def do_exit(code, model): os._exit(int(code))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    (folder / "code").mkdir()
    (folder / "code" / "serve.py").write_text(SCRIPT)
    (folder / "weights.json").write_text('{"weights": [1, 2, 3]}')
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the standard library alone."""
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    return str(place / "bin" / "python")


@pytest.fixture(scope="module")
def foreign(run: Run, python: str) -> Iterator[Sandbox]:
    """A backend for scripts of that interpreter. It imports no TensorFlow for them."""
    sandbox = create("fork" if sys.platform == "linux" else "spawn", python=python)
    yield sandbox
    run(sandbox.close())


def spec(model: Path, **more: Any) -> Spec:
    return Spec("e/v/1", model, program="serve.py", **more)


async def dot(environment: Environment) -> None:
    assert await told(environment, "dot [1, 10, 100]") == 321


@pytest.mark.parametrize("name", ["fork", "spawn", "inline"])
def test_every_backend_runs_scripts_and_no_zygote_is_needed(
    run: Run, model: Path, name: str
) -> None:
    async def life() -> None:
        sandbox = create(name)
        await sandbox.open(Runtime.SCRIPT)
        environment = await sandbox.start(spec(model, warm_up=True, batch=8, compiled=True))
        assert environment.together == 1
        await dot(environment)
        _, parent, modules = await told(environment, "about")
        if name != "inline":
            assert parent == os.getpid()
            assert "tensorflow" not in modules
            assert "numpy" not in modules  # the script has no use for it
        await sandbox.close()
        assert environment.ended.result().cause is Cause.CLOSED

    run(life(), DEADLINE_S)


def test_another_interpreter_needs_the_standard_library_alone(
    run: Run, foreign: Sandbox, model: Path, python: str
) -> None:
    async def life() -> None:
        lines: list[str] = []
        environment = await foreign.start(spec(model, log=lines.append))
        await dot(environment)
        executable, _, modules = await told(environment, "about")
        assert executable == python
        assert "orjson" not in modules
        for name in ("numpy", "orjson", "pytest"):
            assert await told(environment, f"has {name}") is False
        said = await told(environment, "environ")
        assert "VIRTUAL_ENV" not in said
        own = {one.name for one in Path(said["PYTHONPATH"]).iterdir()}
        assert own == {"emulator", "model"}  # and no libraries
        await told(environment, "say a-word")
        await until(lambda: "a-word" in lines)
        large = await ask(environment, "dot " + json.dumps([1] * 300_000))
        assert json.loads(large.body) == 6
        assert large.model_ns > 0
        assert large.peak_bytes > 0
        failure = await ask(environment, "nothing")
        assert (failure.status, json.loads(failure.body)) == (500, {"error": "'do_nothing'"})
        await environment.stop()

    run(life())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and Landlock")
def test_it_is_isolated_and_held_to_its_memory_as_others(
    run: Run, foreign: Sandbox, model: Path, tmp_path: Path
) -> None:
    async def life() -> None:
        environment = await foreign.start(spec(model, memory_bytes=100 << 20))
        if environment.isolation.files != "open":
            refused = await ask(environment, f"write {tmp_path / 'out'}")
            assert refused.status == 500
            assert not (tmp_path / "out").exists()
        assert environment.stats().footprint_bytes > 0
        with pytest.raises(EnvironmentFailed) as failed:
            await ask(environment, "leak 200")
        assert failed.value.cause is Cause.OUT_OF_MEMORY
        other = await foreign.start(spec(model))
        with pytest.raises(EnvironmentFailed, match="exit code 7"):
            await ask(other, "exit 7")

    run(life())


def test_a_pickled_object_of_the_scripts_own_class(
    run: Run, foreign: Sandbox, tmp_path: Path
) -> None:
    source = """
        import pickle
        class Mean:
            def predict(self, rows): return [sum(row) / len(row) for row in rows]
        def model_fn(model_dir):
            with open(model_dir + "/model.pkl", "rb") as file: return pickle.load(file)
    """.replace("\n        ", "\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(source)
    Mean = type("Mean", (), {"__module__": "inference"})
    module = type(sys)("inference")
    module.Mean = Mean  # type: ignore[attr-defined]
    sys.modules["inference"] = module
    try:
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(Mean()))
    finally:
        del sys.modules["inference"]

    async def life() -> None:
        environment = await foreign.start(Spec("e/v/1", tmp_path, program="inference.py"))
        (reply,) = await environment.invoke([Invocation(b"[[1, 3]]", "application/json", "")])
        assert (reply.status, reply.body) == (200, b"[2.0]")
        await environment.stop()

    run(life())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pandas_of_nobody", "No module named 'pandas_of_nobody'"),
        ("def predict_fn(d, m): pass", "code/serve.py has no model_fn"),
        ("def model_fn(d): raise OSError('no weights')", "OSError: no weights"),
    ],
)
def test_a_script_that_does_not_load_says_why(
    run: Run, foreign: Sandbox, tmp_path: Path, source: str, said: str
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "serve.py").write_text(source)

    async def life() -> None:
        with pytest.raises(EnvironmentFailed, match=said) as failed:
            await foreign.start(spec(tmp_path))
        assert failed.value.cause is Cause.LOAD_FAILED

    run(life())


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


def test_an_interpreter_that_will_not_do_is_named(tmp_path: Path, python: str) -> None:
    assert interpreter.usable("") == ""
    assert interpreter.usable(python) == python
    old = program(tmp_path / "old", "echo 3 8; exit 0")
    with pytest.raises(SetupError, match=r"old .* is Python 3\.8; scripts need 3\.11 or newer"):
        interpreter.usable(old)
    with pytest.raises(SetupError, match="is not there or cannot be executed"):
        interpreter.usable(str(tmp_path / "gone"))
    with pytest.raises(SetupError, match=r"it says hello\.$"):
        interpreter.usable(program(tmp_path / "other", "echo hello"))
    (tmp_path / "binary").write_bytes(b"\x7fELF")
    (tmp_path / "binary").chmod(stat.S_IRWXU)
    with pytest.raises(SetupError, match="does not run"):
        interpreter.usable(str(tmp_path / "binary"))
