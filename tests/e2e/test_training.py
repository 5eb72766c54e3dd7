"""Training jobs: scripts really run, with everything that AWS's containers give them."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.accounts import Account, refusal
from tests.servers import LIGHT, Server, alive, serving, until
from tests.training import GROUP, IMAGE, Trainer, channel, left_over

TELLS = """
import json, os, sys
base = os.environ["SM_OUTPUT_DATA_DIR"]
config = {name: json.load(open(os.path.join(os.environ["SM_INPUT_CONFIG_DIR"], name)))
          for name in ("hyperparameters.json", "inputdataconfig.json", "resourceconfig.json")}
files = sorted(os.path.relpath(os.path.join(top, name), "/opt/ml/input/data")
               for top, _, names in os.walk("/opt/ml/input/data") for name in names)
told = {"arguments": sys.argv[1:], "variables": dict(os.environ), "config": config,
        "cwd": os.getcwd(), "files": files}
json.dump(told, open(os.path.join(base, "told.json"), "w"))
print("told", flush=True)
os.makedirs(os.path.join(os.environ["SM_MODEL_DIR"], "1"))
open(os.path.join(os.environ["SM_MODEL_DIR"], "1", "saved_model.pb"), "w").write("a model")
"""
WAITS = """
import os, signal, sys, time
def leave(*_):
    open(os.path.join(os.environ["SM_MODEL_DIR"], "kept"), "w").write("in time")
    print("leaving", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("pid", os.getpid(), flush=True)
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""
STAYS = WAITS.replace("signal.signal(signal.SIGTERM, leave)",
                      "signal.signal(signal.SIGTERM, signal.SIG_IGN)")  # fmt: skip
# Lines; together more than is kept of a stream. What comes last has a second to come.
FIRST, THEN = 17_000, 4_000
BURSTS = f"""
import signal, sys, time
def print_lines(word, count):
    print(*(f"{{word}} {{number}}" for number in range(count)), sep="\\n", flush=True)
def leave(*_):
    print_lines("then", {THEN})
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print_lines("first", {FIRST})
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def trainer(account: Account) -> Trainer:
    return Trainer(account)


def test_a_script_gets_all_that_the_container_gives(trainer: Trainer) -> None:
    data = trainer.put("data/images/a.csv", b"1")
    trainer.put("data/images/more/b.csv", b"2")
    trainer.put("data/images-of-others", b"3")
    one = trainer.put("data/one.csv", b"4")
    images = data.removesuffix("/a.csv")
    parameters = {"epochs": "3", "name": '"a b"', "flag": "true", "l": "[1, 2]", "m": '{"k": "v"}'}
    job = trainer.run(
        "told",
        TELLS,
        parameters=parameters,
        InputDataConfig=[channel("training", images), channel("test", one)],
        Environment={"OWN": "yes"},
    )
    assert job["TrainingJobStatus"] == "Completed"
    told = json.loads(trainer.unpacked("results/told/output/output.tar.gz")["told.json"])
    assert told["arguments"] == [
        "--epochs", "3", "--flag", "True", "-l", "[1, 2]", "-m", "k=v", "--name", "a b",
    ]  # fmt: skip
    assert told["cwd"] == "/opt/ml/code"
    assert told["files"] == ["test/one.csv", "training/a.csv", "training/more/b.csv"]
    assert told["config"]["hyperparameters.json"]["name"] == '"a b"'
    assert told["config"]["resourceconfig.json"]["current_host"] == "algo-1"
    channels = told["config"]["inputdataconfig.json"]
    assert channels["training"]["TrainingInputMode"] == "File"
    variables = told["variables"]
    expected = {
        "SM_MODEL_DIR": "/opt/ml/model",
        "SM_CHANNEL_TRAINING": "/opt/ml/input/data/training",
        "SM_CHANNELS": '["test","training"]',
        "SM_HP_EPOCHS": "3",
        "SM_HP_NAME": "a b",
        "SM_HOSTS": '["algo-1"]',
        "SM_CURRENT_INSTANCE_TYPE": "ml.m5.large",
        "SM_USER_ENTRY_POINT": "train.py",
        "SM_MODULE_NAME": "train",
        "SM_NUM_GPUS": "0",
        "SM_FRAMEWORK_MODULE": "sagemaker_tensorflow_container.training:main",
        "TRAINING_JOB_NAME": "told",
        "OWN": "yes",
    }
    assert {name: variables.get(name) for name in expected} == expected
    assert json.loads(variables["SM_HPS"])["m"] == {"k": "v"}
    assert json.loads(variables["SM_TRAINING_ENV"])["job_name"] == "told"
    assert not [name for name in variables if name.startswith("EMULATOR_")]
    assert trainer.unpacked("results/told/output/model.tar.gz") == {"1/saved_model.pb": b"a model"}


def test_a_job_is_described_and_listed_as_it_goes(trainer: Trainer, server: Server) -> None:
    metrics = [{"Name": "loss", "Regex": r"loss: ([0-9.]+)"}]
    job = trainer.run(
        "described",
        "for n in (3, 2, 1): print(f'loss: {n / 2}', flush=True)",
        AlgorithmSpecification={
            "TrainingImage": IMAGE, "TrainingInputMode": "File", "MetricDefinitions": metrics,
        },
        Tags=[{"Key": "stage", "Value": "test"}],
    )  # fmt: skip
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    stages = [one["Status"] for one in job["SecondaryStatusTransitions"]]
    assert stages == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in one for one in job["SecondaryStatusTransitions"])
    assert [(one["MetricName"], one["Value"]) for one in job["FinalMetricDataList"]] == [
        ("loss", 0.5)
    ]
    place = f"s3://{trainer.bucket}/results/described/output/model.tar.gz"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == place
    assert job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1
    (summary,) = trainer.sagemaker.list_training_jobs(StatusEquals="Completed")[
        "TrainingJobSummaries"
    ]
    assert (summary["TrainingJobName"], summary["TrainingJobStatus"]) == ("described", "Completed")
    arn = job["TrainingJobArn"]
    assert arn == trainer.account.arn("training-job", "described")
    assert trainer.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [
        {"Key": "stage", "Value": "test"}
    ]
    listed = server.client.get("/billing").json()["training_jobs"]
    (entry,) = [one for one in listed if one["account"] == trainer.account.account]
    (line,) = entry["lines"]
    assert line["usage_type"] == "EUW3-Train:ml.m5.large"
    assert round(float(line["quantity"]) * 3600, 6) == job["BillableTimeInSeconds"]
    assert entry["name"] in server.client.get("/billing", headers={"accept": "text/html"}).text
    trainer.sagemaker.delete_training_job(TrainingJobName="described")
    assert trainer.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_its_output_is_in_the_log_while_it_runs(trainer: Trainer) -> None:
    trainer.start("live", WAITS)
    trainer.printed("live", "waiting")
    assert trainer.describe("live")["SecondaryStatus"] == "Training"
    trainer.sagemaker.stop_training_job(TrainingJobName="live")
    assert trainer.ended("live")["TrainingJobStatus"] == "Stopped"
    (stream,) = trainer.logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert stream["logStreamName"].startswith("live/algo-1-")


def test_tokens_of_its_log_hold_where_more_is_printed_than_is_kept(trainer: Trainer) -> None:
    trainer.start("bursts", BURSTS)
    logs = trainer.logs
    until(lambda: f"first {FIRST - 1}" in newest(trainer, "bursts"), "the first burst is printed")
    (stream,) = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    where = {"logGroupName": GROUP, "logStreamName": stream["logStreamName"]}
    given = logs.get_log_events(**where)
    trainer.sagemaker.stop_training_job(TrainingJobName="bursts")
    trainer.ended("bursts")
    got = []
    while (given := logs.get_log_events(**where, nextToken=given["nextForwardToken"]))["events"]:
        got += [event["message"] for event in given["events"]]
    assert got[:-1] == [f"then {number}" for number in range(THEN)]
    assert got[-1].startswith("No model artifact is saved")
    again = logs.get_log_events(**where, nextToken=given["nextForwardToken"])
    assert again["nextForwardToken"] == given["nextForwardToken"]
    before = logs.get_log_events(**where, nextToken=given["nextBackwardToken"], limit=2)
    assert [event["message"] for event in before["events"]] == [
        f"then {THEN - 2}", f"then {THEN - 1}",
    ]  # fmt: skip
    with pytest.raises(logs.exceptions.InvalidParameterException, match="nextToken is invalid"):
        logs.get_log_events(**where, nextToken="f/last")


def newest(trainer: Trainer, name: str) -> list[str]:
    try:
        return trainer.lines(name, limit=10, startFromHead=False)
    except trainer.logs.exceptions.ResourceNotFoundException:
        return []


def test_a_failure_says_how_the_script_ended_and_why(trainer: Trainer) -> None:
    job = trainer.run("fails", "import no_such_module", parameters={"epochs": "3"})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    reason = job["FailureReason"]
    assert reason.startswith(
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n"
        'ErrorMessage "ModuleNotFoundError: No module named \'no_such_module\'"\nCommand "'
    )
    assert reason.endswith(' train.py --epochs 3", exit code: 1')
    assert "Traceback (most recent call last):" in trainer.lines("fails")


def test_a_killed_script_has_the_code_that_a_shell_gives(trainer: Trainer) -> None:
    job = trainer.run("killed", "import os; os.kill(os.getpid(), 9)")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].endswith(", exit code: 137")


def test_an_entrypoint_says_why_in_its_own_file(trainer: Trainer) -> None:
    said = "echo it is too late > /opt/ml/output/failure; exit 3"
    request = trainer.request("entry", {})
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": ["/bin/sh"], "ContainerArguments": ["-c", said],
    }  # fmt: skip
    trainer.sagemaker.create_training_job(**request)
    job = trainer.ended("entry")
    assert job["FailureReason"] == "AlgorithmError: it is too late, exit code: 3"


@pytest.mark.parametrize(
    ("script", "warning"),
    [
        ("pass", "No model artifact is saved under path /opt/ml/model"),
        ("open('/opt/ml/model/weights', 'w')", "was not saved in the TensorFlow SavedModel"),
        (
            "import os; os.makedirs('/opt/ml/model/latest');"
            "open('/opt/ml/model/latest/saved_model.pb', 'w')",
            'The SavedModel bundle is under directory "latest", not a numeric name.',
        ),
    ],
    ids=["nothing", "weights", "name"],
)
def test_a_model_that_cannot_be_served_is_warned_of(
    trainer: Trainer, script: str, warning: str
) -> None:
    job = trainer.run("warned", script)
    assert job["TrainingJobStatus"] == "Completed"
    assert [line for line in trainer.lines("warned") if warning in line]
    assert "results/warned/output/model.tar.gz" in trainer.stored()


def test_a_job_that_is_stopped_may_still_keep_its_model(trainer: Trainer) -> None:
    trainer.start("stopped", WAITS)
    trainer.printed("stopped", "waiting")
    trainer.sagemaker.stop_training_job(TrainingJobName="stopped")
    job = trainer.ended("stopped")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    stages = [one["Status"] for one in job["SecondaryStatusTransitions"]]
    assert stages == ["Starting", "Downloading", "Training", "Stopping", "Uploading", "Stopped"]
    kept = trainer.unpacked("results/stopped/output/model.tar.gz")
    assert kept == {"kept": b"in time"}
    assert refusal(
        lambda: trainer.sagemaker.stop_training_job(TrainingJobName="stopped")
    ) == (
        "ValidationException",
        "The request was rejected because the training job is in status Stopped.",
    )  # fmt: skip


def test_a_job_that_is_stopped_before_its_script_runs_is_stopped(trainer: Trainer) -> None:
    trainer.start("early", WAITS)

    def training() -> bool:
        return str(trainer.describe("early")["SecondaryStatus"]) == "Training"

    until(training, "its process is started")  # Python comes up for a while
    trainer.sagemaker.stop_training_job(TrainingJobName="early")
    job = trainer.ended("early")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "FailureReason" not in job


def test_results_that_cannot_be_stored_are_a_fault_of_the_request(trainer: Trainer) -> None:
    job = trainer.run("nowhere", "pass", OutputDataConfig={"S3OutputPath": "file:///proc/none"})
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: /proc/none/nowhere/output/model.tar.gz")
    assert "cannot be written (No such file or directory): name another" in job["FailureReason"]


def test_a_script_that_does_not_stop_is_killed(trainer: Trainer) -> None:
    trainer.start("stays", STAYS)
    trainer.printed("stays", "waiting")
    trainer.sagemaker.stop_training_job(TrainingJobName="stays")
    assert trainer.ended("stays")["TrainingJobStatus"] == "Stopped"


def test_a_job_over_its_time_is_stopped(trainer: Trainer) -> None:
    job = trainer.run("late", WAITS, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "results/late/output/model.tar.gz" in trainer.stored()


def test_nothing_of_a_script_outlives_it(trainer: Trainer, server: Server) -> None:
    leaves = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    print("left", flush=True)
    time.sleep(600)
time.sleep(0.2)
"""
    job = trainer.run("leaves", leaves)
    assert job["TrainingJobStatus"] == "Completed"
    assert "left" in trainer.lines("leaves")
    until(lambda: not left_over(server.state), "the folders of jobs are gone")


def test_results_of_a_job_without_compression_are_files(trainer: Trainer) -> None:
    output = {"S3OutputPath": f"s3://{trainer.bucket}/plain", "CompressionType": "NONE"}
    job = trainer.run("plain", TELLS, OutputDataConfig=output)
    assert "plain/plain/output/model/1/saved_model.pb" in trainer.stored()
    assert job["ModelArtifacts"]["S3ModelArtifacts"].endswith("/plain/output/model/")


def test_checkpoints_are_there_again_the_next_time(trainer: Trainer) -> None:
    script = """
import os
path = "/opt/ml/checkpoints/epoch"
print("found", open(path).read() if os.path.exists(path) else "none", flush=True)
open(path, "w").write("7")
"""
    kept = {"CheckpointConfig": {"S3Uri": f"s3://{trainer.bucket}/kept"}}
    spot = trainer.run("first", script, EnableManagedSpotTraining=True, **kept)
    assert spot["BillableTimeInSeconds"] == spot["TrainingTimeInSeconds"]
    trainer.run("second", script, **kept)
    assert "found none" in trainer.lines("first")
    assert "found 7" in trainer.lines("second")


def test_data_code_and_results_may_be_of_this_machine(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(TELLS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1")
    submitted = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": json.dumps(f"file://{tmp_path}/code"),
    }
    trainer.sagemaker.create_training_job(
        **trainer.request(
            "local",
            submitted,
            InputDataConfig=[channel("training", f"file://{tmp_path}/data")],
            OutputDataConfig={"S3OutputPath": f"file://{tmp_path}/results"},
        )
    )
    job = trainer.ended("local")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert (tmp_path / "results" / "local" / "output" / "model.tar.gz").is_file()
    assert job["ModelArtifacts"]["S3ModelArtifacts"].startswith(f"file://{tmp_path}/results/")


def test_what_cannot_be_run_is_refused_when_it_is_asked_for(
    trainer: Trainer, tmp_path: Path
) -> None:
    parameters = trainer.submit("code", "pass")
    data = trainer.put("data/a.csv", b"1")
    source = channel("training", data)
    manifest: Any = channel("training", data)
    manifest["DataSource"]["S3DataSource"]["S3DataType"] = "ManifestFile"
    (tmp_path / "empty").mkdir()

    def said(**changes: Any) -> str:
        request = trainer.request("refused", parameters) | changes
        code, message = refusal(lambda: trainer.sagemaker.create_training_job(**request))
        assert code == "ValidationException"
        return message

    nothing = f"s3://{trainer.bucket}/nothing"
    assert said(InputDataConfig=[channel("training", nothing)]).startswith(
        f'No S3 objects found under S3 URL "{nothing}" given in input data source. Please ensure '
        "that the bucket exists in the selected region (eu-west-3), that objects exist under that "
    )
    assert "There is no bucket none" in said(InputDataConfig=[channel("training", "s3://none/x")])
    empty = f"file://{tmp_path}/empty"
    assert "an empty folder" in said(InputDataConfig=[channel("training", empty)])
    assert "is a ManifestFile, which is not read here" in said(InputDataConfig=[manifest])
    assert "is in Pipe mode" in said(InputDataConfig=[channel("training", data, InputMode="Pipe")])
    assert "is given twice" in said(InputDataConfig=[source, source])
    assert "no name of a folder" in said(InputDataConfig=[channel("..", data)])
    two = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    assert "asks for 2 instances" in said(ResourceConfig=two)
    assert "There is no bucket none" in said(OutputDataConfig={"S3OutputPath": "s3://none/x"})
    assert "containers are not" in said(HyperParameters={})
    wrong = [{"Name": "loss", "Regex": "("}]
    image = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}
    assert "'('" in said(AlgorithmSpecification={**image, "MetricDefinitions": wrong})
    missing = {**parameters, "sagemaker_submit_directory": f'"{nothing}/sourcedir.tar.gz"'}
    assert "No S3 objects found" in said(HyperParameters=missing)
    assert trainer.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_names_that_are_taken_and_names_of_nothing(trainer: Trainer) -> None:
    trainer.run("taken", "pass")
    code, message = refusal(lambda: trainer.start("taken", "pass"))
    assert code == "ResourceInUse"
    assert message.startswith("Job name must be unique within an AWS account and region, and a job")
    assert refusal(lambda: trainer.describe("none")) == (
        "ValidationException",
        "Requested resource not found.",
    )
    for work in (trainer.sagemaker.stop_training_job, trainer.sagemaker.delete_training_job):
        assert refusal(partial(work, TrainingJobName="none"))[0] == "ResourceNotFound"


def test_requirements_are_refused_unless_they_are_allowed(trainer: Trainer) -> None:
    given = trainer.submit("requires", "pass", **{"requirements.txt": "numpy"})
    trainer.sagemaker.create_training_job(**trainer.request("requires", given))
    job = trainer.ended("requires")
    assert job["TrainingJobStatus"] == "Failed"
    assert "EMULATOR_TRAINING_REQUIREMENTS=true" in job["FailureReason"]


def test_a_script_that_is_not_in_its_archive_is_named(trainer: Trainer) -> None:
    given = trainer.submit("missing", "pass") | {"sagemaker_program": '"other.py"'}
    trainer.sagemaker.create_training_job(**trainer.request("missing", given))
    reason = trainer.ended("missing")["FailureReason"]
    assert "There is no other.py in s3://" in reason
    assert reason.endswith("which holds train.py.")


def billed(server: Server) -> list[str]:
    """The names of the training jobs on the bill."""
    return [one["name"] for one in server.client.get("/billing").json()["training_jobs"]]


def pid_of(trainer: Trainer, name: str) -> int:
    lines = trainer.printed(name, "waiting")
    return next(int(line.split()[1]) for line in lines if line.startswith("pid "))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_job_ends_with_its_server_and_the_next_one_says_so(
    tmp_path: Path, how: signal.Signals
) -> None:
    with serving(tmp_path, EMULATOR_INSTANCES_QUOTA="1", **LIGHT) as server:
        trainer = Trainer(Account(server, "eu-west-3"))
        trainer.run("before", "pass")
        trainer.start("cut", STAYS)
        pid = pid_of(trainer, "cut")
        code, message = refusal(lambda: trainer.start("too-many", "pass"))
        assert code == "ResourceLimitExceeded"
        assert "'ml.m5.large for training job usage' is 1 Instances" in message
        until(lambda: "cut" in billed(server), "the job is on the bill")
        server.stop(how)
        assert not alive(pid)
        server.start()
        trainer = Trainer(Account(server, "eu-west-3"), new=False)
        job = trainer.describe("cut")
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("InternalServerError: The server ")
        assert trainer.describe("before")["TrainingJobStatus"] == "Completed"
        assert "waiting" in trainer.lines("cut")
        assert "cut" in billed(server)
        until(lambda: not left_over(server.state), "the folders of jobs are gone")
