"""What a supervisor and a worker tell each other: JSON, one line each, over a socket pair.

The end of the socket is a message too: the other process is gone.
"""

from typing import Any, Final

import msgspec

LINE_BYTES_MAX: Final = 64 << 20
"""Of the longest line: a file of revocations."""


class HandOver(msgspec.Struct, tag="hand_over", frozen=True, kw_only=True):
    """The first line to a worker: what it is to be."""

    worker: int
    """From 1."""
    workers: int
    gateway: str
    """Names this run of the supervisor."""
    config: str | None
    """The settings file."""
    overrides: dict[str, Any]
    """Settings by dotted key that count more than the file and the environment."""
    listening: list[int]
    """Descriptors of the listening sockets."""
    page: int
    """Descriptor of the board's memory."""
    nats_url: str | None
    """Of the embedded nats-server; None for operators' own."""
    ops_socket: str


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """To a worker: drain, then end."""

    leaving: int
    """The other workers that stop at the same time."""
    now: bool
    """Do not drain first."""


class Written(msgspec.Struct, tag="written", frozen=True):
    """To a worker: the answer to its `Write` of that number."""

    number: int
    error: str
    """Why the disk refused; empty if the file is written."""


class Look(msgspec.Struct, tag="look", frozen=True):
    """To a worker: take a snapshot."""

    number: int
    """Of this question."""


class Seen(msgspec.Struct, tag="seen", frozen=True):
    """Of a worker: the answer to the `Look` of that number."""

    number: int
    snapshot: dict[str, Any] | None
    """None if it could not be taken."""


class Listening(msgspec.Struct, tag="listening", frozen=True):
    """Of a worker: devices are answered, if only with a time to come back."""


class Serving(msgspec.Struct, tag="serving", frozen=True):
    """Of a worker: devices are admitted."""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Of a worker: why it ends."""

    reason: str


class Write(msgspec.Struct, tag="write", frozen=True):
    """Of a worker: write this file of the data directory."""

    number: int
    """Of this request; 0 if no answer is wanted."""
    name: str
    text: str


ToWorker = HandOver | Stop | Written | Look
ToSupervisor = Listening | Serving | Failed | Write | Seen

_to_worker: Final = msgspec.json.Decoder(ToWorker)
_to_supervisor: Final = msgspec.json.Decoder(ToSupervisor)


def line_of(message: ToWorker | ToSupervisor) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def parse_to_worker(line: bytes) -> ToWorker:
    """
    Raises:
        msgspec.DecodeError: it is none of these.
    """
    message: ToWorker = _to_worker.decode(line)
    return message


def parse_to_supervisor(line: bytes) -> ToSupervisor:
    """
    Raises:
        msgspec.DecodeError: it is none of these.
    """
    message: ToSupervisor = _to_supervisor.decode(line)
    return message
