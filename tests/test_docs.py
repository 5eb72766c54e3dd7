"""The documents, held to the code: examples are run, names and figures are compared."""

from __future__ import annotations

import ast
import importlib.util
import inspect
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
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from emulator import billing, catalogue, config, errors
from emulator.billing import Usage, UsageKind
from emulator.metrics import Metrics
from tests.servers import ROOT, Server, environment, serving
from tests.test_layers import LAYERS

NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/settings.md", "docs/http.md",
         "docs/fidelity.md", "docs/design.md")  # fmt: skip
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
EVERYTHING = "\n".join(TEXTS.values())
FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)
SHOWN = ("json", "http", "text")
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
        return "localhost:8000" in self.code


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


# -- examples ---------------------------------------------------------------------------------


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
        assert output == example.shown


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
    code = example.code.replace("localhost:8000", f"127.0.0.1:{reader.port}")
    command = ["sh", "-eu", "-c", code]
    if example.language == "python":
        command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(reader.state), capture_output=True, text=True,
        timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith(("{", "HTTP/")):
            assert not re.search('ModelError|"Message"|"detail"', line), line
    return done.stdout


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
    assert "app" in _names_of(ROOT / "emulator" / "app.py")


def _pip(words: list[str]) -> None:
    assert words == ["install", "-e", "."]
    assert (ROOT / "pyproject.toml").is_file()


def _names_of(path: Path) -> set[str]:
    """What a module defines at its top level."""
    defined = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    return defined


def test_the_settings_file_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (shown,) = (one.code for one in examples("docs/settings.md") if one.language == "toml")
    (tmp_path / config.FILE).write_text(shown)
    found = config.read({}, tmp_path)
    assert all(hasattr(found, name) for name in tomllib.loads(shown))


# -- names ------------------------------------------------------------------------------------


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_setting_is_documented_with_its_default() -> None:
    shown = {row[0]: row[1] for row in rows(TEXTS["docs/settings.md"]) if len(row) == 3}
    real = {f"`{setting.variable}`": f"`{setting.default}`" for setting in config.TABLE}
    assert {name: text for name, text in shown.items() if "EMULATOR_" in name} == real


def test_no_setting_is_mentioned_that_does_not_exist() -> None:
    known = {setting.variable for setting in config.TABLE} | {"EMULATOR_CONFIG"}
    assert set(re.findall(r"EMULATOR_[A-Z_]*[A-Z]", EVERYTHING)) <= known


def test_every_metric_is_documented() -> None:
    text = Metrics().render().decode()
    names = set(re.findall(r"^# HELP (\S+)", text, re.M))
    documented = {row[0].strip("`") for row in rows(TEXTS["docs/http.md"])}
    assert names
    assert {name for name in documented if name.startswith("sagemaker_")} == names


def test_every_error_is_documented_with_its_status() -> None:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    text = TEXTS["docs/http.md"]
    assert not [one.__name__ for one in classes if f"`{one.__name__}`" not in text]
    shown = {row[0].strip("`"): row[1] for row in rows(text) if len(row) == 3}
    for one in classes:
        if issubclass(one, errors.InvocationError) and one is not errors.InvocationError:
            assert shown[one.__name__] == str(one.status)


def test_every_route_and_header_is_documented(reader: Server) -> None:
    paths = reader.client.get("/openapi.json").json()["paths"]
    text = TEXTS["docs/http.md"]
    for path, methods in paths.items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in text
    reply = reader.invoke("fashion-mnist-realtime")
    assert not [name for name in reply.headers if "x-emulator" in name and f"`{name}`" not in text]
    assert set(re.findall(r"`(x-emulator-[a-z-]+[a-z])`", EVERYTHING)) <= set(reply.headers)


def test_every_make_target_is_documented() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert not [one for one in targets if f"`make {one}`" not in EVERYTHING]
    assert set(re.findall(r"`make ([a-z]+)[` ]", EVERYTHING)) <= set(targets)


def test_every_region_is_documented() -> None:
    for name in ("docs/settings.md", "CHANGELOG.md"):
        assert not [region for region in catalogue.regions() if region not in TEXTS[name]]


def test_every_file_is_in_the_design() -> None:
    text = TEXTS["docs/design.md"]
    sections = {"emulator": "`emulator/`", "emulator/sandbox": "`emulator/sandbox/`",
                "model": "`model/`"}  # fmt: skip
    for folder, heading in sections.items():
        section = text.split(f"### {heading}")[1].split("\n#")[0]
        listed = set(re.findall(r"`(\w+\.py)`", "".join(row[0] for row in rows(section))))
        real = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        assert listed == real, folder


def test_layers_are_those_of_the_code() -> None:
    layers = [row for row in rows(TEXTS["docs/design.md"]) if re.match(r"L\d", row[0])]
    assert len(layers) == len(LAYERS)
    for row, real in zip(layers, LAYERS, strict=True):
        names = {f"emulator.{one}" for one in re.findall(r"`(\w+)(?:\.py|/)`", row[1])}
        assert names == set(real) - {"emulator"}


# -- references -------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name])
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in map(slug, headings), link


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    # Runs of code are taken apart at spaces: `.venv/bin/python -m pytest tests/e2e` names one.
    named = re.findall(r"(?<![\w/.])((?:tests|emulator|model|docs|benchmarks)/[\w./-]*)",
                       " ".join(re.findall(r"`([^`\n]+)`", TEXTS[name])))  # fmt: skip
    made = ("benchmarks/results",)
    assert not [path for path in named if not (ROOT / path).exists() and path not in made]


def test_tests_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", EVERYTHING)
    assert len(named) > 50
    assert not [(path, test) for path, test in named if test not in _names_of(ROOT / path)]


def test_every_behaviour_has_a_source_a_confidence_and_a_test() -> None:
    for row in rows(TEXTS["docs/fidelity.md"]):
        if (
            len(row) < 4
            or row[0] in ("behaviour", "limit", "error", "rule")
            or set(row[0]) == {"-"}
        ):
            continue
        assert "`tests/" in row[-1] or row[-1] == "none yet", row[0]
        assert row[-2] == "" or re.search(r"sure|likely", row[-2]), row[0]


def test_the_picture_is_well_formed_and_says_what_the_table_says() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "cold-start.svg").getroot()
    words = {element.text for element in picture.iter() if element.text}
    totals = {
        row[0]: row[-1] for row in rows(TEXTS["README.md"]) if row[0] in ("`fork`", "`spawn`")
    }
    for total in totals.values():
        seconds = int(total.removesuffix(" ms").replace(",", "")) / 1000
        assert f"{seconds:.2f} s" in words
    assert len(totals) == 2


# -- figures ----------------------------------------------------------------------------------


def test_the_table_of_costs_is_computed_from_the_price_table() -> None:
    table = catalogue.price_table("eu-west-3")
    shown = [row for row in rows(TEXTS["README.md"]) if re.fullmatch(r"[\d,]+", row[0])]
    assert len(shown) == 4
    for row in shown:
        calls = int(row[0].replace(",", ""))
        data = Usage(UsageKind.DATA_IN, "", 500 * calls)
        hours = Usage(UsageKind.INSTANCE, "ml.t2.medium", 24 * billing.HOUR)
        duration = Usage(UsageKind.SERVERLESS_DURATION, "4096", 45 * calls)
        for usage, text in ((hours, row[1]), (duration, row[2])):
            total = billing.bill([usage, data], table).total
            assert round(total, len(text.split(".")[1])) == Decimal(text)


def test_the_break_even_is_where_both_cost_the_same() -> None:
    table = catalogue.price_table("eu-west-3")
    day = billing.cost(UsageKind.INSTANCE, "ml.t2.medium", 24 * billing.HOUR, table)
    call = billing.cost(UsageKind.SERVERLESS_DURATION, "4096", 45, table)
    data = billing.cost(UsageKind.DATA_IN, "", 500, table)
    assert day is not None
    assert call is not None
    assert data is not None
    assert day / call == 420_000
    assert "420,000 calls a day" in TEXTS["README.md"].replace("\n", " ")
    assert round(day / (call + data), -3) == 419_000
