"""The commands that look after a ledger: check, export, import."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from emulator import console
from emulator.console import AsJson
from emulator.core import SECOND
from emulator.errors import SetupError
from emulator.ledger import Ledger
from emulator.ledger.check import Checked, Fault, check
from emulator.ledger.exchange import Moved, export, take_in
from emulator.ledger.periods import END, EVER
from emulator.state import StateDirectory

SHOWN = 10  # faults

commands = typer.Typer(help="Check, export and import what was used.", no_args_is_help=True)

State = Annotated[
    Path | None, typer.Option(help="The server's state directory; else EMULATOR_STATE_DIR.")
]
Instant = Annotated[str, typer.Option(help="A date or an instant, such as 2026-09-01; UTC.")]


class Form(StrEnum):
    """What files are written in."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


@commands.command("check")
def check_ledger(state: State = None, as_json: AsJson = False) -> None:
    """Hold the sums by minute, hour and day against the rows that they were made of. A server may
    run on meanwhile. Ends with 1 if something is wrong."""
    with console.in_one_sentence(), console.telling() as tell:
        tell("Reading the ledger")
        found = check(_there(state))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        _print(found)
    if found.faults:
        raise typer.Exit(1)


@commands.command("export")
def export_ledger(
    folder: Annotated[Path, typer.Argument(help="Where the files are made.")],
    form: Annotated[Form, typer.Option("--format", help="Of the files.")] = Form.PARQUET,
    since: Annotated[str, typer.Option("--from", help="The first instant, in UTC.")] = "",
    until: Annotated[str, typer.Option("--to", help="The first instant behind it.")] = "",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Write what was used into files: the invocations, and what was held by time. A server may run
    on meanwhile."""
    with console.in_one_sentence(), console.telling() as tell:
        first = instant(since, "--from") if since else EVER
        last = instant(until, "--to") if until else END
        if first >= last:
            raise SetupError(f"--from {since} is not before --to {until}: change them round.")
        tell("Writing the files")
        moved = export(_there(state), folder, form, first, last)
    _told(moved, "Exported", as_json)


@commands.command("import")
def import_ledger(
    folder: Annotated[Path, typer.Argument(help="Where exported files are.")],
    again: Annotated[bool, typer.Option(help="Also what is in the ledger already.")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Add what was exported to the ledger of a state directory on which no server runs: all of it,
    or nothing."""
    with console.in_one_sentence(), console.telling() as tell:
        place = StateDirectory(_state(state))
        try:
            ledger = Ledger.open(place.ledger)
            try:
                tell("Reading the files")
                moved = take_in(ledger, folder, again)
                ledger.checkpoint()
            finally:
                ledger.close()
        finally:
            place.close()
    _told(moved, "Imported", as_json)


def instant(text: str, name: str) -> int:
    """Nanoseconds since the Unix epoch. Raises SetupError for what is no date and no instant."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SetupError(
            f"{name} {text} is no date and no instant: write it as 2026-09-01 or as "
            "2026-09-01T12:00:00Z."
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return int(found.timestamp()) * SECOND + found.microsecond * 1000


def _state(given: Path | None) -> Path:
    return given.expanduser() if given is not None else console.config().state_dir


def _there(given: Path | None) -> Path:
    path = _state(given) / "ledger.sqlite"
    if not path.is_file():
        raise SetupError(f"There is no ledger in {path.parent}: name a state directory by --state.")
    return path


def _told(moved: Moved, what: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(moved), "paths": [str(path) for path in moved.paths]}))
        return
    typer.echo(f"{what} {moved.invocations:,} invocations and {moved.meters:,} meters:")
    for path in moved.paths:
        typer.echo(f"  {path}")


def _print(found: Checked) -> None:
    typer.echo(f"{found.rolls:,} sums were held against {found.rows:,} invocations.")
    if found.dropped_before_ns:
        typer.echo(f"Before {_time(found.dropped_before_ns)} there are no invocations any more.")
    for fault in found.faults[:SHOWN]:
        typer.echo(f"  {_fault(fault)}")
    if len(found.faults) > SHOWN:
        typer.echo(f"  and {len(found.faults) - SHOWN:,} more.")
    typer.echo(f"{len(found.faults):,} are wrong." if found.faults else "All are right.")


def _fault(fault: Fault) -> str:
    where = f"{fault.endpoint}/{fault.variant}, {fault.table} of {_time(fault.start_ns)}"
    if not fault.column:
        return f"{where}: {'without a reason' if fault.stored else 'missing'}"
    if isinstance(fault.stored, bytes):
        return f"{where}: {fault.column} differ"
    return f"{where}: {fault.column} is {fault.stored:,}, counted {fault.counted:,}"


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // SECOND, UTC):%Y-%m-%d %H:%M}Z"
