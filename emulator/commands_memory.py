"""The command that measures how much memory a model needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from emulator import console, fitting, following
from emulator.console import AsJson, ModelPath, Variables
from emulator.fitting import NAMES, Fit, Question
from emulator.personas import RUNTIME_VARIABLE


def fit_memory(
    path: ModelPath,
    body: Annotated[Path | None, typer.Option(help="A request to answer.")] = None,
    content_type: Annotated[str, typer.Option(help="The body's type.")] = "application/json",
    runtime: Annotated[str, typer.Option(help="tensorflow or litert; else the setting.")] = "",
    env: Variables = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a model needs to load and to answer, and name the smallest memory size of a
    serverless endpoint that holds it. Without --body a TensorFlow model answers one request of
    zeros, and a script none. Needs no server."""
    with console.in_one_sentence():
        variables = following.pairs(env or (), "--env", empty=True)
        if runtime:
            variables[RUNTIME_VARIABLE] = runtime
        question = Question(console.read_body(body) if body else None, content_type)
        model = path.expanduser().resolve()
        with console.telling() as tell:
            found = asyncio.run(fitting.fit(model, variables, console.config(), question, tell))
    if as_json:
        _print_json(found)
    else:
        _print(found)


def _print_json(found: Fit) -> None:
    console.print_json(
        {
            "runtime": found.runtime,
            "note": found.note,
            "loaded_bytes": found.loaded_bytes,
            "peak_bytes": found.peak_bytes,
            "memory_mb": found.memory_mb,
            "left_bytes": found.left_bytes,
            "smaller_mb": found.smaller_mb or None,
            "lacking_bytes": found.lacking_bytes or None,
            "vcpus": round(found.vcpus, 2),
        }
    )


def _print(found: Fit) -> None:
    if found.note:
        console.show(f"It stays on TensorFlow: {found.note}")
    console.show(
        f"After loading   {console.mib(found.loaded_bytes)}, {NAMES[found.runtime]} included"
    )
    console.show(f"At the peak     {console.mib(found.peak_bytes)}, measured over {found.asked}")
    console.show(
        f"Memory size     {found.memory_mb} MB, which leaves {console.mib(found.left_bytes)} and "
        f"gives {found.vcpus:.2f} vCPU"
    )
    if found.smaller_mb:
        console.show(
            f"Too small       {found.smaller_mb} MB, by {console.mib(found.lacking_bytes)}"
        )
