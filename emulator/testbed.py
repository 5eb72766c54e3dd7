"""A running server as tests have it: endpoints made and asked, time moved, bills and latencies read
and held to what they should be. Imports no client of AWS until one is asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from emulator import caller, exports, orders, receipts, timings
from emulator.caller import ANSWER_S
from emulator.ephemeral import Ephemeral
from emulator.errors import SetupError
from emulator.orders import Order
from emulator.receipts import Amount, Receipt
from emulator.timings import Call

PAGE = 1000  # rows


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered, errors included. `headers` have names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's code, such as ThrottlingException; empty if there is none."""
        if self.status == 200:
            return ""
        return self.headers.get("x-amzn-errortype", "").partition(":")[0] or str(self.status)

    @property
    def cold_start(self) -> bool:
        return self.headers.get("x-emulator-cold-start") == "true"

    @property
    def billed_ms(self) -> int:
        return int(self.headers.get("x-emulator-billed-ms", "0"))


class Lukewarm:
    """The server of a test. Raises SetupError with one sentence for what it refuses.

    `url` is where it is; `region` and `account` are those of everything that is not said to be
    elsewhere. Threads may share it.
    """

    def __init__(self, server: Ephemeral) -> None:
        self._server = server
        self.url: str = server.caller.url
        about = self._asked(lambda: server.caller.get("/_emulator/server"))
        self.region: str = about["region"]
        self.account: str = about["account"]
        self._client = httpx.Client(
            base_url=self.url, timeout=ANSWER_S, trust_env=False, limits=httpx.Limits()
        )
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, those of AWS's clients included. The server stays."""
        self._client.close()
        for client in self._clients:
            client.close()

    # -- endpoints ------------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The names of the endpoints that there are, those that come along included."""
        listed = self._get("/_emulator/endpoints")["endpoints"]
        return tuple(one["name"] for one in listed)

    def deploy(
        self,
        model: str | os.PathLike[str],
        name: str = "",
        *,
        memory_mb: int | None = None,
        concurrency: int | None = None,
        provisioned: int | None = None,
        instance: str = "",
        count: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """Make an endpoint of a .keras file, a SavedModel or an archive, and wait until it is in
        service; its name. Serverless (4096 MB, 10 at a time), or real-time with an `instance`
        type. Raises SetupError if it cannot be asked for or fails."""
        given = (memory_mb, concurrency, provisioned)
        if instance and given != (None, None, None):
            raise SetupError(
                f"instance={instance!r} makes a real-time endpoint, which has no memory_mb, "
                "concurrency or provisioned: leave out one or the other."
            )
        if count is not None and not instance:
            raise SetupError("count is for real-time endpoints: name a type with instance.")
        hosted = orders.real_time(instance, count) if instance else orders.serverless(*given)
        server = self._server.caller

        def made() -> dict[str, Any]:
            source = server.local(Path(model))
            order = Order(name or caller.name_of(source), source, hosted, variables or {})
            return orders.settled(server, orders.place(server, order))

        endpoint = self._asked(made)
        if endpoint["status"] == "Failed":
            raise SetupError(f"{endpoint['name']} has failed: {endpoint['failure_reason']}")
        return str(endpoint["name"])

    def delete(self, endpoint: str) -> None:
        """Delete an endpoint, and wait until it is gone; it stays on the bill."""
        server = self._server.caller
        self._asked(lambda: server.delete(caller.path(endpoint)))
        self._asked(lambda: orders.gone(server, endpoint))

    def invoke(
        self,
        endpoint: str,
        body: bytes | str | Mapping[str, Any],
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call an endpoint; a mapping is sent as JSON. An error is an answer, too."""
        content = json.dumps(body) if isinstance(body, Mapping) else body
        place = f"/endpoints/{quote(endpoint, safe='')}/invocations"
        sent = {"content-type": content_type, **(headers or {})}
        try:
            answer = self._client.post(place, content=content, headers=sent)
        except httpx.HTTPError as error:
            failed = SetupError(f"The invocation of {endpoint} failed: {error!r}.")
            raise self._server.explain(failed) from None
        return Answer(answer.status_code, answer.content, dict(answer.headers))

    def evict(self, endpoint: str) -> int:
        """Unload the idle environments of a serverless endpoint, so that its next call starts cold;
        how many there were."""
        evicted: int = self._post(f"{caller.path(endpoint)}/evict")["evicted"]
        return evicted

    def faults(self, endpoint: str, error: str | None, times: int = 1, **more: Any) -> None:
        """Have the next `times` calls of an endpoint get an error, such as "ThrottlingException";
        None has them served again. `more` is as in docs/http.md: `status`, `message`."""
        place = f"{caller.path(endpoint)}/faults"
        server = self._server.caller
        if error is None:
            self._asked(lambda: server.delete(place))
        else:
            self._asked(lambda: server.put(place, {"error": error, "times": times, **more}))

    # -- time -----------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The server's time, which stands still until it is moved."""
        return _instant(self._get("/_emulator/clock"))

    def advance(self, seconds: float) -> datetime:
        """Move the virtual clock; what expires on the way expires. The time it is then."""
        return _instant(self._post("/_emulator/clock/advance", {"seconds": seconds}))

    # -- money and latency ----------------------------------------------------------------------

    def bill(self, endpoint: str = "") -> Receipt:
        """What an endpoint has cost, else all of them and all training jobs together."""
        try:
            return receipts.receipt(self._get("/billing"), endpoint)
        except LookupError as error:
            raise SetupError(str(error)) from None

    def calls(self, endpoint: str = "") -> tuple[Call, ...]:
        """The calls of an endpoint, else of all, as they are recorded; in order."""
        place = f"/_emulator/invocations?limit={PAGE}"
        place += f"&endpoint={quote(endpoint, safe='')}" if endpoint else ""
        rows: list[dict[str, Any]] = []
        cursor = ""
        while cursor is not None:
            page = self._get(place + (f"&cursor={cursor}" if cursor else ""))
            rows += page["invocations"]
            cursor = page["next_cursor"]
        return tuple(map(timings.call, rows))

    def assert_costs(
        self, endpoint: str = "", *, at_most: Amount | None = None, at_least: Amount | None = None
    ) -> None:
        """Fail, with the bill's lines, unless an endpoint (else everything) has cost that much.
        Amounts are texts, such as "0.001", whole numbers or Decimals, in the bill's currency."""
        __tracebackhide__ = True
        if said := receipts.complaint(self.bill(endpoint), at_most, at_least):
            raise AssertionError(said)

    def assert_latency(self, endpoint: str, *, warm: bool = False, **at_most: float) -> None:
        """Fail, with the slowest calls, if a percentile of an endpoint's latency is over a limit in
        milliseconds: `p95_ms=100`, `p99_9_ms=500`. `warm` leaves cold starts out."""
        __tracebackhide__ = True
        calls = [one for one in self.calls(endpoint) if not (warm and one.cold_start)]
        if said := timings.complaint(endpoint, calls, at_most):
            raise AssertionError(said)

    # -- AWS's clients --------------------------------------------------------------------------

    def boto3(self, service: str, *, region: str = "", account: str = "", **config: Any) -> Any:
        """A client of boto3 that is led here. `config` is for botocore's Config; without it the
        client tries once, so that nothing is hidden, and waits for the longest answer."""
        import boto3

        server = self._server.caller
        given = server.leading(region or self.region, account or self.account, **config)
        session = boto3.session.Session(botocore_session=server.session())
        client = session.client(service, **given)
        self._clients.append(client)
        return client

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables that lead AWS's clients here, where code makes them itself; exports.UNSET are
        those that would lead them elsewhere. The SageMaker SDK's configuration goes to `folder`."""
        text = exports.sdk_config(self.region, self.account)
        place = caller.private(folder, "sagemaker.yaml", text)
        signing = caller.keys(self._server.caller.config, self.account)
        return exports.variables(self.url, self.region, *signing, str(place))

    # -------------------------------------------------------------------------------------------

    def _get(self, path: str) -> Any:
        return self._asked(lambda: self._server.caller.get(path))

    def _post(self, path: str, body: Any = None) -> Any:
        return self._asked(lambda: self._server.caller.post(path, body))

    def _asked(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SetupError as error:
            raise self._server.explain(error) from None


def _instant(clock: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(clock["now"])
