"""What `tidegate command` says: one line of JSON an answer, and the exit status of each outcome."""

import json
import sys
from typing import Any, Final

from gateway.stream.queue.requests import NO_DATA

STATUSES: Final = {
    "done": 0,
    "queued": 0,
    "offline": 3,
    "no_answer": 4,
    "not_understood": 5,
    "failed": 6,
    "expired": 7,
    "unknown": 8,
    "busy": 9,
}
"""The exit status of each outcome. 1: the command line or NATS; 2: the options; 10: any other."""
_OTHER: Final = 10
WAIT: Final = "30s"
"""How long the answer of a device is waited for, unless `--wait` says otherwise."""
CLIENT_NAME: Final = "tidegate-command"
"""How the NATS server shows the connection."""
TRACE_VARIABLE: Final = "TRACEPARENT"
"""Names the span of the caller: OpenTelemetry's tools set it for programs that they start."""


def status_of(outcome: str) -> int:
    """The exit status."""
    return STATUSES.get(outcome, _OTHER)


def print_line(*, data: Any = NO_DATA, **members: str) -> None:
    """One line of JSON; what is empty is left out. `json` escapes control characters of devices."""
    line: dict[str, Any] = {name: str(value) for name, value in members.items() if value}
    if data is not NO_DATA:
        line["data"] = data
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
