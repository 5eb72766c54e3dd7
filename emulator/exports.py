"""What makes AWS's clients talk to a server of ours, offline: environment variables, in the form of
each shell, and the SageMaker SDK's configuration file. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from enum import StrEnum

# What a developer may have set, and what would lead a client somewhere else.
UNSET = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
         "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")  # fmt: skip


class Shell(StrEnum):
    """The forms that exports can have. `sh` is for bash and zsh, too."""

    SH = "sh"
    FISH = "fish"
    POWERSHELL = "powershell"


def variables(url: str, region: str, key_id: str, secret: str, sdk_config: str) -> dict[str, str]:
    """The variables for a server at `url`. `key_id` is the account where nobody checks keys;
    `sdk_config` is where the SageMaker SDK's configuration has been written."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": sdk_config,
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": sdk_config,
        # Version 3 of the SDK reads a role and its trust policy from IAM before it uses it; here
        # any role is taken, whether it has been made or not.
        "SAGEMAKER_VALIDATE_ROLE": "false",
    }


def sdk_config(region: str, account: str) -> str:
    """The SageMaker SDK's configuration: the default bucket that it would choose by itself after
    asking around, and no telemetry, which would leave the machine."""
    return (
        "SchemaVersion: '1.0'\n"
        "SageMaker:\n"
        "  PythonSDK:\n"
        "    Modules:\n"
        "      TelemetryOptOut: true\n"
        "      Session:\n"
        f"        DefaultS3Bucket: sagemaker-{region}-{account}\n"
    )


def script(shell: Shell, given: Mapping[str, str]) -> str:
    """Lines for a shell to evaluate: what misleads is unset, what leads is set."""
    lines = [_UNSET[shell].format(name) for name in UNSET]
    lines += [_SET[shell].format(n, _QUOTED[shell](value)) for n, value in given.items()]
    return "\n".join(lines)


def _for_fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _for_powershell(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# With semicolons, so that `eval $(lukewarm env)` works without quotes.
_UNSET = {
    Shell.SH: "unset {};",
    Shell.FISH: "set -e {};",
    Shell.POWERSHELL: "Remove-Item Env:{} -ErrorAction SilentlyContinue;",
}
_SET = {
    Shell.SH: "export {}={};",
    Shell.FISH: "set -gx {} {};",
    Shell.POWERSHELL: "$Env:{} = {};",
}
_QUOTED: Mapping[Shell, Callable[[str], str]] = {
    Shell.SH: shlex.quote,
    Shell.FISH: _for_fish,
    Shell.POWERSHELL: _for_powershell,
}
