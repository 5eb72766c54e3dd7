"""The commands that make an endpoint of a model on this machine, and take it away."""

from __future__ import annotations

import shlex
import time
from typing import Annotated, Any

import typer

from emulator import caller, console, following, orders
from emulator.caller import Caller
from emulator.console import AsJson, ModelPath, Name, Url, Variables
from emulator.endpoints import MEMORY_SIZES_MB
from emulator.errors import SetupError
from emulator.orders import Order

Count = int | None


def deploy(
    path: ModelPath,
    name: Annotated[str, typer.Option(help="The endpoint's name; else the file's.")] = "",
    serverless: Annotated[bool, typer.Option(help="A serverless endpoint, the default.")] = False,
    memory: Annotated[Count, typer.Option(help="Serverless: MB, 1024 to 6144.")] = None,
    concurrency: Annotated[
        Count, typer.Option(help="Serverless: most requests at a time.", min=1)
    ] = None,
    provisioned: Annotated[
        Count, typer.Option(help="Serverless: environments kept warm.", min=0)
    ] = None,
    instance: Annotated[str, typer.Option(help="A real-time endpoint on this type.")] = "",
    count: Annotated[Count, typer.Option(help="Real-time: instances.", min=1)] = None,
    env: Variables = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is in service.")] = True,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make an endpoint of a model on this machine. It is serverless (4096 MB, 10 at a time) unless
    --instance names a type, since a serverless one costs nothing while nobody calls. The exit code
    is 1 if the endpoint fails, and 2 if it could not be asked for."""
    begun = time.monotonic()
    with console.in_one_sentence():
        variant = _variant(serverless, memory, concurrency, provisioned, instance, count)
        variables = following.pairs(env or (), "--env", empty=True)
        server = console.server(url)
        source = server.local(path)
        named = name or caller.name_of(source)
        made = orders.place(server, Order(named, source, variant, variables))
        if wait:
            with console.telling() as tell:
                made = orders.settled(server, made, tell)
        about = server.get("/_emulator/server")
    failed = made["status"] == "Failed"
    if as_json:
        console.print_json(made)
    elif not failed:
        took = f" after {time.monotonic() - begun:.1f} s" if wait else ""
        console.show(f"{named} ({made['persona']}) is {made['status']}{took}.")
        for example in _examples(server, named, about, f" --url {shlex.quote(url)}" if url else ""):
            console.show(f"  {example}")
    if failed:
        typer.echo(
            f"{named} has failed: {made['failure_reason']} `lukewarm delete {named}` removes it.",
            err=True,
        )
        raise typer.Exit(1)


def delete(name: Name, url: Url = "", as_json: AsJson = False) -> None:
    """Delete an endpoint, and what `lukewarm deploy` made together with it; its bill stays. Waits
    until it is gone, so that its name is free again."""
    with console.in_one_sentence():
        server = console.server(url)
        done = server.delete(caller.path(name))
        gone = orders.gone(server, name)
    if as_json:
        console.print_json(done)
    else:
        console.show(f"{name} is {'deleted' if gone else 'being deleted'}.")


def _variant(
    serverless: bool, memory: Count, concurrency: Count, provisioned: Count,
    instance: str, count: Count,
) -> dict[str, Any]:  # fmt: skip
    """Of the body of our own REST. Raises SetupError for options that do not go together."""
    if instance and (serverless or (memory, concurrency, provisioned) != (None, None, None)):
        raise SetupError(
            f"--instance {instance} makes a real-time endpoint, which has no --serverless, "
            "--memory, --concurrency or --provisioned: leave out one or the other."
        )
    if instance:
        return orders.real_time(instance, count)
    if count is not None:
        raise SetupError("--count is for real-time endpoints: name a type with --instance.")
    if memory is not None and memory not in MEMORY_SIZES_MB:
        sizes = ", ".join(map(str, MEMORY_SIZES_MB))
        raise SetupError(f"--memory is {memory}; it is one of {sizes}.")
    return orders.serverless(memory, concurrency, provisioned)


def _examples(server: Caller, name: str, about: dict[str, Any], option: str) -> list[str]:
    """Lines to paste, for a request in the file request.json."""
    signed = ""
    if about["authentication"]:
        signed = (
            f" --aws-sigv4 aws:amz:{about['region']}:sagemaker"
            ' --user "$EMULATOR_ACCESS_KEY_ID:$EMULATOR_SECRET_ACCESS_KEY"'
        )
    where = f"{server.url}/endpoints/{name}/invocations"
    return [
        f"lukewarm invoke {name} --file request.json{option}",
        f"curl -s{signed} {where} -H 'Content-Type: application/json' -d @request.json",
    ]
