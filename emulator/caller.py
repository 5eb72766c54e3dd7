"""A running server as the command line reaches it: where it is, our own REST, and invocations."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from emulator.config import Config
from emulator.errors import SetupError
from emulator.state import in_use

TIMEOUT_S = 30.0
ANSWER_S = 300.0  # a cold start and the longest answer


class Caller:
    """One server. Raises SetupError with one sentence for whatever goes wrong."""

    def __init__(self, url: str, config: Config) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SetupError(f"{url!r} is no address of a server: give one as http://HOST:PORT.")
        self._config = config
        headers = {"authorization": f"Bearer {config.token}"} if config.token else {}
        self._client = httpx.Client(
            base_url=self.url, timeout=TIMEOUT_S, headers=headers, trust_env=False
        )

    @property
    def here(self) -> bool:
        """Whether the server is on this machine, so that a path means the same to it."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def get(self, path: str) -> Any:
        return self._asked("GET", path)

    def post(self, path: str) -> Any:
        return self._asked("POST", path)

    def put(self, path: str, body: Any) -> Any:
        return self._asked("PUT", path, body)

    def delete(self, path: str) -> Any:
        return self._asked("DELETE", path)

    def client(self, service: str, region: str, account: str) -> Any:
        """botocore's client of an AWS service at this server."""
        from botocore.config import Config as ClientConfig
        from botocore.session import Session

        key_id, secret = keys(self._config, account)
        # Neither a profile nor a proxy of the user's has anything to do with this server.
        session = Session(session_vars={"profile": (None, None, None, None)})
        return session.create_client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=ClientConfig(
                retries={"total_max_attempts": 1}, read_timeout=ANSWER_S, proxies={}
            ),
        )

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
