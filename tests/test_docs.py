"""The documents, held to the code: names, references and figures. Examples: `test_examples.py`."""

from __future__ import annotations

import ast
import inspect
import re
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest

from emulator import billing, catalogue, config, errors
from emulator.billing import Usage, UsageKind
from emulator.metrics import Metrics
from tests.servers import ROOT, Server, archive, serverless
from tests.test_layers import LAYERS

NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/settings.md", "docs/http.md",
         "docs/fidelity.md", "docs/design.md", "docs/testing.md")  # fmt: skip
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
EVERYTHING = "\n".join(TEXTS.values())


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
        if (
            issubclass(one, errors.InvocationError | errors.AccessError)
            and not one.__subclasses__()
        ):
            assert shown[one.__name__] == str(one.status)


def test_every_route_and_header_is_documented(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    text = TEXTS["docs/http.md"]
    for path, methods in paths.items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in text
    reply = server.invoke("fashion-mnist-realtime")
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
    sections = {"emulator": "`emulator/`", "emulator/ledger": "`emulator/ledger/`",
                "emulator/sandbox": "`emulator/sandbox/`", "model": "`model/`"}  # fmt: skip
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


def _names_of(path: Path) -> set[str]:
    """What a module defines at its top level."""
    defined = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    return defined


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
        assert "`tests/" in row[-1], row[0]
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


# -- claims of docs/fidelity.md that no other test holds ----------------------------------------

FRAIL = """
import os, time
if os.path.exists({flag!r}):
    raise RuntimeError('the weights have moved')
def handler(data, context):
    if data.read() == b'exit':
        time.sleep(0.2)
        os._exit(3)
    return b'{{}}', 'application/json'
"""


def test_a_death_is_billed_for_its_time_and_a_failed_start_for_nothing(
    server: Server, name: str, tmp_path: Path
) -> None:
    flag = tmp_path / "moved"
    server.deploy(name, serverless(archive(tmp_path, FRAIL.format(flag=str(flag)))))
    died = server.invoke(name, b"exit")
    assert died.status_code == 424
    assert int(died.headers["x-emulator-billed-ms"]) >= 200
    before = server.bill(name)
    flag.touch()
    never_up = server.invoke(name, b"go")
    assert never_up.status_code == 424
    assert never_up.headers["x-emulator-billed-ms"] == "0"
    assert never_up.headers["x-emulator-cost-usd"] == "0"
    after = server.bill(name)
    assert after["lines"] == before["lines"]
    assert (before["errors"], after["errors"]) == (1, 2)
