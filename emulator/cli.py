"""The command `lukewarm`."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from emulator import (
    caller,
    commands_bill,
    commands_deploy,
    commands_ledger,
    commands_memory,
    commands_prices,
    commands_train,
    console,
    exports,
    profiles,
)
from emulator.catalogue import Tables
from emulator.config import read
from emulator.console import Account, AsJson, Name, Region, Url
from emulator.errors import SetupError
from emulator.exports import Shell
from emulator.sandbox import interpreter

commands = typer.Typer(
    help="A local, offline SageMaker endpoint emulator with real cold starts and an exact bill.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

HOST_HELP = "Address to listen on; one that others can reach turns authentication on."
PYTHON_HELP = "Interpreter that scripts with model_fn run in; sets EMULATOR_PYTHON."


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
    with console.in_one_sentence():
        config = read(os.environ)
        interpreter.usable(config.python)
        Tables.of(config.price_folder).find(config.region)
        profiles.load(config.profile)
        _check_port(host, port)
    uvicorn.run("emulator.app:app", host=host, port=port, access_log=config.access_log)


@commands.command()
def env(
    url: Url = "",
    shell: Annotated[Shell, typer.Option(help="The form of the lines.")] = Shell.SH,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Print what makes boto3, the AWS CLI and the SageMaker SDK talk to the server, offline.

    sh, bash, zsh: eval $(lukewarm env). fish: lukewarm env --shell fish | source. PowerShell:
    lukewarm env --shell powershell | Out-String | Invoke-Expression.
    """
    with console.in_one_sentence():
        config = read(os.environ)
        server = caller.find(url, config)
        about = server.get("/_emulator/server")
        key_id, secret = caller.keys(config, about["account"])
        if about["authentication"] and key_id == about["account"]:
            raise SetupError(
                f"The server at {server.url} takes signed requests only: set EMULATOR_ACCESS_KEY_ID"
                " and EMULATOR_SECRET_ACCESS_KEY to its keys."
            )
        text = exports.sdk_config(about["region"], about["account"])
        name = f"sagemaker-{about['region']}-{about['account']}.yaml"
        place = caller.private(Path(typer.get_app_dir("lukewarm")), name, text)
        given = exports.variables(server.url, about["region"], key_id, secret, str(place))
    typer.echo(json.dumps(given, indent=2) if as_json else exports.script(shell, given))


@commands.command()
def endpoints(url: Url = "", as_json: AsJson = False) -> None:
    """List the endpoints of all regions, and what runs for them."""
    with console.in_one_sentence():
        found = console.server(url).get("/_emulator/endpoints")
    if as_json:
        console.print_json(found)
        return
    failed = any(one["failure_reason"] for one in found["endpoints"])
    titles = ["Endpoint", "Region", "Persona", "Status", "Environments", "Memory"]
    table = console.table(*titles, *(["Why"] if failed else []))
    for one in found["endpoints"]:
        running = one["environments"]
        table.add_row(
            one["name"], one["region"], one["persona"], one["status"], _states(running),
            console.mib(sum(each["memory_bytes"] for each in running)),
            *([one["failure_reason"]] if failed else []),
        )  # fmt: skip
    console.show(table if found["endpoints"] else "There is no endpoint.")


@commands.command()
def invoke(
    name: Name,
    file: Annotated[Path, typer.Option(help="The request's body; - is the standard input.")],
    content_type: Annotated[str, typer.Option(help="The body's type.")] = "application/json",
    accept: Annotated[str, typer.Option(help="The type that is asked for.")] = "",
    variant: Annotated[str, typer.Option(help="The variant to invoke.")] = "",
    region: Region = "",
    account: Account = "",
    url: Url = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer and its headers as JSON.")
    ] = False,
) -> None:
    """Send a request to an endpoint: the answer goes to the standard output, what it cost and how
    long it took to the standard error."""
    from botocore.exceptions import ClientError

    given = {"ContentType": content_type, "Accept": accept, "TargetVariant": variant}
    with console.in_one_sentence():
        server = console.server(url)
        about = server.get("/_emulator/server")
        given = {member: value for member, value in given.items() if value}
        try:
            answer = server.invoke(
                region or about["region"],
                account or about["account"],
                name,
                Body=console.read_body(file),
                **given,
            )
        except ClientError as error:
            said = error.response["Error"]
            raise SetupError(f"{said['Code']}: {said.get('Message') or 'no message'}") from None
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    if as_json:
        body = answer["Body"].decode("utf-8", "backslashreplace")
        console.print_json({"headers": headers, "body": body})
        return
    sys.stdout.buffer.write(answer["Body"])
    sys.stdout.flush()
    start = "cold" if headers.get("x-emulator-cold-start") == "true" else "warm"
    took = int(headers["x-emulator-model-latency-us"]) + int(
        headers["x-emulator-overhead-latency-us"]
    )
    cost = headers["x-emulator-cost-usd"]
    cost = cost if cost == "no price" else f"{cost} USD"
    billed = headers["x-emulator-billed-ms"]
    typer.echo(f"\n{start}, {took / 1000:.1f} ms, {billed} ms billed, {cost}", err=True)


@commands.command()
def evict(name: Name, url: Url = "", as_json: AsJson = False) -> None:
    """Unload the idle environments of a serverless endpoint: the next request starts cold."""
    with console.in_one_sentence():
        done = console.server(url).post(f"{caller.path(name)}/evict")
    count = done["evicted"]
    if as_json:
        console.print_json(done)
    else:
        console.show(f"{count} environment{'' if count == 1 else 's'} of {name} unloaded.")


@commands.command()
def status(url: Url = "", as_json: AsJson = False) -> None:
    """Show where the server is, what it hosts, and what has been spent."""
    with console.in_one_sentence():
        server = console.server(url)
        about = server.get("/_emulator/server")
        bill = server.get("/billing")
        hosted = server.get("/_emulator/endpoints")["endpoints"]
    running = [each for one in hosted for each in one["environments"]]
    shown = {
        "url": server.url,
        **about,
        "endpoints": len(hosted),
        "environments": len(running),
        "memory_bytes": sum(each["memory_bytes"] for each in running),
        "total": bill["total"],
        "currency": bill["currency"],
        "complete": bill["complete"],
    }
    if as_json:
        console.print_json(shown)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, value in (
        ("Server", server.url),
        ("Region and account", f"{about['region']}, {about['account']}"),
        ("Time", f"{about['now']} ({about['clock']} clock)"),
        *([("Latency profile", about["profile"])] if about["profile"] != "none" else []),
        ("Endpoints", str(len(hosted))),
        ("Environments", f"{_states(running)}, {console.mib(shown['memory_bytes'])}"),
        ("Spent", f"{bill['total']} {bill['currency']}{_incomplete(bill)}"),
        ("Dashboard", f"{server.url}/billing"),
    ):
        table.add_row(title, value)
    console.show(table)


for command in (
    commands_deploy.deploy, commands_deploy.delete, commands_train.train,
    commands_memory.fit_memory, commands_bill.bill,
):  # fmt: skip
    commands.command()(command)
commands.add_typer(commands_ledger.commands, name="ledger")
commands.command("breakeven")(commands_bill.break_even)
commands.add_typer(commands_prices.commands, name="prices")


def main() -> None:
    """The console script."""
    commands()


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


def _states(running: list[dict[str, Any]]) -> str:
    counts = dict.fromkeys(("busy", "idle", "starting"), 0)
    for one in running:
        counts[one["state"]] += 1
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none"


def _incomplete(bill: dict[str, Any]) -> str:
    return "" if bill["complete"] else ", without what has no price"


if __name__ == "__main__":
    main()
