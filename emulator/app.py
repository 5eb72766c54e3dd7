"""The ASGI application, `emulator.app:app`: the only place where the parts meet.

Nothing is read or started when this is imported; the lifespan's start does it, and a start that
cannot be made ends with one sentence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from emulator import connections, documentation, profiles, rest, workers
from emulator.address import Addressing, Home, Key
from emulator.asgi import Asgi, Receive, Scope, Send
from emulator.auth import S3, Verifier
from emulator.billing import HOUR
from emulator.catalogue import Tables
from emulator.channels import Channels
from emulator.clock import Clock, VirtualClock, WallClock
from emulator.companion import Companion
from emulator.config import Config, read
from emulator.control import Control
from emulator.core import SECOND
from emulator.credentials import Credentials, credentials
from emulator.envelope import Envelope
from emulator.errors import ControlError, LukewarmError, SetupError
from emulator.figures import Capacity, Figures
from emulator.guard import (
    SameOrigin,
    Signed,
    SignedOrToken,
    SignedStream,
    refuse_as_asked,
    refuse_as_runtime,
)
from emulator.hosting import Hosting
from emulator.ledger import Ledger, unreadable, unusable
from emulator.listening import Listening, listening, uvicorn_config
from emulator.logbook import Logbook
from emulator.metrics import Metrics
from emulator.sandbox import backends, interpreter
from emulator.spending import OPERATIONS, Spending
from emulator.state import StateDirectory
from emulator.training import Trainings
from emulator.wire import Wire

log = logging.getLogger("lukewarm")

BEAT_S = 1.0  # the most instance time that a killed server can lose
MAX_DESCRIPTORS = 65_536
VIRTUAL_NOW = "virtual-now"
# Of our own REST, which may be asked for with a signature, too.
OWN_PATHS = ("/_emulator/", "/billing", "/metrics", "/ping", "/docs", "/openapi.json")


class Server:
    """Everything of one running server, made from its settings and from where it listens.

    `invocations` and `rest` are its two faces, with what guards them.
    """

    def __init__(self, config: Config, where: Listening) -> None:
        self.config = config
        Tables.of(config.price_folder).find(config.region)  # raises for a region without one
        profiles.load(config.profile)  # raises if there is none
        self.leaving = asyncio.Event()  # the server begins to end: open streams are to end, too
        self.state = StateDirectory(config.state_dir)
        try:
            python = interpreter.usable(config.python)
            sandbox = backends.create(
                _backend(config), self.state.scratch, config.isolation, python
            )
            self.ledger = Ledger.open(self.state.ledger)
            self.clock = self._clock()
        except Exception:
            self.state.close()
            raise
        addressing = Addressing(Home(config.account, config.region))
        self.book = Logbook(config.state_dir.resolve() / "logs")
        longest_ns = round((config.serverless_start_s + config.answer_limit_s) * SECOND)
        figures = Figures(self.ledger, self.clock.now, longest_ns, self._capacity)
        self.companion = Companion(config, addressing, figures, self.book)
        self.hosting = Hosting(
            config, self.clock, self.ledger, Metrics(), sandbox, self.companion, self.book
        )
        self.invocations: Asgi = Wire(self.hosting, addressing)
        channels = Channels(self.companion)
        self.trainings = Trainings(
            config, self.clock, self.ledger, self.hosting.registry, channels, self.book, where.url
        )
        self.control: Asgi = Control(self.hosting, self.trainings, addressing, self.companion)
        self.others: Asgi = self.companion
        self.objects: Asgi = self.companion
        self.spending: Asgi = Spending(self.hosting, addressing)
        needed = credentials(config, where)
        self.rest: Asgi = Envelope(self._api(needed is not None))
        self.notice = self._guard(needed, where)
        self._addressing = addressing
        self._url = where.url
        self._beat: asyncio.Task[None] | None = None

    def face(self, scope: Scope) -> Asgi:
        """What answers a request: the target of AWS JSON names an operation, else the path one of
        ours, else the signature a service."""
        if Wire.takes(scope):
            return self.invocations
        headers = dict(scope["headers"])
        if target := headers.get(b"x-amz-target"):
            if target.decode("latin-1") in OPERATIONS:
                return self.spending
            return self.control if target.startswith(b"SageMaker.") else self.others
        address = self._addressing.of(headers.get(b"authorization", b""), scope["query_string"])
        if self.companion.takes(scope):  # S3, too, where it is signed in the way of version 2
            return self.objects if address.service in (S3, "") else self.others
        ours = not address.service or scope["path"].startswith(OWN_PATHS)
        return self.rest if ours else self.others

    async def start(self) -> None:
        """Bring the endpoints up behind the scenes; returns as soon as requests can be taken."""
        try:
            self.state.announce(self._url)
            await self.hosting.open()
            await self.trainings.open()
        except sqlite3.Error as error:
            raise unusable(self.ledger.path, str(error)) from error
        self._beat = asyncio.get_running_loop().create_task(self._keep_beating())

    async def stop(self) -> None:
        """Answer what is in flight, end every environment, leave the ledger exact."""
        if self._beat:
            self._beat.cancel()
            await asyncio.wait((self._beat,))
        await self.companion.close()
        try:
            await self.trainings.close()
            await self.hosting.close()
            self.hosting.beat()
            self._note_time()
        except sqlite3.Error as error:
            log.error("The last second could not be kept: %s.", error)
        finally:
            await self.book.close()
            self.ledger.close()
            self.state.close()

    async def _keep_beating(self) -> None:
        """Each second, what is billed by time is brought up to now and the log is folded in."""
        failing = False
        tidied = -1  # the hour in which old rows were dropped last
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                self.hosting.beat()
                self._note_time()
                await asyncio.to_thread(self.ledger.checkpoint)
                hour = self.clock.now() // HOUR
                if self.config.ledger_days and hour != tidied:
                    before = (hour - 24 * self.config.ledger_days) * HOUR
                    await asyncio.to_thread(self.ledger.drop, before)
                    tidied = hour
            except (sqlite3.Error, OSError) as error:
                if not failing:
                    log.error("The ledger cannot be brought up to date: %s. Trying on.", error)
                failing = True
            else:
                if failing:
                    log.info("The ledger is up to date again.")
                failing = False

    def _note_time(self) -> None:
        if isinstance(self.clock, VirtualClock):
            self.ledger.put_meta(VIRTUAL_NOW, str(self.clock.now()))

    def _capacity(self, home: Home, endpoint: str, variant: str) -> Capacity | None:
        """What CloudWatch's utilisations are shares of. Any thread may ask."""
        hosted = self.hosting.get(Key(home, endpoint))
        for one in hosted.record.current.variants if hosted else ():
            if one.variant.name == variant:
                serverless = one.variant.serverless
                return Capacity(serverless.max_concurrency if serverless else 0, one.directory)
        return None

    def _clock(self) -> Clock:
        if self.config.clock == "wall":
            return WallClock()
        noted = self.ledger.get_meta(VIRTUAL_NOW) or str(time.time_ns() // SECOND * SECOND)
        try:
            return VirtualClock(int(noted))
        except ValueError:
            reason = f"the virtual time in it is {noted!r}"
            raise unreadable(self.ledger.path, reason) from None

    def _guard(self, needed: Credentials | None, where: Listening) -> str:
        """Put before every face what it needs; what a person has to be told of it, once."""
        if needed is None:
            if not where.local:
                log.warning("There is no authentication on %s: who reaches it can run code here.",
                            where.address)  # fmt: skip
            hosts = self.config.hosts if where.local else None
            self.rest = SameOrigin(self.rest, hosts)
            for face in ("control", "others", "objects", "spending"):
                setattr(self, face, SameOrigin(getattr(self, face), hosts, every_method=True))
            return ""
        verifier, any_service = Verifier(needed.keys), Verifier(needed.keys, "")
        limit = max(self.config.serverless_payload_bytes, self.config.realtime_payload_bytes)
        self.invocations = Signed(self.invocations, verifier, limit, refuse_as_runtime)
        self.control = Signed(self.control, verifier, limit, refuse_as_asked)
        self.others = Signed(self.others, any_service, limit, refuse_as_asked)
        self.spending = Signed(self.spending, any_service, limit, refuse_as_asked)
        self.objects = SignedStream(self.objects, any_service)
        signed = Signed(self.rest, verifier, limit, refuse_as_runtime)
        self.rest = SignedOrToken(self.rest, signed, needed.token)
        return needed.notice

    def _api(self, authentication: bool) -> FastAPI:
        api = documentation.api()
        routes = rest.router(
            self.hosting, self.trainings, self.companion, authentication, self.leaving
        )
        api.include_router(routes)
        for kind in (ControlError, SetupError):
            api.add_exception_handler(kind, rest.answer_error)
        api.add_exception_handler(HTTPException, rest.answer_http)
        api.add_exception_handler(RequestValidationError, rest.answer_invalid)
        api.add_exception_handler(sqlite3.Error, rest.answer_unwritable)
        return api


class Application:
    """The ASGI callable: invocations go to the wire, everything else to FastAPI."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ
        self.server: Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self.server is None:
            raise RuntimeError("The application has not been started: run it with lifespan on.")
        elif scope["type"] == "http":
            await self.server.face(scope)(scope, receive, send)
        else:
            await self.server.rest(scope, receive, send)

    async def start(self, where: Listening) -> Server:
        """Read the settings and start. Raises SetupError with one sentence if it cannot be."""
        config = read(os.environ if self._environ is None else self._environ)
        _set_up_logging(config)
        _raise_descriptor_limit()
        server = Server(config, where)
        try:
            await server.start()
        except BaseException:
            await server.stop()
            raise
        if server.notice:
            print(server.notice, file=sys.stderr, flush=True)  # for a person, and in no log
        self.server = server
        return server

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server:
            await server.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        uvicorn = uvicorn_config(receive)
        if (many := workers.count(uvicorn)) > 1:
            text = await workers.give_up(many)
            await send({"type": "lifespan.startup.failed", "message": text})
            return
        try:
            await self.start(listening(receive))
        except Exception as error:
            # Otherwise uvicorn takes it for an application without a lifespan, and runs it.
            text = str(error)
            if not isinstance(error, LukewarmError):
                text = f"The server cannot start: {error}."
            if not isinstance(error, LukewarmError | OSError | sqlite3.Error):
                log.exception("A fault of ours.")
            await send({"type": "lifespan.startup.failed", "message": text})
            return
        self._limit(uvicorn)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._sweeping:
            self._sweeping.cancel()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _limit(self, uvicorn: Any) -> None:
        """What only uvicorn's own configuration can be told; it has read neither of it yet."""
        assert self.server is not None
        config = self.server.config
        if getattr(uvicorn, "timeout_graceful_shutdown", 0) is None:
            uvicorn.timeout_graceful_shutdown = round(config.grace_s)
        if door := connections.keep(uvicorn, config, self.server.leaving.set):
            self._sweeping = asyncio.get_running_loop().create_task(door.run())


def create_app(environ: Mapping[str, str] | None = None) -> Application:
    """An application of its own; `environ` stands for the process's environment variables."""
    return Application(environ)


def _backend(config: Config) -> str:
    return backends.default_backend() if config.sandbox == "auto" else config.sandbox


def _raise_descriptor_limit() -> None:
    """Three descriptors an environment and one a client: use what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MAX_DESCRIPTORS) if hard != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _set_up_logging(config: Config) -> None:
    """Ours goes to stderr; uvicorn's line per request is off unless asked for."""
    root = logging.getLogger("lukewarm")
    root.setLevel(config.log_level.upper())
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s:     %(message)s"))
        root.addHandler(handler)
        root.propagate = False
    if not config.access_log:
        access = logging.getLogger("uvicorn.access")
        access.handlers.clear()
        access.propagate = False


app = create_app()
