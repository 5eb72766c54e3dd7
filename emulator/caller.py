"""A running server as the command line reaches it: where it is, our own REST, and invocations."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from emulator.config import Config
from emulator.errors import SetupError
from emulator.state import in_use

TIMEOUT_S = 30.0
ANSWER_S = 300.0  # a cold start and the longest answer
PACKED = re.compile(r"\.(keras|tar\.gz|tgz|tar|py)$")


class Caller:
    """One server. Raises SetupError with one sentence for whatever goes wrong."""

    def __init__(self, url: str, config: Config, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SetupError(f"{url!r} is no address of a server: give one as http://HOST:PORT.")
        self.config = config
        headers = {"authorization": f"Bearer {config.token}"} if config.token else {}
        self._client = httpx.Client(
            base_url=self.url, timeout=timeout_s, headers=headers, trust_env=False
        )

    @property
    def here(self) -> bool:
        """Whether the server is on this machine, so that a path means the same to it."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def local(self, path: Path) -> Path:
        """The absolute path, which has to mean the same to the server. Raises SetupError."""
        found = path.expanduser().resolve()
        if not found.exists():
            raise SetupError(f"There is nothing at {path}.")
        if not self.here:
            raise SetupError(
                f"The server {self.url} is on another machine and cannot read {path}: store it in "
                "its S3, and use boto3 or the SageMaker SDK."
            )
        return found

    def close(self) -> None:
        self._client.close()

    def answers(self, path: str) -> bool:
        """Whether what is asked for is there, without waiting for it."""
        try:
            return self._client.get(path).is_success
        except httpx.HTTPError:
            return False

    def get(self, path: str) -> Any:
        return self._asked("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._asked("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self._asked("PUT", path, body)

    def delete(self, path: str) -> Any:
        return self._asked("DELETE", path)

    def client(self, service: str, region: str, account: str) -> Any:
        """botocore's client of an AWS service at this server."""
        return self.session().create_client(service, **self.leading(region, account))

    def session(self) -> Any:
        """botocore's, which no profile of the user's has anything to do with."""
        from botocore.session import Session

        return Session(session_vars={"profile": (None, None, None, None)})

    def leading(self, region: str, account: str, **config: Any) -> dict[str, Any]:
        """The arguments that lead a client of botocore or boto3 to this server. `config` is for
        botocore's Config; without it a client tries once and waits for the longest answer."""
        from botocore.config import Config as ClientConfig

        key_id, secret = keys(self.config, account)
        own = {"retries": {"total_max_attempts": 1}, "read_timeout": ANSWER_S, "proxies": {}}
        return {
            "region_name": region,
            "endpoint_url": self.url,
            "aws_access_key_id": key_id,
            "aws_secret_access_key": secret,
            "config": ClientConfig(**(own | config)),
        }

    def invoke(self, region: str, account: str, name: str, **given: Any) -> dict[str, Any]:
        """InvokeEndpoint, signed by botocore. `given` are its members; the answer's `Body` is read.
        Raises botocore's ClientError as it is."""
        from botocore.exceptions import BotoCoreError

        client = self.client("sagemaker-runtime", region, account)
        try:
            answer: dict[str, Any] = client.invoke_endpoint(EndpointName=name, **given)
            answer["Body"] = answer["Body"].read()
        except BotoCoreError as error:
            raise SetupError(f"The invocation of {name} failed: {error}.") from None
        finally:
            client.close()
        return answer

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise SetupError(
                f"No server answers at {self.url} ({error}): start one with `lukewarm serve`, or "
                "name one with --url."
            ) from None
        try:
            said = answer.json()
            if answer.status_code < 400:
                return said
            detail = said["detail"]
        except (ValueError, TypeError, KeyError):
            raise SetupError(f"What answers at {self.url} is not Lukewarm.") from None
        raise SetupError(str(detail))


def find(url: str, config: Config) -> Caller:
    """The server at `url`; without one, that which runs on the state directory."""
    if url:
        return Caller(url, config)
    try:
        if not in_use(config.state_dir):  # what a killed server noted, somebody else may answer at
            raise FileNotFoundError
        return Caller((config.state_dir / "url").read_text().strip(), config)
    except OSError:
        raise SetupError(
            f"No server runs on the state directory {config.state_dir}: start one with "
            "`lukewarm serve`, or name one with --url."
        ) from None


def keys(config: Config, account: str) -> tuple[str, str]:
    """The access keys to sign with: those that are configured, else the account itself."""
    if config.access_key_id and config.secret_access_key:
        return config.access_key_id, config.secret_access_key
    return account, "lukewarm"


def path(name: str) -> str:
    """The path of an endpoint in our own REST."""
    return f"/_emulator/endpoints/{quote(name, safe='')}"


def name_of(path: Path) -> str:
    """A name for an endpoint or a job, from that of a file."""
    found = path.resolve()
    if found.name.isdecimal():  # the version of a SavedModel
        found = found.parent
    stem = PACKED.sub("", found.name)
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:63].rstrip("-") or "model"


def private(directory: Path, name: str, content: str) -> Path:
    """Write a file of the user's own, and say where it is. Raises SetupError."""
    place = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{os.getpid()}")
        part.write_text(content)
        part.replace(place)
    except OSError as error:
        raise SetupError(f"{place} cannot be written: {error.strerror or error}.") from None
    return place
