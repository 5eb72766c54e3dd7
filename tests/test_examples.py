"""The examples of the documents, run against a real server; what they show is what they give."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emulator import config
from tests.servers import ROOT, Server, environment, serving

NAMES = ("README.md", "CONTRIBUTING.md", "docs/settings.md", "docs/http.md", "docs/testing.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)
ADDRESS = re.compile(r"(localhost|127\.0\.0\.1):8000")
SHOWN = ("json", "http", "text")
MEASURED = re.compile(r"\b\d+ MiB")  # of this machine and its TensorFlow
TIMEOUT_S = 90


@dataclass(frozen=True)
class Example:
    """A fenced block, and the output that is shown right below it."""

    place: str
    language: str
    code: str
    shown: str = ""
    shown_as: str = ""

    @property
    def is_sent(self) -> bool:
        """Whether it talks to a server, so that it can be run against one."""
        said = bool(re.search(r"^lukewarm (?!serve)|lukewarm env", self.code, re.M))
        return bool(ADDRESS.search(self.code)) or said


def examples(name: str) -> list[Example]:
    fences = list(FENCE.finditer(TEXTS[name]))
    found = []
    for number, fence in enumerate(fences):
        following = fences[number + 1] if number + 1 < len(fences) else None
        shown = ("", "")
        if following and following[1] in SHOWN and following.start() == fence.end():
            shown = (following[2], following[1])
        heading = re.findall(r"^#+ (.*)$", TEXTS[name][: fence.start()], re.M)[-1]
        place = f"{name}-{number}-{heading.lower().replace(' ', '-')}"
        found.append(Example(place, fence[1], fence[2], *shown))
    return [one for one in found if one.language not in SHOWN]


EXAMPLES = [one for name in TEXTS for one in examples(name)]
SENT = [one for one in EXAMPLES if one.is_sent]
COMMANDS = [
    (one.place, line)
    for one in EXAMPLES
    if one.language == "sh" and not one.is_sent
    for line in one.code.splitlines()
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of somebody who follows the README; some time has passed and calls were made."""
    with serving(tmp_path_factory.mktemp("reader"), EMULATOR_CLOCK="virtual") as running:
        running.advance(60)
        for persona in ("realtime", "serverless"):
            assert running.invoke(f"fashion-mnist-{persona}").status_code == 200
        yield running


@pytest.mark.parametrize("example", SENT, ids=lambda one: str(one.place))
def test_examples_run_and_show_what_they_give(reader: Server, example: Example) -> None:
    if missing := _missing(example):
        pytest.skip(f"{missing} is not installed")
    if "/evict" in example.code or "mine/invocations" in example.code:
        _prepare(reader, example)
    output = _run(example, reader)
    if example.shown_as == "json":
        same(json.loads(example.shown), json.loads(output), example.place)
    elif example.shown_as == "http":
        same_head(example.shown, output)
    elif example.shown_as == "text":
        assert MEASURED.sub("0 MiB", output) == MEASURED.sub("0 MiB", example.shown)


def _missing(example: Example) -> str:
    if "curl " in example.code and not shutil.which("curl"):
        return "curl"
    if "import boto3" in example.code and not importlib.util.find_spec("boto3"):
        return "boto3"
    if " aws " in example.code:
        aws = shutil.which("aws")
        if not aws or subprocess.run([aws, "--version"], capture_output=True).returncode:
            return "aws"
    return ""


def _prepare(reader: Server, example: Example) -> None:
    """So that each example stands on its own: something to evict, an endpoint to delete."""
    reader.invoke("fashion-mnist-serverless")
    known = reader.client.get("/_emulator/endpoints/mine").status_code == 200
    if "mine/invocations" in example.code and not known:
        creation = next(one for one in SENT if "-X PUT" in one.code)
        _run(creation, reader)


def _run(example: Example, reader: Server) -> str:
    code = ADDRESS.sub(f"127.0.0.1:{reader.port}", example.code)
    path = f"{_installed(reader)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["sh", "-eu", "-c", code]
    if example.language == "python":
        command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(reader.state, PATH=path, HOME=str(reader.state)),
        capture_output=True, text=True,
        timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith(("{", "HTTP/")):
            assert not re.search('ModelError|"Message"|"detail"', line), line
    return done.stdout


def _installed(reader: Server) -> Path:
    """A directory with the command `lukewarm`, as an installation would have it."""
    command = reader.state.parent / "bin" / "lukewarm"
    if not command.exists():
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m emulator.cli "$@"\n')
        command.chmod(0o755)
    return command.parent


def same(shown: Any, real: Any, where: str) -> None:
    """What is shown occurs in what was given; numbers, dates and ids may differ."""
    assert type(shown) is type(real), f"{where}: {shown!r} became {real!r}"
    if isinstance(shown, dict):
        assert set(shown) <= set(real), f"{where}: {set(shown) - set(real)} is gone"
        for key, value in shown.items():
            same(value, real[key], f"{where}.{key}")
    elif isinstance(shown, list):
        same_list(shown, real, where)
    elif isinstance(shown, str):
        assert shape(shown) == shape(real), where
    elif isinstance(shown, bool | None):
        assert shown == real, where


def same_list(shown: list[Any], real: list[Any], where: str) -> None:
    if shown and all(isinstance(one, float) for one in shown):  # probabilities
        assert len(shown) == len(real), where
        assert shown.index(max(shown)) == real.index(max(real)), where
        return
    assert len(shown) <= len(real), where
    for number, (one, other) in enumerate(zip(shown, real, strict=False)):
        same(one, other, f"{where}[{number}]")


def shape(text: str) -> str:
    """The text without ids and numbers."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "id", text)
    return re.sub(r"\d+(\.\d+)?", "0", text)


def same_head(shown: str, output: str) -> None:
    real = output.split("\n\n")[0].splitlines()
    due = shown.splitlines()
    assert real[0] == due[0]
    headers = dict(line.split(": ", 1) for line in real[1:])
    for line in due[1:]:
        name, value = line.split(": ", 1)
        assert shape(headers[name]) == shape(value), name


@pytest.mark.parametrize(("place", "command"), COMMANDS, ids=lambda value: str(value))
def test_commands_exist(place: str, command: str) -> None:
    words = shlex.split(command)
    settings = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    config.read(settings, ROOT)  # each is a setting, and its value parses
    known = {"make": _make, "lukewarm": _lukewarm, "uvicorn": _uvicorn, "pip": _pip}
    assert words[0] in known, f"{place}: no check knows {words[0]}"
    known[words[0]](words[1:])


def _make(words: list[str]) -> None:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env=inherited, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _lukewarm(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emulator.cli", *words, "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _uvicorn(words: list[str]) -> None:
    assert words == ["emulator.app:app"]
    assert importlib.import_module("emulator.app").app


def _pip(words: list[str]) -> None:
    assert words == ["install", "-e", "."]
    assert (ROOT / "pyproject.toml").is_file()


def test_the_settings_file_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (shown,) = (one.code for one in examples("docs/settings.md") if one.language == "toml")
    (tmp_path / config.FILE).write_text(shown)
    found = config.read({}, tmp_path)
    assert all(hasattr(found, name) for name in tomllib.loads(shown))
