"""AWS's training toolkit: what it makes of a CreateTrainingJob request for a script.

The files of /opt/ml/input/config, the SM_ variables, and the command with its arguments. Pure: it
reads no file and knows no machine. Names and forms are those of the public
aws/sagemaker-training-toolkit.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulator.address import Key
from emulator.errors import ValidationException

BASE = "/opt/ml"
CODE, MODEL, CHECKPOINTS = f"{BASE}/code", f"{BASE}/model", f"{BASE}/checkpoints"
INPUT, OUTPUT = f"{BASE}/input", f"{BASE}/output"
CONFIG, DATA = f"{INPUT}/config", f"{INPUT}/data"
OUTPUT_DATA, FAILURE, INTERMEDIATE = f"{OUTPUT}/data", f"{OUTPUT}/failure", f"{OUTPUT}/intermediate"
HOST, GROUP, NETWORK = "algo-1", "homogeneousCluster", "eth0"
RESERVED = "sagemaker_"  # hyperparameters that are the toolkit's own
PROGRAM, SUBMITTED, LOG_LEVEL = (
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_container_log_level",
)
FRAMEWORK = "sagemaker_{0}_container.training:main"
Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """What scripts are told of where they run."""

    cpus: int
    python: str  # the interpreter's path


class Training:
    """One request, seen by the toolkit. Raises ValidationException for one without anything that
    could be run."""

    def __init__(self, key: Key, arn: str, request: Request, machine: Machine) -> None:
        self._key, self._arn, self._request, self._machine = key, arn, request, machine
        self._given = {
            name: _decoded(value) for name, value in request.get("HyperParameters", {}).items()
        }
        self.hyperparameters = {
            name: value for name, value in self._given.items() if not name.startswith(RESERVED)
        }
        algorithm = request["AlgorithmSpecification"]
        self.entrypoint = [
            *algorithm.get("ContainerEntrypoint", ()),
            *algorithm.get("ContainerArguments", ()),
        ]
        environment = request.get("Environment", {})
        self.program = str(self._given.get(PROGRAM) or environment.get(PROGRAM.upper()) or "")
        self.submitted = str(self._given.get(SUBMITTED) or environment.get(SUBMITTED.upper()) or "")
        self.image: str = algorithm.get("TrainingImage", "")
        if not algorithm.get("ContainerEntrypoint") and not (self.program and self.submitted):
            raise ValidationException(
                f"The training image {self.image or algorithm.get('AlgorithmName', '')!r} is not "
                "run here, for containers are not. A script is: give it as the SDK's estimators "
                f"do, in the hyperparameters {PROGRAM} and {SUBMITTED}, or a ContainerEntrypoint."
            )

    @property
    def channels(self) -> list[Mapping[str, Any]]:
        return list(self._request.get("InputDataConfig", ()))

    def files(self) -> dict[str, Any]:
        """What is in /opt/ml/input/config, by name."""
        return {
            "hyperparameters.json": dict(self._request.get("HyperParameters", {})),
            "inputdataconfig.json": self._input_data_config(),
            "resourceconfig.json": self._resource_config(),
        }

    def command(self, package: bool) -> list[str]:
        """What is run in /opt/ml/code; `package` says that there is a setup.py."""
        if self.entrypoint:
            return self.entrypoint
        python = self._machine.python
        if package:
            return [python, "-m", self.program.removesuffix(".py"), *self._arguments()]
        if self.program.endswith(".py"):
            return [python, self.program, *self._arguments()]
        return ["/bin/sh", "-c", f"./{self.program} {shlex.join(self._arguments())}".strip()]

    def variables(self) -> dict[str, str]:
        """The SM_ variables and what else the toolkit and AWS set."""
        own = {
            "TRAINING_JOB_NAME": self._key.name,
            "TRAINING_JOB_ARN": self._arn,
            "AWS_REGION": self._key.home.region,
            "AWS_DEFAULT_REGION": self._key.home.region,
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment = dict(self._request.get("Environment", {}))
        if self.entrypoint:  # it has no toolkit
            return own | environment
        settings = {
            "SAGEMAKER_JOB_NAME": str(self._given.get("sagemaker_job_name", self._key.name)),
            "SAGEMAKER_REGION": str(self._given.get("sagemaker_region", self._key.home.region)),
            "CURRENT_HOST": HOST,
        }
        return own | settings | environment | _as_variables(self._environment())

    def _arguments(self) -> list[str]:
        """Hyperparameters as sorted arguments."""
        words = []
        for name in sorted(self.hyperparameters):
            value = self.hyperparameters[name]
            if isinstance(value, dict):
                value = ",".join(f"{key}={value[key]}" for key in sorted(value))
            words += [f"--{name}" if len(name) > 1 else f"-{name}"]
            words += ["" if value is None else str(value)]
        return words

    def _environment(self) -> dict[str, Any]:
        """The toolkit's view of the job: a variable for each, and SM_TRAINING_ENV for all."""
        dirs = {one["ChannelName"]: f"{DATA}/{one['ChannelName']}" for one in self.channels}
        framework = next(
            (name for name in ("tensorflow", "pytorch", "mxnet", "xgboost", "scikit-learn")
             if name in self.image), "",
        )  # fmt: skip
        instance_type = self._request["ResourceConfig"]["InstanceType"]
        everything: dict[str, Any] = {
            "additional_framework_parameters": {
                name: value
                for name, value in self._given.items()
                if name.startswith(RESERVED) and name not in _OWN_PARAMETERS
            },
            "channel_input_dirs": dirs,
            "current_host": HOST,
            "current_instance_group": GROUP,
            "current_instance_group_hosts": [HOST],
            "current_instance_type": instance_type,
            "distribution_hosts": [],
            "distribution_instance_groups": [],
            "framework_module": FRAMEWORK.format(framework) if framework else None,
            "hosts": [HOST],
            "hyperparameters": self.hyperparameters,
            "input_config_dir": CONFIG,
            "input_data_config": self._input_data_config(),
            "input_dir": INPUT,
            "instance_groups": [GROUP],
            "instance_groups_dict": {GROUP: _group(instance_type)},
            "is_hetero": False,
            "is_master": True,
            "job_name": self._key.name,
            "log_level": self._given.get(LOG_LEVEL, 20),
            "master_hostname": HOST,
            "model_dir": MODEL,
            "module_dir": self.submitted,
            "module_name": self.program.removesuffix(".py"),
            "network_interface_name": NETWORK,
            "num_cpus": self._machine.cpus,
            "num_gpus": 0,
            "num_neurons": 0,
            "output_data_dir": OUTPUT_DATA,
            "output_dir": OUTPUT,
            "output_intermediate_dir": INTERMEDIATE,
            "resource_config": self._resource_config(),
            "user_entry_point": self.program,
        }
        variables = {name: everything[name] for name in _VARIABLES}
        return {
            **variables,
            "hps": self.hyperparameters,
            "framework_params": everything["additional_framework_parameters"],
            "channels": sorted(dirs),
            "training_env": everything,
            "user_args": self._arguments(),
            **{f"channel_{name}": path for name, path in dirs.items()},
            **{f"hp_{name}": value for name, value in self.hyperparameters.items()},
        }

    def _input_data_config(self) -> dict[str, dict[str, str]]:
        default = self._request["AlgorithmSpecification"]["TrainingInputMode"]
        made = {}
        for one in self.channels:
            source = one["DataSource"].get("S3DataSource", {})
            made[one["ChannelName"]] = {
                **({"ContentType": one["ContentType"]} if one.get("ContentType") else {}),
                "TrainingInputMode": one.get("InputMode", default),
                "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": one.get("RecordWrapperType", "None"),
            }
        return made

    def _resource_config(self) -> dict[str, Any]:
        instance_type = self._request["ResourceConfig"]["InstanceType"]
        return {
            "current_host": HOST,
            "current_instance_type": instance_type,
            "current_group_name": GROUP,
            "hosts": [HOST],
            "instance_groups": [_group(instance_type)],
            "network_interface_name": NETWORK,
        }


# Of the toolkit's view, what has a variable of its own name.
_VARIABLES = (
    "hosts", "network_interface_name", "user_entry_point", "resource_config", "input_data_config",
    "output_data_dir", "current_host", "current_instance_type", "current_instance_group",
    "current_instance_group_hosts", "instance_groups", "instance_groups_dict",
    "distribution_instance_groups", "is_hetero", "module_name", "log_level", "framework_module",
    "input_dir", "input_config_dir", "output_dir", "num_cpus", "num_gpus", "num_neurons",
    "model_dir", "module_dir", "output_intermediate_dir",
)  # fmt: skip
_OWN_PARAMETERS = frozenset(
    {
        PROGRAM, SUBMITTED, LOG_LEVEL, "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_job_name", "sagemaker_region", "sagemaker_s3_output",
    }
)  # fmt: skip


def failure(written: str, code: int) -> str:
    """The FailureReason of a container that ended with `code` and has left `written` in
    /opt/ml/output/failure."""
    return f"AlgorithmError: {written.strip()}, exit code: {code}"


def script_error(kind: str, code: int, error: str, command: str) -> str:
    """What the toolkit leaves in /opt/ml/output/failure when a command of its own has failed."""
    return f'{kind}:\nExitCode {code}\nErrorMessage "{error}"\nCommand "{command}"'


def _group(instance_type: str) -> dict[str, Any]:
    return {"instance_group_name": GROUP, "instance_type": instance_type, "hosts": [HOST]}


def _decoded(value: str) -> Any:
    """A hyperparameter as the SDKs write it: JSON, or else the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _as_variables(values: Mapping[str, Any]) -> dict[str, str]:
    return {f"SM_{name.upper()}": _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, separators=(",", ":"))
    )
