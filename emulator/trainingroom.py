"""The folder that a training job runs in: /opt/ml as AWS has it, and the order for its process.

Knows no stages, no ledger and no S3.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from emulator import toolkit
from emulator.config import Config
from emulator.core import MIB, MILLISECOND
from emulator.errors import SetupError
from emulator.jobs import TrainingJob
from emulator.sandbox.isolation import FILES, FULL
from emulator.sandbox.scratch import remove
from emulator.sandbox.surroundings import scrubbed
from emulator.sandbox.trainer import Order, Step
from emulator.toolkit import Machine, Training

LOG_BYTES = 16 * MIB  # of one file of a job's output; there are two of them
REQUIREMENTS = "requirements.txt"
SAVED_MODEL = re.compile(r"saved_model\.pb(txt)?")


class Room:
    """The room of one job, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        job: TrainingJob,
        training: Training,
        config: Config,
        machine: Machine,
        url: str,
    ) -> None:
        """`url` is the server's, for scripts that have a network."""
        self.path = folder / "room"
        self._folder, self._job, self._training = folder, job, training
        self._config, self._machine, self._url = config, machine, url

    def at(self, place: str) -> Path:
        """Where something of the container's is: /opt/ml is in the room."""
        return self.path / place.lstrip("/")

    def furnish(self) -> None:
        """Make it anew, with what a container finds below /opt/ml before any data."""
        remove(self._folder)
        for place in (toolkit.CODE, toolkit.MODEL, toolkit.CONFIG, toolkit.DATA,
                      toolkit.OUTPUT_DATA, toolkit.CHECKPOINTS):  # fmt: skip
            self.at(place).mkdir(parents=True)
        (self.path / "tmp").mkdir()
        for name, content in self._training.files().items():
            (self.at(toolkit.CONFIG) / name).write_text(json.dumps(content))
        (self._folder / "bin").mkdir()
        python = self._machine.python
        for names, words in ((("python", "python3"), ""), (("pip", "pip3"), " -m pip")):
            for name in names:  # a link would lead out of the interpreter's own surroundings
                path = self._folder / "bin" / name
                path.write_text(f'#!/bin/sh\nexec "{python}"{words} "$@"\n')
                path.chmod(0o755)

    def check_code(self) -> None:
        """Raises SetupError for code that cannot be run."""
        code, program = self.at(toolkit.CODE), self._training.program
        place = code / program
        if not place.is_file() and not (code / "setup.py").is_file():
            there = ", ".join(sorted(path.name for path in code.iterdir())[:10]) or "nothing"
            raise SetupError(
                f"There is no {program} in {self._training.submitted}, which holds {there}."
            )
        if place.is_file():
            place.chmod(0o755)
        if (code / REQUIREMENTS).is_file() and not self._config.training_requirements:
            raise SetupError(
                f"{self._training.submitted} has a {REQUIREMENTS}, and nothing is installed here: "
                "leave it out and have the packages in the server's interpreter (or the one of "
                "EMULATOR_PYTHON), or set EMULATOR_TRAINING_REQUIREMENTS=true."
            )

    def order(self, log: Path, now: int) -> Order:
        """What the job's process is told; its output goes to `log`."""
        config = self._config
        code = self.at(toolkit.CODE)
        steps = [Step(self._training.command((code / "setup.py").is_file()), toolkit.CODE)]
        installed = ""
        if config.training_requirements:
            installed = str(self.path / "packages")
            if not self._training.entrypoint and (code / REQUIREMENTS).is_file():
                words = "-m pip install --disable-pip-version-check -r requirements.txt --target"
                command = [self._machine.python, *words.split(), installed]
                steps.insert(0, Step(command, toolkit.CODE))
        isolation = self._isolation()
        definitions = self._job.request["AlgorithmSpecification"].get("MetricDefinitions", ())
        return Order(
            str(self.path),
            steps,
            self._variables(installed, isolation),
            isolation,
            str(log),
            LOG_BYTES,
            now // MILLISECOND,
            [(one["Name"], one["Regex"]) for one in definitions],
            config.training_stop_s,
        )

    def _isolation(self) -> str:
        wanted = self._config.isolation
        if self._job.request.get("EnableNetworkIsolation") and wanted == FILES:
            return FULL
        return FILES if self._config.training_requirements and wanted == FULL else wanted

    def _variables(self, installed: str, isolation: str) -> dict[str, str]:
        tmp = str(self.path / "tmp")
        kept = scrubbed(os.environ, self.path / "tmp")
        added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if self._config.python:  # another interpreter: none of our own surroundings
            kept.pop("VIRTUAL_ENV", None)
            added = []
        found = [installed, toolkit.CODE, *(str(Path(one).absolute()) for one in added if one)]
        own = {
            "TMPDIR": tmp,
            "PATH": os.pathsep.join([str(self._folder / "bin"), kept.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(filter(None, found)),
        }
        if installed:
            own["PIP_TARGET"] = installed
        else:
            own["PIP_NO_INDEX"] = "1"  # what is there already satisfies requirements
        if isolation != FULL and self._url:
            account = self._job.key.home.account
            own |= {"AWS_ENDPOINT_URL": self._url, "AWS_ACCESS_KEY_ID": account}
            own["AWS_SECRET_ACCESS_KEY"] = "lukewarm"
        return kept | own | self._training.variables()


def servable(model: Path) -> Iterable[str]:
    """What TensorFlow's training container warns of when a model cannot be served by its sister."""
    files = [path for path in model.rglob("*") if path.is_file()]
    bundles = [path.parent for path in files if SAVED_MODEL.fullmatch(path.name)]
    if not files:
        yield (
            "No model artifact is saved under path /opt/ml/model. Your training job will not save "
            "any model files to S3."
        )
    elif not bundles:
        yield (
            "Your model will NOT be servable with SageMaker TensorFlow Serving container. The model"
            " artifact was not saved in the TensorFlow SavedModel directory structure."
        )
    for bundle in bundles:
        name = bundle.name if bundle != model else "model"
        if not name.isdecimal():
            yield (
                "Your model will NOT be servable with SageMaker TensorFlow Serving containers. The "
                f'SavedModel bundle is under directory "{name}", not a numeric name.'
            )
