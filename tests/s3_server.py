"""A real S3 server on loopback whose state outlives it: it can go away in the middle of a run, and come back."""

import functools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from botocore.loaders import JSONFileLoader
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

# Each client would read megabytes of JSON, which take longer than most tests.
_load = functools.cache(functools.partial(JSONFileLoader._load_file, JSONFileLoader()))
JSONFileLoader._load_file = staticmethod(_load)


class S3Server:
    """Starts on a free port, and on the same one ever after."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._port, self._server, self._closing = 0, None, None
        self._matches: Callable[[str, str], bool] = lambda method, path: False
        self._left, self._back = 0, None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        if self._closing:
            self._closing.join()
            self._closing = None
        if self._server is None:
            self._gone = False
            self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True)
            self._port = self._server.port
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._gone = True
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
            while self._listening():  # the kernel takes its time, and the port could not be opened again
                time.sleep(0.02)

    def _listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def go_away_at(self, matches: Callable[[str, str], bool], count: int = 1, back_after: float | None = None) -> None:
        """Close the socket after the answer to the `count`th request whose method and path match.

        With `back_after`, open it again after so many seconds; else at the next `start`.
        """
        self._matches, self._left, self._back = matches, count, back_after

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._gone:  # on a connection that was open already
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        if self._left and self._matches(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            self._left -= 1
            if not self._left:
                self._gone = True
                self._closing = threading.Thread(target=self._outage, args=(self._back,))
                self._closing.start()
        return self._moto(environ, start_response)

    def _outage(self, back_after: float | None) -> None:
        self.stop()
        if back_after is not None:
            time.sleep(back_after)
            self._closing = None
            self.start()
