"""Entries of the queue, and the facts of what became of each command. Pure.

Every transition of a queued command is in this module.

  (none) ----> QUEUED ----> SENT ----> DELIVERED ----> DONE | FAILED | UNKNOWN
     |            |           |
     |            |           +-- result, or lost --> DONE | FAILED | UNKNOWN
     |            |           +-- not sent after all --> QUEUED
     |            |           +-- result `expired`; DELIVERED too --> EXPIRED
     +------------+-- cancelled, not understood --> FAILED
     +------------+-- its time has passed --------> EXPIRED

Rules:
- An entry (`commands.queue.<tenant>.<device>`) is what must be done. A fact
  (`commands.status.<tenant>.<device>.<id>`) says what has become of it; the last one counts.
- A fact is stored only behind the fact that its writer has read (compare-and-set on the subject).
  Of two writers one fails, and reads again.
- SENT is stored before the frame goes out, so a command that was never stored as SENT was never
  given to anybody. DELIVERED is stored only when the device itself said so.
- EXPIRED means that no application was given the command. Once SENT is stored, only two can say so:
  the device (the result `expired`), and the node which knows that its frame never went out.
- A status of `FINAL` is never followed by another one. The entry is deleted after it is stored.
- The asker stores the entry first and QUEUED then, so an entry may have no fact yet.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.stream.errors import EntryError
from gateway.stream.header_block import sampled_trace_in
from gateway.stream.queue.status import Status
from tidegate.wire import frames
from tidegate.wire.depth import json_depth_exceeds
from tidegate.wire.errors import FrameError
from tidegate.wire.grammar import is_message_type, is_token

QUEUE_PREFIX: Final = "commands.queue."
STATUS_PREFIX: Final = "commands.status."
CANCELLED: Final = "cancelled"
UNKNOWN_TO_DEVICE: Final = "unknown"
"""`error` of a device which was interrupted while its application had the command."""
EXPIRED_ON_DEVICE: Final = "expired"
"""`error` of a device whose application was not given the command before its time had passed."""
NO_RESULT: Final = "no_result"
CONNECTION_LOST: Final = "connection_lost"
NOT_SENT: Final = "not_sent"

DeviceKey = tuple[str, str]
"""Tenant and device."""


FINAL: Final = frozenset({Status.DONE, Status.FAILED, Status.EXPIRED, Status.UNKNOWN})

LEGAL: Final[dict[Status | None, frozenset[Status]]] = {
    None: frozenset({Status.QUEUED, Status.SENT, Status.FAILED, Status.EXPIRED}),
    Status.QUEUED: frozenset({Status.SENT, Status.FAILED, Status.EXPIRED}),
    Status.SENT: frozenset(
        {
            Status.QUEUED,
            Status.DELIVERED,
            Status.DONE,
            Status.FAILED,
            Status.EXPIRED,
            Status.UNKNOWN,
        }
    ),
    Status.DELIVERED: frozenset({Status.DONE, Status.FAILED, Status.EXPIRED, Status.UNKNOWN}),
    **{final: frozenset() for final in FINAL},
}
"""Which status may follow which."""
DATA_BYTES_MAX: Final = 65_536
"""The largest `data` of a command, and of a result that is kept. JSON."""
DATA_TOO_LARGE: Final = "data_too_large"


class _Entry(Struct):
    """The payload of an entry."""

    id: str
    type: str
    expires: str
    data: Raw = Raw(b"null")  # Raw is immutable


class Entry(_Entry):
    """A command that waits for its device. `expires` is RFC 3339."""

    trace: str = ""
    """Of the asker, if it is sampled. It is the header `traceparent`, no member of the payload."""

    @property
    def payload(self) -> bytes:
        """What is stored beside the headers."""
        return encode(_Entry(self.id, self.type, self.expires, self.data))

    @property
    def expires_at(self) -> float:
        """Unix time."""
        return unix_time(self.expires)


class Fact(Struct, omit_defaults=True):
    """A step of a command.

    `node`, `fence`, `receipts` and `entry` are of SENT and what follows: which session it was given
    to, whether that device keeps receipts, and the sequence of the entry in the stream.
    """

    status: Status
    time: str
    node: str = ""
    fence: int = 0
    receipts: bool = False
    entry: int = 0
    reason: str = ""
    data: Raw | UnsetType = UNSET


class Stored(Struct, frozen=True):
    """The last fact of a command, and its sequence in the stream."""

    seq: int
    fact: Fact


_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_fact = msgspec.json.Decoder(Fact).decode
encode = msgspec.json.encode


class _Named(Struct):
    id: str = ""


def read_entry(data: bytes, headers: bytes = b"") -> Entry:
    """
    Args:
        data: payload of the message.
        headers: the block of its headers.

    Raises:
        EntryError: it is no entry; says why.
    """
    try:
        frames.check_utf8(data)  # the device would have to close on it
        stored = _decode_entry(data)
        entry = Entry(stored.id, stored.type, stored.expires, stored.data)
        detail = _fault_of(entry)
    except (FrameError, msgspec.DecodeError, RecursionError, ValueError) as exc:
        detail = str(exc)
    else:
        if not detail:
            entry.trace = sampled_trace_in(headers)
            return entry
    raise EntryError(_name_in(data), detail)


def _fault_of(entry: Entry) -> str:
    if not is_token(entry.id):
        return "id must match [A-Za-z0-9_-]{1,64}"
    if not is_message_type(entry.type):
        return "type is not one to eight tokens joined by dots"
    if len(entry.data) > DATA_BYTES_MAX:
        return f"data is larger than {DATA_BYTES_MAX} bytes"
    if json_depth_exceeds(bytes(entry.data), frames.TOLD_DEPTH_MAX):
        return f"data nests deeper than {frames.TOLD_DEPTH_MAX} levels"
    unix_time(entry.expires)
    return ""


def _name_in(data: bytes) -> str:
    try:
        name = msgspec.json.decode(data, type=_Named).id
    except (msgspec.DecodeError, RecursionError):
        return ""
    return name if is_token(name) else ""


def read_fact(data: bytes) -> Fact:
    """
    Raises:
        ValueError: it is no fact.
    """
    return _decode_fact(data)


def queue_subject(key: DeviceKey) -> str:
    """Where the commands of a device wait."""
    return f"{QUEUE_PREFIX}{key[0]}.{key[1]}"


def status_subject(key: DeviceKey, command_id: str) -> str:
    """Where the facts of a command are."""
    return f"{STATUS_PREFIX}{key[0]}.{key[1]}.{command_id}"


def rfc3339(moment: float) -> str:
    """Unix time as RFC 3339, in UTC and milliseconds."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def unix_time(text: str) -> float:
    """
    Raises:
        ValueError: it is no RFC 3339 time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return moment.timestamp()


def outcome_of(result: frames.Result) -> tuple[Status, str]:
    """The final status that a device's result means, and the reason."""
    if result.ok:
        return Status.DONE, ""
    reason = error_in(result.data)
    return _SAID.get(reason, Status.FAILED), reason


_SAID: Final = {UNKNOWN_TO_DEVICE: Status.UNKNOWN, EXPIRED_ON_DEVICE: Status.EXPIRED}
"""The statuses that a device itself names, as the `error` of its result."""


class _Error(Struct):
    error: str = ""


_REASON_CHARS_MAX: Final = 64


def error_in(data: Raw | UnsetType) -> str:
    """The short word for what went wrong, in the data of a result."""
    if data is UNSET:
        return ""
    try:
        return msgspec.json.decode(data, type=_Error).error[:_REASON_CHARS_MAX]
    except (msgspec.DecodeError, RecursionError):
        return ""
