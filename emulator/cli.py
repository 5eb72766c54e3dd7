"""The command `lukewarm`."""

from __future__ import annotations

import os
import socket
from typing import Annotated

import typer

from emulator import catalogue
from emulator.config import read
from emulator.errors import SetupError
from emulator.sandbox import interpreter

HOST_HELP = "Address to listen on; one that others can reach turns authentication on."
PYTHON_HELP = "Interpreter that scripts with model_fn run in; sets EMULATOR_PYTHON."

commands = typer.Typer(
    help="A local, offline SageMaker endpoint emulator with real cold starts and an exact bill.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@commands.callback()
def _lukewarm() -> None:
    """Commands are words; `lukewarm COMMAND --help` explains each."""


@commands.command()
def serve(
    host: Annotated[str, typer.Option(help=HOST_HELP)] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    python: Annotated[str, typer.Option(help=PYTHON_HELP)] = "",
) -> None:
    """Run the server: the same as `uvicorn emulator.app:app`. Settings: docs/settings.md."""
    import uvicorn  # only this command needs it

    if python:
        os.environ["EMULATOR_PYTHON"] = python
    try:
        config = read(os.environ)
        interpreter.usable(config.python)
        catalogue.price_table(config.region)
        _check_port(host, port)
    except SetupError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    uvicorn.run(
        "emulator.app:app",
        host=host,
        port=port,
        access_log=config.access_log,
    )


def _check_port(host: str, port: int) -> None:
    """Raises SetupError if nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise SetupError(
                f"The server cannot listen on {host}:{port} ({reason}): choose another port, as in "
                "`lukewarm serve --port 8001` or `make serve PORT=8001`."
            ) from None


def main() -> None:
    """The console script."""
    commands()


if __name__ == "__main__":
    main()
