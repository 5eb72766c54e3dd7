"""Draw `docs/cold-start.svg` from the newest figures: `python -m benchmarks.timeline`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.measure import ROOT

LEFT, SPAN = 80, 540  # where a bar begins, and how wide the axis's longest mark is
PARTS = {
    "rest": "connection, queue, bookkeeping",
    "runtime": "runtime start",
    "load": "model load",
    "answer": "first answer",
}
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 262" role="img" \
aria-labelledby="title" font-family="system-ui, sans-serif" font-size="13">
<title id="title">Timeline of a cold start: with fork the client waits {fork:.2f} s, \
with spawn {spawn:.2f} s</title>
<style>
  text {{ fill: #333 }} .quiet {{ fill: #666 }} .axis {{ stroke: #999 }}
  .runtime {{ fill: #b9770e }} .load {{ fill: #2471a3 }} .answer {{ fill: #1e8449 }}
  .rest {{ fill: #aab7b8 }}
  @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .quiet {{ fill: #aaa }} }}
</style>"""


def drawing(figures: list[dict[str, float | str]]) -> str:
    """The picture of one run's cold-start figures, in seconds."""
    found = {str(one["name"]).strip(): float(one["value"]) for one in figures}
    fork, spawn = _parts(found, "fork"), _parts(found, "spawn")
    lines = [
        _HEAD.format(fork=sum(fork.values()), spawn=sum(spawn.values())),
        *_bar("fork", 8, fork, longest=2.0),
        *_bar("spawn", 40, spawn, longest=2.0),
        *_axis(72, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s"]),
        '<text x="0" y="130" class="quiet">ten times closer</text>',
        *_bar("fork", 140, fork, longest=0.2),
        *_axis(172, ["0 ms", "50 ms", "100 ms", "150 ms", "200 ms"]),
    ]
    for x, (name, meaning) in zip((80, 330, 461, 571), PARTS.items(), strict=True):
        lines.append(f'<rect class="{name}" x="{x}" y="222" width="12" height="12"/>')
        lines.append(f'<text x="{x + 18}" y="233">{meaning}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _parts(found: dict[str, float], backend: str) -> dict[str, float]:
    parts = {name: found.get(f"of it with {backend}: {what}", 0.0) for name, what in PARTS.items()}
    whole = found[f"cold start with {backend}, p50"]
    return parts | {"rest": max(0.0, whole - sum(parts.values()))}


def _bar(label: str, y: int, parts: dict[str, float], longest: float) -> list[str]:
    lines, x = [f'<text x="0" y="{y + 15}">{label}</text>'], float(LEFT)
    for name, seconds in parts.items():
        width = seconds / longest * SPAN
        lines.append(f'<rect class="{name}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="22"/>')
        x += width
    return [*lines, f'<text x="{x + 8:.1f}" y="{y + 15}">{sum(parts.values()):.2f} s</text>']


def _axis(y: int, marks: list[str]) -> list[str]:
    lines = [f'<path class="axis" d="M{LEFT} {y}H674" fill="none"/>']
    for number, mark in enumerate(marks):
        x = LEFT + number * SPAN // (len(marks) - 1)
        lines.append(
            f'<path class="axis" d="M{x} {y}v5" fill="none"/>'
            f'<text class="quiet" x="{x}" y="{y + 20}" text-anchor="middle">{mark}</text>'
        )
    return lines


def main() -> None:
    latest = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())
    Path(ROOT / "docs" / "cold-start.svg").write_text(drawing(latest["figures"]["cold-start"]))


if __name__ == "__main__":
    main()
