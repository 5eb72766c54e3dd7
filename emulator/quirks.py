"""What moto does otherwise than AWS, mended where it is: one function a service.

Imports moto, so it is imported when somebody asks for that service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


def mend(name: str) -> None:
    """Mend one of moto's services, by moto's name for it. Safe to call again."""
    if name in _MENDED:
        _MENDED[name]()


def _autoscaling() -> None:
    """AWS scales more of SageMaker than moto knows."""
    from moto.applicationautoscaling import models, responses

    known = {one.value for one in models.ScalableDimensionValueSet}
    known |= {
        "sagemaker:variant:DesiredProvisionedConcurrency",
        "sagemaker:inference-component:DesiredCopyCount",
    }
    dimensions = [SimpleNamespace(value=value) for value in sorted(known)]
    models.ScalableDimensionValueSet = responses.ScalableDimensionValueSet = dimensions


def _iam() -> None:
    """Nobody's permissions are looked at here, so whatever is asked about is allowed: version 3 of
    the SageMaker SDK asks about a role before it uses it."""
    from moto.core.responses import ActionResult
    from moto.iam.responses import IamResponse

    def simulate_principal_policy(self: Any) -> Any:
        given = {"EvalDecision": "allowed", "EvalResourceName": "*", "MatchedStatements": []}
        actions = self._get_param("ActionNames", [])
        results = [{"EvalActionName": action, **given} for action in actions]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    IamResponse.simulate_principal_policy = simulate_principal_policy


def _sns() -> None:
    """Notifications go to this machine or nowhere."""
    from moto.sns import models

    models.requests = SimpleNamespace(post=_post_here)


def _sts() -> None:
    """Who signs with keys that IAM has not given is the account's root, as an ARN of AWS has it."""
    from moto.sts.models import STSBackend

    found = STSBackend.get_caller_identity
    if found.__module__ == __name__:
        return

    def get_caller_identity(self: Any, key_id: str, region: str) -> tuple[str, str, str]:
        who, arn, account = found(self, key_id, region)
        if not arn.endswith(":user/moto"):
            return who, arn, account
        return account, f"{arn.rpartition(':sts:')[0]}:iam::{account}:root", account

    STSBackend.get_caller_identity = get_caller_identity


def _post_here(url: str, **given: Any) -> Any:
    import requests

    with requests.Session() as session:
        session.trust_env = False  # a proxy would be another machine
        try:
            asked = session.prepare_request(requests.Request("POST", url, **given))
        except (requests.RequestException, ValueError):
            return None
        if not _subscribes(asked.url or ""):
            return None
        return session.send(asked, timeout=TIMEOUT_S, allow_redirects=False)


def _subscribes(url: str) -> bool:
    """Whether an address, in the form in which it is sent, is one of this machine and none of our
    own REST."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    spoken = parts.scheme in ("http", "https")
    return local and spoken and not parts.path.startswith("/_emulator")


def _logs() -> None:
    """moto remembers every event that there ever was; here it does not."""
    from moto.logs import models

    for kind in (models.LogEvent, models.LogStream):
        kind.instances_tracked = Forgetful()


class Forgetful(list[Any]):
    """Takes what is appended, and keeps nothing."""

    def append(self, _: Any) -> None:
        pass


_MENDED: dict[str, Callable[[], None]] = {
    "applicationautoscaling": _autoscaling,
    "iam": _iam,
    "logs": _logs,
    "sns": _sns,
    "sts": _sts,
}
