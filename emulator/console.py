"""What the commands share: options, tables, and how an error is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from emulator import caller
from emulator.caller import Caller
from emulator.config import Config, read
from emulator.errors import LukewarmError, SetupError

Url = Annotated[
    str, typer.Option(help="The server's address; else the one of the state directory's server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelPath = Annotated[
    Path, typer.Argument(help="A .keras file, a SavedModel or model directory, or a .tar.gz.")
]
Variables = Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the container.")]
Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
Account = Annotated[str, typer.Option(help="The endpoint's account; else the server's own.")]
Region = Annotated[str, typer.Option(help="The endpoint's region; else the server's own.")]


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """What a person has to mend goes to the standard error, and the exit code is 2."""
    try:
        yield
    except LukewarmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def server(url: str) -> Caller:
    return caller.find(url, config())


def config() -> Config:
    return read(os.environ)


def mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


def table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def show(what: Table | str) -> None:
    Console(highlight=False, markup=False).print(what, soft_wrap=isinstance(what, str))


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def whisper(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Says on a terminal what takes so long, and nothing elsewhere."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status("...") as status:
        yield lambda text: status.update(f"{text} ...")


def read_body(file: Path) -> bytes:
    """A request's body; - is the standard input. Raises SetupError."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror or error}.") from None
