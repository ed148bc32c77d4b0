"""What a stream is and what it holds, asked of JetStream without losing what nats-py leaves out."""

from typing import Any, Final

import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client

from gateway.stream.api_error import ApiError
from gateway.stream.errors import StreamMissing

_TIMEOUT_S: Final = 5.0
_NO_STREAM: Final = 10059
_NO_MESSAGE: Final = 10037


class _State(Struct):
    first_seq: int
    last_seq: int
    messages: int


class _Config(Struct, frozen=True):
    max_age: int = 0


class _Info(Struct):
    created: str = ""
    config: _Config = _Config()
    state: _State | None = None
    error: ApiError | None = None


class _Stored(Struct):
    hdrs: bytes = b""  # msgspec undoes the base64


class _Got(Struct):
    message: _Stored | None = None
    error: ApiError | None = None


class StreamFacts(Struct, frozen=True):
    """`created` is the server's own text: it tells a stream from one that was made anew.

    `max_age_s` is how long a message is kept, 0 for ever.
    """

    created: str
    first_seq: int
    last_seq: int
    messages: int
    max_age_s: float


async def stream_facts(client: Client, stream: str) -> StreamFacts:
    """
    Raises:
        StreamMissing: there is no such stream.
        nats.errors.Error: JetStream does not answer, or refuses.
    """
    answer = await _ask(client, f"$JS.API.STREAM.INFO.{stream}", b"", _Info)
    if answer.error is not None:
        raise _failed(stream, answer.error)
    assert answer.state is not None
    state = answer.state
    return StreamFacts(
        answer.created,
        state.first_seq,
        state.last_seq,
        state.messages,
        answer.config.max_age / 1_000_000_000,
    )


async def message_id_at(client: Client, stream: str, seq: int) -> str | None:
    """`Nats-Msg-Id` of the message at `seq`, empty if it has none, None if there is no message.

    Asked of the stream's leader: a replica may be behind.

    Raises:
        StreamMissing: there is no such stream.
        nats.errors.Error: JetStream does not answer, or refuses.
    """
    wanted = b'{"seq":%d}' % seq
    answer = await _ask(client, f"$JS.API.STREAM.MSG.GET.{stream}", wanted, _Got)
    if answer.error is not None:
        if answer.error.err_code == _NO_MESSAGE:
            return None
        raise _failed(stream, answer.error)
    assert answer.message is not None
    for line in answer.message.hdrs.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"nats-msg-id":
            return str(value.strip(), "utf-8", "replace")
    return ""


async def _ask(client: Client, subject: str, body: bytes, kind: type[Any]) -> Any:
    answer = await client.request(subject, body, timeout=_TIMEOUT_S)
    return msgspec.json.decode(answer.data, type=kind)


def _failed(stream: str, failure: ApiError) -> Exception:
    if failure.err_code == _NO_STREAM:
        return StreamMissing(f"there is no stream {stream}")
    return nats.errors.Error(f"stream {stream}: {failure.description} ({failure.err_code})")
