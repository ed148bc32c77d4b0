"""Frames of the wire contract `tidegate.v1`: JSON objects in WebSocket text messages.

The gateway decodes strictly: an unknown key is an offence, so that a typo is noticed. `hello` is
the exception, because a newer client may send more members there than an older gateway knows. The
client decodes leniently, because a newer gateway may send more than an older client knows.

`data` is never parsed: it is carried as the bytes the device sent, so a number keeps the digits it
had. msgspec checks the syntax of `data` while it searches its end; this module checks UTF-8.
"""

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from tidegate.wire.errors import FrameError

SUBPROTOCOL: Final = "tidegate.v1"
BEARER_SUBPROTOCOL_PREFIX: Final = "bearer."
TICKET_SUBPROTOCOL_PREFIX: Final = "ticket."
PATH: Final = "/v1/device"
TICKET_HEADER: Final = "Tidegate-Ticket"
RETRY_AFTER_MS_HEADER: Final = "Tidegate-Retry-After-Ms"

# Close codes of the contract: those of RFC 6455 section 7.4.1 and its registry, then our own.
CLOSE_NORMAL: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_UNSUPPORTED_DATA: Final = 1003
CLOSE_ABNORMAL: Final = 1006
"""Never sent: what a connection that ended without a close frame counts as."""
CLOSE_INVALID_DATA: Final = 1007
CLOSE_POLICY: Final = 1008
CLOSE_TOO_LARGE: Final = 1009
CLOSE_INTERNAL: Final = 1011
CLOSE_SERVICE_RESTART: Final = 1012
CLOSE_TRY_AGAIN_LATER: Final = 1013
CLOSE_CREDENTIAL: Final = 4401
CLOSE_REVOKED: Final = 4403
CLOSE_TAKEN_OVER: Final = 4409

OUTBOXES: Final = "outboxes"
"""A feature named in `welcome`: a session may drain several outboxes, one after the other."""
STATE: Final = "state"
"""A feature: the gateway tells a device which asks for it what the device should be like."""
RECEIPTS: Final = "receipts"
"""A feature: a device may say that a command is on its disk, and results are settled."""
TRACE: Final = "trace"
"""A feature named in `welcome`: a message may have the member `trace`."""
FEATURES: Final = (OUTBOXES, STATE, RECEIPTS)
"""What this gateway always understands beyond what every gateway does."""

TOLD_DEPTH_MAX: Final = 32
"""Levels of arrays and objects in the `data` of a command and in a state. The codecs of clients
follow some hundred; a frame that a client cannot read would end each of its sessions.
"""

SEQ_MAX: Final = 2**53 - 1
"""Largest `seq`: what every JSON implementation keeps exact (RFC 8259, section 6)."""

Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]


class Message(Struct, forbid_unknown_fields=True, gc=False):
    """A device's message, to be stored. `time` is RFC 3339, the gateway's clock without it.

    `trace` is the `traceparent` of the device's span. A client sends it only if the gateway has the
    feature `trace`; what is no traceparent is ignored.
    """

    seq: Seq
    type: str
    data: Raw
    time: str | UnsetType = UNSET
    trace: str | UnsetType = UNSET


class Hello(Struct):
    """First frame of a device: which outbox it sends from, and the oldest `seq` still unacked.

    `sent` is the highest seq of that outbox that the device may have sent on an earlier connection,
    0 for none; without it, everything from `oldest` on may have been sent. Unknown members are
    ignored. With the feature `outboxes` it may come again, for another outbox.

    `state` is the version of the state that the device has, empty for none. A device that does not
    name it is told no state. With `receipts` the device says `received` when a queued command is on
    its disk, and repeats a result until it is settled.
    """

    outbox: str
    oldest: Seq
    age_ms: Annotated[int, Meta(ge=0)] = 0
    sent: Annotated[int, Meta(ge=0, le=SEQ_MAX)] | UnsetType = UNSET
    state: str | UnsetType = UNSET
    receipts: bool | UnsetType = UNSET


class Result(Struct, forbid_unknown_fields=True):
    """A device's answer to a command."""

    id: str
    ok: bool
    data: Raw | UnsetType = UNSET


class Received(Struct):
    """A device has the command with this id on its disk."""

    id: str


class DeviceFrame(Struct, forbid_unknown_fields=True):
    """Any single frame a device may send: exactly one of its members, or a message's members."""

    hello: Hello | UnsetType = UNSET
    result: Result | UnsetType = UNSET
    credential: str | UnsetType = UNSET
    received: str | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET
    type: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    time: str | UnsetType = UNSET
    trace: str | UnsetType = UNSET


class Unusable(Struct):
    """A message in its place in the order, but not one that can be stored: a dead letter.

    `original_bytes` is the size of the message where `raw` is only its beginning, else 0.
    """

    seq: int
    error: str
    detail: str
    raw: bytes
    original_bytes: int = 0
    trace: ClassVar[UnsetType] = UNSET
    """As of a message without a trace."""


class Damaged(Struct):
    """A frame that does not decode as a whole; its messages may. `error` as of `FrameError`."""

    error: str
    detail: str


Decoded = Hello | Result | Received | str | list[Message | Unusable] | Damaged

_decode_frame = msgspec.json.Decoder(DeviceFrame | list[Message]).decode


def check_utf8(text: bytes) -> None:
    """RFC 6455 section 8.1: a text message that is not UTF-8 fails the connection (1007).

    Raises:
        FrameError: naming the first bad byte.
    """
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as exc:
            raise FrameError("utf8", f"invalid UTF-8 at byte {exc.start}") from None


def decode_device_frame(text: bytes) -> Decoded:
    """Decode what a device sent.

    Returns:
        A `Hello`, a `Result`, a `Received`, a `str` (a fresh credential), a list of messages, or
        `Damaged`, of which `salvage` may read messages one by one.

    Raises:
        FrameError: not UTF-8, or certainly no frame of the contract.
    """
    check_utf8(text)
    try:
        frame = _decode_frame(text)
    except msgspec.ValidationError as exc:
        return Damaged("frame", str(exc))
    except msgspec.DecodeError as exc:
        return Damaged("json", str(exc))
    except RecursionError:
        raise FrameError("depth", "nested too deep to parse") from None
    if type(frame) is list:
        return frame
    assert isinstance(frame, DeviceFrame)
    if frame.seq is not UNSET:
        if (
            frame.type is UNSET
            or frame.data is UNSET
            or frame.hello is not UNSET
            or frame.result is not UNSET
            or frame.credential is not UNSET
            or frame.received is not UNSET
        ):
            return Damaged("frame", "a message has seq, type, data and optionally time")
        return [Message(frame.seq, frame.type, frame.data, frame.time, frame.trace)]
    return _named_frame(frame)


def _named_frame(frame: DeviceFrame) -> Hello | Result | Received | str:
    """The one member of a frame that is no message."""
    named = [frame.hello, frame.result, frame.credential, frame.received]
    present = [member for member in named if member is not UNSET]
    if len(present) != 1 or not (frame.type is frame.data is frame.time is frame.trace is UNSET):
        raise FrameError(
            "frame", "expected exactly one of hello, result, credential, received, or a message"
        )
    return present[0] if frame.received is UNSET else Received(frame.received)


class Resume(Struct):
    """Where the stream is: everything of `outbox` up to and including `seq` is settled."""

    outbox: str
    seq: int


class State(Struct):
    """What a device should be like. `version` is `<epoch>-<sequence>`, opaque to applications.

    A client drops a version that differs from its own in the number behind the last `-` only, and
    is not higher. It takes every other version.
    """

    version: str
    desired: Raw


class Welcome(Struct, omit_defaults=True):
    """First frame of the gateway. Times are milliseconds, sizes bytes, credit messages.

    The limits with a default of 0 are not named by gateways before `features`.
    """

    session: str
    credit: int
    max_message_bytes: int
    resume: Resume
    first_retry_ms: int
    keepalive_ms: int
    max_frame_bytes: int = 0
    max_messages_per_frame: int = 0
    max_depth: int = 0
    features: tuple[str, ...] = ()
    state: State | UnsetType = UNSET


class Reject(Struct, omit_defaults=True):
    seq: int
    error: str
    detail: str = ""


class Hold(Struct):
    reason: str


class Goaway(Struct, omit_defaults=True):
    reason: str
    retry_ms: int
    ticket: str = ""


class Notice(Struct):
    first_retry_ms: int


class Command(Struct, omit_defaults=True):
    """A command. With `queued` it is stored in the queue until its outcome is known. `trace` is the
    `traceparent` of the span that sent it, if that is sampled.

    `ttl_ms` says how long after its arrival it may still be given to the application. It is no
    moment, because a device's clock may be wrong. Without it there is no such limit.
    """

    id: str
    type: str
    data: Raw = Raw(b"null")  # Raw is immutable
    queued: bool = False
    trace: str = ""
    ttl_ms: int | UnsetType = UNSET


class ServerFrame(Struct):
    """Any frame the gateway may send, as a client reads it. Unknown members are ignored."""

    welcome: Welcome | UnsetType = UNSET
    resume: Resume | UnsetType = UNSET
    ack: int | UnsetType = UNSET
    credit: int | UnsetType = UNSET
    reject: Reject | UnsetType = UNSET
    hold: Hold | UnsetType = UNSET
    goaway: Goaway | UnsetType = UNSET
    notice: Notice | UnsetType = UNSET
    command: Command | UnsetType = UNSET
    settled: str | UnsetType = UNSET
    """The id of a command whose result is stored: the device need not repeat it."""
    state: State | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode
_decode_server = msgspec.json.Decoder(ServerFrame).decode


def decode_server_frame(text: bytes) -> ServerFrame:
    """Decode what the gateway sent.

    Raises:
        FrameError: not UTF-8, not JSON, or members of the wrong type.
    """
    check_utf8(text)
    try:
        return _decode_server(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise FrameError("frame", str(exc)) from None


def encode_ack(seq: int, credit: int) -> bytes:
    return b'{"ack":%d,"credit":%d}' % (seq, credit)


def encode_resume(outbox: str, seq: int, credit: int) -> bytes:
    """The answer to a further hello; `credit` counts beyond `seq`."""
    return _encode({"resume": Resume(outbox, seq), "credit": credit})


def encode_named(name: str, body: Struct) -> bytes:
    """A frame `{name: body}`: of the gateway welcome, reject, hold, goaway, notice, command and
    state, of a device hello and result.
    """
    return _encode({name: body})


def encode_credential(token: str) -> bytes:
    return _encode({"credential": token})


def encode_received(command_id: str) -> bytes:
    return _encode({"received": command_id})


def encode_settled(command_id: str) -> bytes:
    return _encode({"settled": command_id})


def encode_messages(messages: list[Message]) -> bytes:
    """One message as an object, several as an array."""
    return _encode(messages[0] if len(messages) == 1 else messages)
