"""Reads and sets the state of one device, for operators."""

import json
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from gateway.session.desired import STATE_BYTES_MAX, Version, epoch_of, parse_version
from gateway.stream.api_error import ApiError
from gateway.stream.errors import NotAnswered, NotAState, StateConflict
from gateway.stream.link.client import LinkClient
from gateway.stream.names import EVENTS, STATE
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.states.known import Key, desired_of, subject_of
from tidegate.wire import frames
from tidegate.wire.depth import json_depth_exceeds

_TIMEOUT_S: Final = 5.0
_NO_MESSAGE: Final = 10037
_WRONG_LAST_SEQUENCE: Final = 10071
NO_VERSION: Final = "none"
"""Stands for the version of a device that has no state yet."""


class StateOf(NamedTuple):
    """What a device should be like."""

    version: str
    desired: Any
    set_at: str
    """RFC 3339, by the stream's clock."""


class LastEvent(NamedTuple):
    """The last event of one type that a device sent, by its place in the stream."""

    type: str
    time: str
    """As the device says it, RFC 3339."""
    sequence: int
    data: Any


class _Stored(Struct):
    seq: int
    time: str
    data: bytes = b""  # msgspec undoes the base64


class _Got(Struct):
    message: _Stored | None = None
    error: ApiError | None = None


class _PubAck(Struct):
    stream: str = ""
    seq: int = 0
    error: ApiError | None = None


def encode_state(text: str) -> bytes:
    """The payload of a state, with the text as it was given.

    Args:
        text: a JSON object.

    Raises:
        NotAState: it is none, or larger than a state may be. The message says so in full.
    """
    try:
        desired = text.strip().encode()
        found = msgspec.json.decode(desired)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise NotAState(f"the state is no JSON: {exc}") from None
    if not isinstance(found, dict):
        raise NotAState(
            'the state must be a JSON object, such as {"interval_s": 60}; the empty one is {}'
        )
    if len(desired) > STATE_BYTES_MAX:
        raise NotAState(
            f"the state has {len(desired)} bytes; a state has {STATE_BYTES_MAX} bytes at most"
        )
    if json_depth_exceeds(desired, frames.TOLD_DEPTH_MAX):
        raise NotAState(f"the state nests deeper than {frames.TOLD_DEPTH_MAX} levels")
    return b'{"desired":%b}' % desired


async def state_of(client: Client, key: Key) -> StateOf | None:
    """The state of a device, as the stream's leader has it; None if none was set.

    Raises:
        StreamMissing: there is no stream STATE.
        NotAnswered, nats.errors.Error: JetStream does not answer.
    """
    facts = await stream_facts(client, STATE)
    body = msgspec.json.encode({"last_by_subj": subject_of(key)})
    got = await _ask(client, f"$JS.API.STREAM.MSG.GET.{STATE}", body, _Got)
    if got.error is not None and got.error.err_code == _NO_MESSAGE:
        return None
    if got.message is None:
        raise NotAnswered(got.error.description if got.error else "no message and no error")
    desired = desired_of(got.message.data)
    if desired is None:
        return None
    version = Version(epoch_of(facts.created), got.message.seq)
    return StateOf(str(version), json.loads(desired), got.message.time)


async def set_state(
    client: Client, key: Key, payload: bytes, *, if_version: str | None = None
) -> str:
    """Set the state of a device.

    Args:
        client: of an operator.
        key: tenant and device.
        payload: of `encode_state`.
        if_version: set it only if this is the present version; `none`: only if there is none.

    Returns:
        The new version.

    Raises:
        StateConflict: another version is the present one.
        StreamMissing: there is no stream STATE.
        NotAnswered, nats.errors.Error: JetStream does not answer, or refuses.
    """
    facts = await stream_facts(client, STATE)
    epoch = epoch_of(facts.created)
    headers = {"Nats-Expected-Stream": STATE}
    if if_version is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(_expected(epoch, if_version))
    answer = await client.request(subject_of(key), payload, timeout=_TIMEOUT_S, headers=headers)
    ack = msgspec.json.decode(answer.data, type=_PubAck)
    if ack.error is None:
        return str(Version(epoch, ack.seq))
    if ack.error.err_code == _WRONG_LAST_SEQUENCE:
        present = await state_of(client, key)
        raise StateConflict(present.version if present is not None else NO_VERSION)
    raise NotAnswered(f"{ack.error.description} ({ack.error.err_code})")


def _expected(epoch: str, if_version: str) -> int:
    """The sequence that must be the last one of the device."""
    if if_version == NO_VERSION:
        return 0
    version = parse_version(if_version)
    # No message has this sequence, so a version of another epoch is never the present one.
    return version.sequence if version is not None and version.epoch == epoch else 2**62


async def last_events(client: LinkClient, key: Key) -> list[LastEvent]:
    """The last event of each type that a device sent, the newest first.

    At most 1,000 types are shown: JetStream answers so many at once.

    Raises:
        NotAnswered, nats.errors.Error, TimeoutError: JetStream does not answer.
    """
    found: list[LastEvent] = []
    prefix = f"events.{key[0]}.{key[1]}."
    body = json.dumps({"multi_last": [f"{prefix}>"]}).encode()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{EVENTS}", body, reply=inbox)
        while True:
            message = await subscription.next_msg(timeout=_TIMEOUT_S)
            headers = message.headers or {}
            status = headers.get("Status")
            if status in ("204", "404"):
                break
            if status is not None:
                raise NotAnswered(f"{EVENTS}: direct get answered {status}")
            found.append(
                LastEvent(
                    headers["Nats-Subject"].removeprefix(prefix),
                    headers.get("ce-time", headers["Nats-Time-Stamp"]),
                    int(headers["Nats-Sequence"]),
                    json.loads(message.data),
                )
            )
    finally:
        await subscription.unsubscribe()
    return sorted(found, key=lambda event: -event.sequence)


async def _ask(client: Client, subject: str, body: bytes, kind: type[_Got]) -> _Got:
    answer = await client.request(subject, body, timeout=_TIMEOUT_S)
    return msgspec.json.decode(answer.data, type=kind)
