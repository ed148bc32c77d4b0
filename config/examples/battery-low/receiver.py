"""A receiver of alerts, as a driver's app would have one: it drops what it has seen already."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

PORT = 8099


class Receiver:
    """Prints each alert once. The key of a repeat is that of the first attempt."""

    def __init__(self) -> None:
        self.alerts: dict[str, dict[str, object]] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self.headers["Idempotency-Key"], json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """The alerts are printed; requests are not."""

        self._server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def take(self, key: str, alert: dict[str, object]) -> None:
        """One request."""
        if key not in self.alerts:
            self.alerts[key] = alert
            print(f"  the driver's app: {alert}", flush=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
