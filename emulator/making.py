"""The commands that make something: endpoints of a model, training jobs, and a choice of memory."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from emulator import caller, console, fitting, following
from emulator.caller import Caller
from emulator.console import AsJson, Name, Url
from emulator.core import Runtime
from emulator.endpoints import MEMORY_SIZES_MB
from emulator.errors import SetupError
from emulator.sandbox import interpreter

POLL_S = 0.1
ARCHIVES = re.compile(r"\.(keras|tar\.gz|tgz|tar)$")
MEMORY_MB, CONCURRENCY, INSTANCE = 4096, 10, "ml.t2.medium"
ModelPath = Annotated[
    Path, typer.Argument(help="A .keras file, a SavedModel or model directory, or a .tar.gz.")
]


def deploy(
    path: ModelPath,
    name: Annotated[str, typer.Option(help="The endpoint's name; else the file's.")] = "",
    serverless: Annotated[bool, typer.Option(help="A serverless endpoint, the default.")] = False,
    memory: Annotated[int, typer.Option(help="Serverless: MB, 1024 to 6144.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Serverless: most requests at a time.")] = 0,
    provisioned: Annotated[int, typer.Option(help="Serverless: environments kept warm.")] = 0,
    instance: Annotated[str, typer.Option(help="A real-time endpoint on this type.")] = "",
    count: Annotated[int, typer.Option(help="Real-time: instances.")] = 0,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the container.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is in service.")] = True,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make an endpoint of a model on this machine. It is serverless (4096 MB, 10 at a time) unless
    --instance names a type, since a serverless one costs nothing while nobody calls."""
    begun = time.monotonic()
    with console.in_one_sentence():
        variant = _variant(serverless, memory, concurrency, provisioned, instance, count)
        server = console.server(url)
        source = _local(server, path)
        named = name or _name(source)
        known = [one["name"] for one in server.get("/_emulator/endpoints")["endpoints"]]
        if named in known:
            raise SetupError(
                f"There is an endpoint {named} already: give this one another name with --name, or "
                f"delete that one with `lukewarm delete {named}`."
            )
        variables = following.pairs(env or (), "--env")
        body = {"variants": [{**variant, "model": str(source), "variables": variables}]}
        made = server.put(caller.path(named), body)
        if wait:
            with _telling() as tell:
                tell(f"{named} is {made['status']}")
                made = _settled(server, named)
        if made["status"] == "Failed":
            raise SetupError(
                f"{named} has failed: {made['failure_reason']} `lukewarm delete {named}` removes "
                "it."
            )
    if as_json:
        console.print_json(made)
        return
    took = f" after {time.monotonic() - begun:.1f} s" if wait else ""
    console.show(f"{named} ({made['persona']}) is {made['status']}{took}.")
    if wait:
        where = f"{server.url}/endpoints/{named}/invocations"
        console.show(f"  lukewarm invoke {shlex.quote(named)} --file request.json")
        console.show(f"  curl -s {where} -H 'Content-Type: application/json' -d @request.json")


def delete(name: Name, url: Url = "", as_json: AsJson = False) -> None:
    """Delete an endpoint, and what `lukewarm deploy` made together with it; its bill stays."""
    with console.in_one_sentence():
        done = console.server(url).delete(caller.path(name))
    if as_json:
        console.print_json(done)
    else:
        console.show(f"{name} is deleted.")


def train(
    script: Annotated[Path, typer.Argument(help="The script, as SageMaker's estimators run it.")],
    channel: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH or NAME=s3://...: data for the script.")
    ] = None,
    hyperparameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="NAME=REGEX with one group.")] = None,
    source_dir: Annotated[Path | None, typer.Option(help="All of the script's code.")] = None,
    output: Annotated[str, typer.Option(help="A folder or s3://... for the results.")] = ".",
    instance: Annotated[str, typer.Option(help="The type to bill.")] = "ml.m5.large",
    name: Annotated[str, typer.Option(help="The job's name; else one from the script's.")] = "",
    max_runtime: Annotated[int, typer.Option(help="Seconds.", min=1)] = 86_400,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Run a training job and show what it prints. Its model.tar.gz is what `lukewarm deploy` takes.
    Ctrl-C stops the job, which may still store its model."""
    from botocore.exceptions import BotoCoreError, ClientError

    with console.in_one_sentence():
        server = console.server(url)
        about = server.get("/_emulator/server")
        wish = following.Wish(
            name or f"{_name(script)[:40].rstrip('-')}-{uuid.uuid4().hex[:6]}",
            script,
            source_dir,
            following.pairs(channel or (), "--channel"),
            following.pairs(hyperparameter or (), "--hyperparameter"),
            following.pairs(metric or (), "--metric"),
            instance,
            output,
            max_runtime,
        )
        _local(server, script)
        home = about["region"], about["account"]
        sagemaker, logs = server.client("sagemaker", *home), server.client("logs", *home)
        say = _whisper if as_json else print
        try:
            with wish.request(about["account"]) as request:
                sagemaker.create_training_job(**request)
                followed = following.Follower(sagemaker, logs, wish.name, say).follow(
                    lambda: _whisper(f"Stopping {wish.name}; Ctrl-C again leaves it to itself.")
                )
        except ClientError as error:
            said = error.response["Error"]
            raise SetupError(f"{said['Code']}: {said.get('Message') or 'no message'}") from None
        except BotoCoreError as error:
            raise SetupError(f"The training job cannot be asked for: {error}.") from None
        _finish(server, followed, as_json)


def _finish(server: Caller, job: dict[str, Any], as_json: bool) -> None:
    name, model = job["TrainingJobName"], job["ModelArtifacts"]["S3ModelArtifacts"]
    billed = {one["name"]: one["total"] for one in server.get("/billing")["training_jobs"]}
    shown = {
        "name": name,
        "status": job["TrainingJobStatus"],
        "billable_seconds": job.get("BillableTimeInSeconds", 0),
        "cost": billed.get(name, "0"),
        "model": model,
        "metrics": {one["MetricName"]: one["Value"] for one in job.get("FinalMetricDataList", ())},
        "failure_reason": job.get("FailureReason", ""),
    }
    if as_json:
        console.print_json(shown)
    elif shown["status"] != "Failed":
        costs = f"{shown['billable_seconds']} s billed, {shown['cost']} USD"
        console.show(f"{name} is {shown['status']}: {costs}.")
        for metric, value in shown["metrics"].items():
            console.show(f"  {metric}: {value:g}")
        place = model.removeprefix("file://")
        console.show(f"  {place}")
        if place != model:
            console.show(f"  lukewarm deploy {shlex.quote(place)} --name {name[:40].rstrip('-')}")
    if shown["status"] == "Failed":
        raise SetupError(f"{name} has failed: {shown['failure_reason']}")


def fit_memory(
    path: ModelPath,
    body: Annotated[Path | None, typer.Option(help="A request to answer.")] = None,
    content_type: Annotated[str, typer.Option(help="The body's type.")] = "application/json",
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the container.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a model needs to load and to answer, and name the smallest memory size of a
    serverless endpoint that holds it. Without --body a TensorFlow model answers one of zeros."""
    with console.in_one_sentence():
        config = console.config()
        model = fitting.Model(
            path.expanduser().resolve(),
            following.pairs(env or (), "--env"),
            Runtime(config.runtime),
            config.model_bytes,
            config.isolation,
            interpreter.usable(config.python),
        )
        request = _read(body) if body else None
        with _telling() as tell:
            found = asyncio.run(fitting.fit(model, request, content_type, tell))
    if as_json:
        console.print_json(
            {
                "runtime": found.runtime,
                "loaded_bytes": found.loaded_bytes,
                "peak_bytes": found.peak_bytes,
                "memory_mb": found.memory_mb or None,
            }
        )
        return
    asked = f"{found.answers} answers" if found.answers else "the load"
    console.show(f"After loading   {console.mib(found.loaded_bytes)}, {found.runtime} included")
    console.show(f"At the peak     {console.mib(found.peak_bytes)}, measured over {asked}")
    if not found.memory_mb:
        with console.in_one_sentence():
            raise SetupError(
                f"No memory size holds that: the largest is {MEMORY_SIZES_MB[-1]} MB. Take a "
                f"real-time endpoint (--instance), or a smaller model."
            )
    left = found.memory_mb * (1 << 20) - found.peak_bytes
    console.show(
        f"Memory size     {found.memory_mb} MB, which leaves {console.mib(left)} and gives "
        f"{found.vcpus:.2f} vCPU"
    )


def _variant(
    serverless: bool, memory: int, concurrency: int, provisioned: int, instance: str, count: int
) -> dict[str, Any]:
    """Of the body of our own REST. Raises SetupError for options that do not go together."""
    if instance and (serverless or memory or concurrency or provisioned):
        raise SetupError(
            f"--instance {instance} makes a real-time endpoint, which has no --serverless, "
            "--memory, --concurrency or --provisioned: leave out one or the other."
        )
    if instance:
        return {"realtime": {"instance_type": instance, "instance_count": count or 1}}
    if count:
        raise SetupError("--count is for real-time endpoints: name a type with --instance.")
    if memory and memory not in MEMORY_SIZES_MB:
        sizes = ", ".join(map(str, MEMORY_SIZES_MB))
        raise SetupError(f"--memory is {memory}; it is one of {sizes}.")
    return {
        "serverless": {
            "memory_mb": memory or MEMORY_MB,
            "max_concurrency": concurrency or CONCURRENCY,
            "provisioned_concurrency": provisioned,
        }
    }


def _local(server: Caller, path: Path) -> Path:
    """The absolute path, which has to mean the same to the server. Raises SetupError."""
    found = path.expanduser().resolve()
    if not found.exists():
        raise SetupError(f"There is nothing at {path}.")
    if not server.here:
        raise SetupError(
            f"The server {server.url} is on another machine and cannot read {path}: store it in "
            "its S3, and use boto3 or the SageMaker SDK."
        )
    return found


def _name(path: Path) -> str:
    """A name for an endpoint or a job, from that of a file."""
    found = path.resolve()
    if found.name.isdecimal():  # the version of a SavedModel
        found = found.parent
    stem = ARCHIVES.sub("", found.name)
    stem = stem.removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:63].rstrip("-") or "model"


def _settled(server: Caller, name: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = server.get(caller.path(name))
        if found["status"] != "Creating":
            return found
        time.sleep(POLL_S)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror or error}.") from None


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """Says on a terminal what takes so long, and nothing elsewhere."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status("...") as status:
        yield lambda text: status.update(f"{text} ...")


def _whisper(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
