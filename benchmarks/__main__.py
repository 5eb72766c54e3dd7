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

from benchmarks import cold_start, inference, startup, warm
from benchmarks.measure import ROOT, Figure, machine

BENCHMARKS = {
    "startup": startup.figures,
    "cold-start": cold_start.figures,
    "warm": warm.figures,
    "inference": inference.figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="default: all of them")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "latest.json"
    )
    asked = parser.parse_args()
    console = Console()
    found: dict[str, list[Figure]] = {}
    for name in asked.names or BENCHMARKS:
        with console.status(f"{name} ..."):
            found[name] = BENCHMARKS[name]()
    console.print(_table(found))
    _write(asked.json, found)
    console.print(f"written to {asked.json}")
    return int(any(one.held is False for figures in found.values() for one in figures))


def _table(found: dict[str, list[Figure]]) -> Table:
    where = machine()
    table = Table(
        title=f"{where['processor']}, {where['cores']} cores, Python {where['python']}, "
        f"TensorFlow {where['tensorflow']}"
    )
    for title, justify in (("figure", "left"), ("measured", "right"), ("bound", "right")):
        table.add_column(title, justify="right" if justify == "right" else "left")
    table.add_column("")
    for figures in found.values():
        for one in figures:
            bound = f"{'<' if one.better == 'below' else '>'} {one.bound:g}" if one.bound else ""
            held = {True: "held", False: "NOT HELD", None: ""}[one.held]
            table.add_row(one.name, f"{one.value:.3g} {one.unit}", bound, held)
        table.add_section()
    return table


def _write(path: Path, found: dict[str, list[Figure]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "figures": {
            name: [asdict(one) | {"held": one.held} for one in figures]
            for name, figures in found.items()
        },
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
