"""Run every benchmark in turn, print a table, write JSON. Exits 1 if a bound is not held."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    cold_start,
    control,
    crowd,
    endurance,
    inference,
    ledger,
    load,
    profile,
    startup,
    training,
    warm,
    wrk,
)
from benchmarks.measure import ROOT, Figure, NotMeasured, machine
from benchmarks.peers.serving import versions

BENCHMARKS = {
    "startup": startup.figures,
    "cold-start": cold_start.figures,
    "warm": warm.figures,
    "control": control.figures,
    "ledger": ledger.figures,
    "training": training.figures,
    "profile": profile.figures,
    "inference": inference.figures,
    "load": load.figures,
    "crowd": crowd.figures,
    "endurance": endurance.figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="default: all of them")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "latest.json"
    )
    asked = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    found: dict[str, list[Figure]] = {}
    for name in asked.names or BENCHMARKS:
        with console.status(f"{name} ..."):
            found[name] = _figures(name)
    console.print(_table(found))
    _write(asked.json, found)
    console.print(f"written to {asked.json}")
    return int(any(one.held is False for figures in found.values() for one in figures))


def _figures(name: str) -> list[Figure]:
    try:
        return BENCHMARKS[name]()
    except NotMeasured as reason:
        return [Figure(name, None, "", note=str(reason))]


def _table(found: dict[str, list[Figure]]) -> Table:
    where = machine()
    table = Table(
        title=f"{where['processor']}, {where['cores']} cores, Python {where['python']}, "
        f"TensorFlow {where['tensorflow']}"
    )
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("bound", justify="right")
    table.add_column("")
    for figures in found.values():
        for one in figures:
            table.add_row(*_row(one))
        table.add_section()
    return table


def _row(one: Figure) -> tuple[str, str, str, str]:
    bound = "" if one.bound is None else f"{'<' if one.better == 'below' else '>'} {one.bound:g}"
    bound = "none" if one.bound == 0 else bound
    if one.value is None:
        return one.name, "not measured", bound, one.note
    held = {True: "held", False: "NOT HELD", None: one.note}[one.held]
    return one.name, f"{_number(one.value)} {one.unit}".strip(), bound, held


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _write(path: Path, found: dict[str, list[Figure]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "tools": {"wrk": wrk.version(), **{f"peers: {k}": v for k, v in versions().items()}},
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "figures": {
            name: [asdict(one) | {"held": one.held} for one in figures]
            for name, figures in found.items()
        },
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
