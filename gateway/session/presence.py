"""Presence facts: when each device came and went, and which of them is the truth. Pure.

A fact is about one session. The fence orders the sessions of a device on all nodes; of one session,
its end comes after its beginning. So whatever the order in which facts arrive, the one with the
highest fence says whether the device is online (`newer`). Two nodes may write about one device at
the same time: the end of a session that was taken over carries the lower fence of that session, and
never wins.

A fact is stored on `presence.<tenant>.<device>` of the stream PRESENCE.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from tidegate.wire.grammar import is_token

CONNECTED: Final = "connected"
LOST: Final = "lost"
TAKEN_OVER: Final = "taken_over"
NODE_LOST: Final = "node_lost"
REVOKED: Final = "revoked"
EXPIRED: Final = "expired"
DRAINED: Final = "drained"

_CAUSES: Final = {
    "taken_over": TAKEN_OVER,
    "revoked": REVOKED,
    "credential": EXPIRED,
    "drain": DRAINED,
    "stopped": DRAINED,
    "lost": LOST,
    "half_open": LOST,
    "slow_reader": LOST,
    "close_timeout": LOST,
}
"""Causes by the label with which the connection ended."""
_cause = re.compile(r"[a-z_]{1,32}(?: [0-9]{1,5})?").fullmatch
"""Causes of later versions too, and nothing that a terminal would obey."""
_NO_CLOSE: Final = 1006
"""RFC 6455 section 7.1.5: the connection ended without a close frame."""
_SUBJECT_TOKENS: Final = 3

Key = tuple[str, str]
"""Tenant and device."""


def cause_of(label: str, code: int, *, drained: bool = False) -> str:
    """Why a session ended, in the words of a presence fact.

    Args:
        label: why its connection ended, of a fixed set.
        code: of the close frame; 1006 without one.
        drained: whether the device had been sent to another node.
    """
    if drained and label in ("device", "lost"):
        return DRAINED
    known = _CAUSES.get(label)
    if known is not None:
        return known
    return LOST if code == _NO_CLOSE else f"closed {code}"


class Fact(Struct, frozen=True, gc=False):
    """That a session of a device has begun, or has ended."""

    tenant: str
    device: str
    online: bool
    session: str
    fence: int
    cause: str
    node: str
    time: float
    """Unix time, seconds."""
    group: str = ""

    @property
    def key(self) -> Key:
        return self.tenant, self.device

    @property
    def subject(self) -> str:
        return f"presence.{self.tenant}.{self.device}"

    @property
    def message_id(self) -> str:
        """The same for every writer of this fact, so that a repeat is stored once."""
        state = "online" if self.online else "offline"
        return f"{self.tenant}:{self.device}:{self.fence}:{state}"

    def ended(self, cause: str, time: float, node: str) -> "Fact":
        """The fact that this session has ended.

        Args:
            cause: why.
            time: Unix time, seconds.
            node: which says so.
        """
        return Fact(
            self.tenant, self.device, False, self.session, self.fence, cause, node, time, self.group
        )


def newer(fact: Fact, other: Fact) -> bool:
    """Whether `fact` says something later than `other` about the same device."""
    if fact.fence != other.fence:
        return fact.fence > other.fence
    return other.online and not fact.online


class _Body(Struct, omit_defaults=True):
    """The payload of a fact."""

    online: bool
    session: str
    fence: int
    cause: str
    node: str
    time: str
    group: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Body).decode


@lru_cache(maxsize=16)
def _second(unix_s: int) -> str:
    """A second as text. Facts of a storm have few of them, and each costs as much as a payload."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[: len("2026-11-23T10:00:00")]


def payload_of(fact: Fact) -> bytes:
    """A fact as it is stored."""
    seconds, microseconds = divmod(round(fact.time * 1e6), 1_000_000)
    return _encode(
        _Body(
            fact.online,
            fact.session,
            fact.fence,
            fact.cause,
            fact.node,
            f"{_second(seconds)}.{microseconds // 1_000:03}Z",
            fact.group,
        )
    )


def read_fact(subject: str, payload: bytes) -> Fact | None:
    """A stored fact; None if it is none, because other programs may write to the stream."""
    tokens = subject.split(".")
    if len(tokens) != _SUBJECT_TOKENS or not all(map(is_token, tokens)):
        return None
    try:
        body = _decode(payload)
        time = datetime.fromisoformat(body.time).timestamp()
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return None
    names = (body.session, body.node, body.group)
    if not all(not name or is_token(name) for name in names) or not _cause(body.cause):
        return None
    _presence, tenant, device = tokens
    return Fact(
        tenant,
        device,
        body.online,
        body.session,
        body.fence,
        body.cause,
        body.node,
        time,
        body.group,
    )


def document_of(fact: Fact) -> dict[str, Any]:
    """A fact as plain JSON, with its device."""
    return {
        "tenant": fact.tenant,
        "device": fact.device,
        **msgspec.json.decode(payload_of(fact)),
    }


class Truth:
    """The newest fact of each device, of facts that come in any order."""

    def __init__(self) -> None:
        self._newest: dict[Key, Fact] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._newest.values())

    def take(self, fact: Fact) -> bool:
        """Learn of a fact; whether it changes what is known of its device."""
        known = self._newest.get(fact.key)
        if known is not None and not newer(fact, known):
            return False
        self._newest[fact.key] = fact
        return True

    def of(self, key: Key) -> Fact | None:
        """What is known of a device."""
        return self._newest.get(key)

    def online_at(self, nodes: frozenset[str]) -> list[Fact]:
        """The devices that are online at one of these nodes."""
        return [fact for fact in self._newest.values() if fact.online and fact.node in nodes]
