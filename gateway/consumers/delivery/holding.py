"""Which stream holds the subjects of a rule's target, and whether EVENTS would read it again."""

from typing import Any, Final

import msgspec
import nats.errors
from msgspec import Struct

from gateway.consumers.errors import TargetAway, TargetRefused
from gateway.stream.api_error import ApiError
from gateway.stream.link.client import LinkClient
from gateway.stream.names import EVENTS

_TIMEOUT_S: Final = 5.0
_NO_STREAM: Final = 10059
_SOURCES_MAX: Final = 64


class _Names(Struct):
    streams: list[str] | None = None


class _Source(Struct):
    name: str


class _Config(Struct):
    name: str = ""
    allow_atomic: bool = False
    sources: list[_Source] | None = None
    mirror: _Source | None = None


class _State(Struct):
    last_seq: int = 0


class _Info(Struct):
    config: _Config = msgspec.field(default_factory=_Config)
    state: _State = msgspec.field(default_factory=_State)
    error: ApiError | None = None


class Holder(Struct, frozen=True):
    """The stream that stores what is published there."""

    stream: str
    atomic: bool
    last_seq: int


async def holder_of(client: LinkClient, rule: str, subject: str) -> Holder | None:
    """The stream that holds a subject (which may have wildcards), None if none does.

    Raises:
        TargetRefused: it is EVENTS, EVENTS sources it, or it is more than one.
        TargetAway: JetStream does not answer.
    """
    body = msgspec.json.encode({"subject": subject})
    names = (await _ask(client, "$JS.API.STREAM.NAMES", body, _Names)).streams or []
    if not names:
        return None
    if EVENTS in names:
        raise TargetRefused(
            f"rule {rule}: {EVENTS} holds {subject}: the rule would read what it writes"
        )
    if len(names) > 1:
        raise TargetRefused(
            f"rule {rule}: {subject} is held by {' and '.join(sorted(names))}: write a rule for"
            " each of them"
        )
    if names[0] in await _read_by(client, EVENTS):
        raise TargetRefused(
            f"rule {rule}: {EVENTS} sources {names[0]}, which holds {subject}: the rule would read"
            " what it writes"
        )
    info = await _info(client, names[0])
    return Holder(names[0], info.config.allow_atomic, info.state.last_seq)


async def last_seq(client: LinkClient, stream: str) -> int:
    """Raises TargetAway: JetStream does not answer."""
    return (await _info(client, stream)).state.last_seq


async def _read_by(client: LinkClient, stream: str) -> set[str]:
    """The streams whose messages come into `stream`, however far the way."""
    found: set[str] = set()
    left = [stream]
    while left and len(found) < _SOURCES_MAX:
        config = (await _info(client, left.pop())).config
        sources = [*(config.sources or []), *([config.mirror] if config.mirror else [])]
        fresh = {source.name for source in sources} - found
        found |= fresh
        left += fresh
    return found


async def _info(client: LinkClient, stream: str) -> _Info:
    info: _Info = await _ask(client, f"$JS.API.STREAM.INFO.{stream}", b"", _Info)
    if info.error is not None:
        if info.error.err_code == _NO_STREAM:
            return _Info()  # a source in another account or domain
        raise TargetAway(f"stream {stream}: {info.error.description}")
    return info


async def _ask(client: LinkClient, subject: str, body: bytes, kind: type[Any]) -> Any:
    try:
        answer = await client.request(subject, body, timeout=_TIMEOUT_S)
    except (nats.errors.Error, TimeoutError) as exc:
        raise TargetAway(f"JetStream does not answer: {exc or type(exc).__name__}") from exc
    return msgspec.json.decode(answer.data, type=kind)
