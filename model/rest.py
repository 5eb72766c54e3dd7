"""TensorFlow Serving's REST port, on the loopback, for user code that posts to it itself."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from model.messages import Response, error

URL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(?::(predict|classify|regress))?")


@dataclass(frozen=True, slots=True)
class Route:
    """Which model is asked for what; `version` None is the newest."""

    model: str
    version: int | None = None
    method: str = "predict"

    @property
    def servable(self) -> str:
        """As TensorFlow Serving writes it when it has no such model."""
        if self.version is None:
            return f"Latest({self.model})"
        return f"Specific({self.model}, {self.version})"

    @property
    def path(self) -> str:
        version = "" if self.version is None else f"/versions/{self.version}"
        return f"/v1/models/{self.model}{version}:{self.method}"


Predict = Callable[[Route, bytes], Response]


class Loopback:
    """An HTTP server at `listener` or else a free port of 127.0.0.1, in daemon threads, answering
    by `predict`."""

    def __init__(self, predict: Predict, listener: socket.socket | None = None) -> None:
        listener = listener or socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        self._server = ThreadingHTTPServer(address, handler_class(predict), False)
        self._server.socket.close()
        self._server.socket = listener
        self._server.daemon_threads = True
        self.port = int(address[1])
        threading.Thread(
            target=self._server.serve_forever, name="tensorflow-serving-rest", daemon=True
        ).start()

    def uri(self, route: Route) -> str:
        return f"http://127.0.0.1:{self.port}{route.path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def handler_class(predict: Predict) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                self.close_connection = True
                self._send(error(411, "Send the body with a Content-Length."))
                return
            body = self.rfile.read(int(length))
            match URL.fullmatch(self.path):
                case re.Match() as found if found[3]:
                    version = int(found[2]) if found[2] else None
                    self._send(predict(Route(found[1], version, found[3]), body))
                case _:
                    self._send(error(404, f"Malformed request: POST {self.path}"))

        def do_GET(self) -> None:
            self._send(error(404, f"Malformed request: GET {self.path}"))

        def _send(self, response: Response) -> None:
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: each line would land in the model's own log."""

    return Handler
