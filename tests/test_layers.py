"""The architecture, held by a test: imports go down, the core knows no clock and no I/O."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# One row per layer, lowest first; files of one layer do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "emulator",
        "emulator.address",
        "emulator.core",
        "emulator.errors",
        "emulator.provenance",
    ),
    ("emulator.pool", "emulator.billing"),
    (
        "emulator.allowances",
        "emulator.breakeven",
        "emulator.pricelist",
        "emulator.realtime",
        "emulator.serverless",
        "emulator.tariff",
    ),
    (
        "emulator.alarms",
        "emulator.archives",
        "emulator.asgi",
        "emulator.auth",
        "emulator.catalogue",
        "emulator.checksums",
        "emulator.chunks",
        "emulator.clock",
        "emulator.config",
        "emulator.content",
        "emulator.contract",
        "emulator.constraints",
        "emulator.cork",
        "emulator.endpoints",
        "emulator.eventstream",
        "emulator.exports",
        "emulator.expressions",
        "emulator.faults",
        "emulator.following",
        "emulator.ledger",
        "emulator.jobs",
        "emulator.listening",
        "emulator.logbook",
        "emulator.logpages",
        "emulator.objects",
        "emulator.offers",
        "emulator.origin",
        "emulator.quirks",
        "emulator.refusals",
        "emulator.paging",
        "emulator.profiles",
        "emulator.receipts",
        "emulator.toolkit",
        "emulator.sandbox",
        "emulator.state",
        "emulator.timings",
        "emulator.workers",
    ),
    (
        "emulator.artifacts",
        "emulator.calls",
        "emulator.credentials",
        "emulator.delays",
        "emulator.earlier",
        "emulator.figures",
        "emulator.inflight",
        "emulator.injection",
        "emulator.logfeed",
        "emulator.members",
        "emulator.decision",
        "emulator.series",
        "emulator.offering",
        "emulator.service",
        "emulator.taking",
        "emulator.terms",
    ),
    (
        "emulator.buckets",
        "emulator.caller",
        "emulator.cbor",
        "emulator.charts",
        "emulator.conversions",
        "emulator.copies",
        "emulator.forwarded",
        "emulator.journal",
        "emulator.live",
        "emulator.metrics",
        "emulator.monitoring",
        "emulator.periods",
        "emulator.personas",
        "emulator.registry",
        "emulator.streams",
        "emulator.trainingroom",
    ),
    (
        "emulator.channels",
        "emulator.console",
        "emulator.daily",
        "emulator.descriptions",
        "emulator.door",
        "emulator.ephemeral",
        "emulator.fitting",
        "emulator.fleet",
        "emulator.mounted",
        "emulator.orders",
        "emulator.statement",
    ),
    (
        "emulator.commands_bill",
        "emulator.commands_deploy",
        "emulator.commands_ledger",
        "emulator.commands_memory",
        "emulator.commands_prices",
        "emulator.commands_train",
        "emulator.cur",
        "emulator.explorer",
        "emulator.focus",
        "emulator.lifecycle",
        "emulator.overview",
        "emulator.testbed",
        "emulator.trainingrun",
    ),
    ("emulator.companion", "emulator.hosting", "emulator.training"),
    (
        "emulator.connections",
        "emulator.dashboard",
        "emulator.documentation",
        "emulator.envelope",
        "emulator.guard",
        "emulator.injecting",
        "emulator.jobcontrol",
        "emulator.sheet",
        "emulator.views",
        "emulator.wire",
    ),
    ("emulator.billpages", "emulator.control"),
    ("emulator.rest", "emulator.spending"),
    ("emulator.app",),
    ("emulator.cli", "emulator.pytest_plugin"),
)
PURE = {name for layer in LAYERS[:3] for name in layer}
FORBIDDEN_BELOW = {
    "time", "datetime", "asyncio", "random", "os", "threading", "sqlite3", "fastapi", "tensorflow",
    "socket", "subprocess", "pathlib",
}  # fmt: skip


def part_of(module: str) -> str:
    """A module, or the package that it is in, which is one part."""
    return ".".join(module.split(".")[:2])


def level(module: str) -> int:
    """The layer of a module's part."""
    part = part_of(module)
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    raise AssertionError(f"{module} is in no layer: add it to LAYERS in {Path(__file__).name}")


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted((ROOT / "emulator").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    """Modules imported at run time, wherever the statement stands; not those for types only."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = ROOT / node.module.replace(".", "/") / f"{alias.name}.py"
                names.add(f"{node.module}.{alias.name}" if inner.exists() else node.module)
    return names


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "emulator"}


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value))
def test_imports_go_down_only(name: str, path: Path) -> None:
    for imported in ours(path):
        if imported == "emulator" or part_of(imported) == part_of(name):
            continue
        assert level(imported) < level(name), f"{name} imports {imported}"


@pytest.mark.parametrize("name", sorted(PURE))
def test_decisions_and_bills_know_no_clock_and_no_io(name: str) -> None:
    path = dict(modules())[name]
    assert not {one.split(".")[0] for one in imports(path)} & FORBIDDEN_BELOW


def test_only_the_ledger_and_the_index_of_objects_hold_sql() -> None:
    holders = {name for name, path in modules() if "CREATE TABLE" in path.read_text()}
    assert {part_of(name) for name in holders} == {"emulator.ledger", "emulator.objects"}


def test_only_the_http_face_knows_fastapi() -> None:
    users = {
        name
        for name, path in modules()
        if any(one.split(".")[0].startswith("fastapi") for one in imports(path))
    }
    names = ("app", "billpages", "documentation", "injecting", "rest")
    assert users == {f"emulator.{name}" for name in names}


def test_the_worker_imports_nothing_of_the_server() -> None:
    path = dict(modules())["emulator.sandbox.worker"]
    assert all(name.startswith("emulator.sandbox") for name in ours(path))


def test_the_model_imports_nothing_of_the_server() -> None:
    for path in (ROOT / "model").rglob("*.py"):
        assert not ours(path), path


def test_importing_the_server_does_not_import_tensorflow() -> None:
    code = "import sys, emulator.app; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "fastapi" in done.stdout
    assert not {"tensorflow", "keras", "model"} & set(ast.literal_eval(done.stdout))
