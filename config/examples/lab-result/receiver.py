"""The ward and the doctors, as receivers of events: they drop what they have seen already."""

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

PORT = 8098
NAMES = {"/alerts": "the ward", "/results": "the doctor"}


class Receiver:
    """Prints each event once. The key of a repeat is that of the first attempt."""

    def __init__(self) -> None:
        self.received: dict[str, dict[str, Mapping[str, object]]] = {path: {} for path in NAMES}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self.path, self.headers["Idempotency-Key"], json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """The events are printed; requests are not."""

        self._server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def take(self, path: str, key: str, event: Mapping[str, object]) -> None:
        """One request."""
        known = self.received[path]
        if key not in known:
            known[key] = event
            print(f"  {NAMES[path]}: {event}", flush=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
