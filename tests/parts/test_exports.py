"""Exports in the form of each shell; sh itself reads its own back."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from emulator.exports import UNSET, Shell, script, sdk_config, variables

AWKWARD = {"A": 'it\'s $HOME `x` \\ "y"; z', "B": "http://127.0.0.1:8000"}
READERS = {
    Shell.SH: ["sh", "-c"],
    Shell.FISH: ["fish", "-c"],
    Shell.POWERSHELL: ["pwsh", "-NoProfile", "-Command"],
}


@pytest.mark.parametrize("shell", Shell)
def test_a_shell_reads_back_what_was_meant(shell: Shell) -> None:
    """As far as it is installed here; sh always is."""
    if shutil.which(READERS[shell][0]) is None:
        assert shell is not Shell.SH
        pytest.skip(f"{READERS[shell][0]} is not installed")
    text = script(shell, AWKWARD)
    done = subprocess.run(
        [*READERS[shell], f"{text}\nenv"],
        env={"PATH": "/usr/bin:/bin", "AWS_PROFILE": "mine"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    given = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert {name: given.get(name) for name in AWKWARD} == AWKWARD
    assert "AWS_PROFILE" not in given


def test_fish_and_powershell_have_quotes_of_their_own() -> None:
    assert "set -gx A 'it\\'s $HOME" in script(Shell.FISH, AWKWARD)
    assert "$Env:A = 'it''s $HOME" in script(Shell.POWERSHELL, AWKWARD)
    assert "\\\\" in script(Shell.FISH, AWKWARD)


def test_eval_without_quotes_works() -> None:
    """The shell makes one line of the command's output then."""
    line = " ".join(script(Shell.SH, {"B": AWKWARD["B"]}).split())
    done = subprocess.run(
        ["sh", "-c", f"{line} echo $B"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == AWKWARD["B"]


def test_every_client_is_led_to_the_server_and_nowhere_else() -> None:
    given = variables("http://127.0.0.1:1", "eu-west-3", "123456789012", "s", "/c.yaml")
    assert given["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert given["AWS_DEFAULT_REGION"] == given["AWS_REGION"] == "eu-west-3"
    assert not set(UNSET) & set(given)


def test_the_sdks_file_is_what_its_schema_has() -> None:
    read = yaml.safe_load(sdk_config("eu-west-3", "123456789012"))
    modules = read["SageMaker"]["PythonSDK"]["Modules"]
    assert modules["TelemetryOptOut"] is True
    assert modules["Session"]["DefaultS3Bucket"] == "sagemaker-eu-west-3-123456789012"
