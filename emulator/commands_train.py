"""The command that runs a training job."""

from __future__ import annotations

import shlex
import tarfile
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from emulator import caller, console, following
from emulator.console import AsJson, Url
from emulator.errors import SetupError


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
    Ctrl-C stops the job, which may still store its model. The exit code is 1 if the job fails, and
    2 if it could not be asked for or followed."""
    from botocore.exceptions import BotoCoreError, ClientError

    with console.in_one_sentence():
        server = console.server(url)
        about = server.get("/_emulator/server")
        wish = following.Wish(
            name or f"{caller.name_of(script)[:40].rstrip('-')}-{uuid.uuid4().hex[:6]}",
            script,
            source_dir,
            following.pairs(channel or (), "--channel"),
            following.pairs(hyperparameter or (), "--hyperparameter", empty=True),
            following.pairs(metric or (), "--metric"),
            instance,
            output,
            max_runtime,
        )
        server.local(source_dir or script)
        home = about["region"], about["account"]
        sagemaker, logs = server.client("sagemaker", *home), server.client("logs", *home)
        say = console.whisper if as_json else print
        try:
            with wish.request(about["account"]) as request:
                sagemaker.create_training_job(**request)
                followed = following.Follower(sagemaker, logs, wish.name, say).follow(
                    lambda: console.whisper(
                        f"Stopping {wish.name}; Ctrl-C again leaves it to itself."
                    )
                )
        except ClientError as error:
            said = error.response["Error"]
            raise SetupError(f"{said['Code']}: {said.get('Message') or 'no message'}") from None
        except BotoCoreError as error:
            raise SetupError(f"The training job {wish.name} cannot be followed: {error}.") from None
        bill = server.get("/billing")
    _finish(followed, bill, as_json)


def _finish(job: dict[str, Any], bill: dict[str, Any], as_json: bool) -> None:
    name, model = job["TrainingJobName"], job["ModelArtifacts"]["S3ModelArtifacts"]
    billed = {one["name"]: one["total"] for one in bill["training_jobs"]}
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
        _show_model(name, model)
    if shown["status"] == "Failed":
        typer.echo(f"{name} has failed: {shown['failure_reason']}", err=True)
        raise typer.Exit(1)


def _show_model(name: str, model: str) -> None:
    place = model.removeprefix("file://")
    if place != model and _is_empty(Path(place)):
        console.show("  It has saved no model: /opt/ml/model, SM_MODEL_DIR, is the place for one.")
        return
    console.show(f"  {place}")
    if place != model:
        console.show(f"  lukewarm deploy {shlex.quote(place)} --name {name[:40].rstrip('-')}")


def _is_empty(archive: Path) -> bool:
    """Whether nothing is in it, or it is not there at all."""
    try:
        with tarfile.open(archive) as tar:
            return tar.next() is None
    except (OSError, tarfile.TarError):
        return True
