"""Reads states from STATE: of many devices by one direct get (ADR-31), of one from the leader.

Any replica answers a direct get. The end of its answer says up to which sequence it has the stream.
An answer without any message has no such end, so each request also names a subject which is known
to have a message.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
import structlog
from msgspec import Struct
from nats.aio.subscription import Subscription

from gateway.stream.api_error import ApiError
from gateway.stream.errors import NotAnswered
from gateway.stream.header_block import header_of
from gateway.stream.link.client import LinkClient
from gateway.stream.names import STATE
from gateway.stream.states.known import NO_STATE, Key, Known, desired_of, key_of, subject_of

_log = structlog.get_logger(__name__)

_ANSWER_BYTES_MAX: Final = 1_048_576
_STATUS: Final = b"NATS/1.0 "  # a message has its first header behind "NATS/1.0"
_STATUS_DIGITS: Final = slice(9, 12)
_END: Final = b"204"
_NOTHING: Final = b"404"
_SUBJECT: Final = b"Nats-Subject"
_SEQUENCE: Final = b"Nats-Sequence"
_PENDING: Final = b"Nats-Num-Pending"
_UP_TO: Final = b"Nats-UpTo-Sequence"
_NO_MESSAGE: Final = 10037
_UNKNOWN: Final = -1
"""How far the replica has the stream, if its answer does not show it."""

_encode = msgspec.json.encode


class Read(NamedTuple):
    """The answer to a direct get."""

    found: dict[Key, Known]
    up_to: int
    """The last sequence that the replica has; -1 if the answer does not show it."""
    whole: bool
    """Whether every device that was asked for and has a state is in it."""


class _Stored(Struct):
    subject: str
    seq: int
    data: bytes = b""  # msgspec undoes the base64


class _Got(Struct):
    message: _Stored | None = None
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_Got).decode


def known_from(key: Key, sequence: int, payload: bytes) -> Known:
    """What a message in STATE says. One that holds no state counts as no state at its place."""
    desired = desired_of(payload)
    if desired is None:
        _log.warning("state_malformed", tenant=key[0], device=key[1], sequence=sequence)
        return NO_STATE
    return Known(sequence, desired)


class StateReads:
    """Reads over one connection, one direct get at a time."""

    def __init__(self, client: LinkClient, timeout_s: float) -> None:
        """
        Args:
            client: the connection.
            timeout_s: how long an answer may take, in seconds.
        """
        self.client = client
        self._timeout_s = timeout_s
        self._inbox = client.new_inbox().encode()
        self._number = 0
        self._reply = b""
        self._found: dict[Key, Known] = {}
        self._ended: asyncio.Future[tuple[int, bool]] | None = None
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        subject = f"{self._inbox.decode()}.*"
        self._subscription = await self.client.subscribe_raw(subject, self._on_message)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._subscription is not None and self.client.is_connected:
            await self.client.unsubscribe_raw(self._subscription)

    async def direct(self, keys: Sequence[Key], witness: str | None) -> Read:
        """Ask any replica for the states of some hundred devices at once.

        Args:
            keys: the devices.
            witness: a subject that is known to have a message, if there is one.

        Raises:
            nats.errors.Error: the connection is lost.
            TimeoutError: the answer did not come whole in time.
        """
        subjects = {subject_of(key): None for key in keys}
        if witness is not None:
            subjects[witness] = None
        body = _encode({"multi_last": list(subjects), "max_bytes": _ANSWER_BYTES_MAX})
        self._number += 1
        self._reply = b"%b.%d" % (self._inbox, self._number)
        found: dict[Key, Known] = {}
        self._found = found
        self._ended = ended = asyncio.get_running_loop().create_future()
        # Not a direct write: it would reach the server ahead of the subscription.
        await self.client.publish(f"$JS.API.DIRECT.GET.{STATE}", body, reply=self._reply.decode())
        async with asyncio.timeout(self._timeout_s):
            up_to, whole = await ended
        return Read(found, up_to, whole)

    def _on_message(
        self, subject: bytes, _reply: bytes, payload: bytes, headers: bytes | None
    ) -> None:
        """A state, or the status that ends the answer."""
        ended = self._ended
        if ended is None or ended.done() or headers is None or subject != self._reply:
            return  # of an answer that nobody waits for any more
        if not headers.startswith(_STATUS):
            key = key_of(header_of(headers, _SUBJECT).decode())
            self._found[key] = known_from(key, int(header_of(headers, _SEQUENCE)), payload)
            return
        status = headers[_STATUS_DIGITS]
        if status == _END:
            up_to = int(header_of(headers, _UP_TO) or _UNKNOWN)
            ended.set_result((up_to, header_of(headers, _PENDING) == b"0"))
        elif status == _NOTHING:
            ended.set_result((0, True))
        else:  # a server without such reads, a stream without direct gets, too many results
            ended.set_result((_UNKNOWN, False))

    async def of_leader(self, subject: str) -> tuple[str, int, bytes] | None:
        """The last message of a subject, as the stream's leader has it.

        Returns:
            Its subject, sequence and payload; None if there is none.

        Raises:
            NotAnswered: the leader answered something unexpected.
            nats.errors.Error: it did not answer.
            TimeoutError: it did not answer in time.
        """
        answer = await self.client.request(
            f"$JS.API.STREAM.MSG.GET.{STATE}",
            _encode({"last_by_subj": subject}),
            timeout=self._timeout_s,
        )
        try:
            got = _decode(answer.data)
        except msgspec.DecodeError as exc:
            raise NotAnswered(str(exc)) from None
        if got.message is not None:
            return got.message.subject, got.message.seq, got.message.data
        if got.error is None or got.error.err_code != _NO_MESSAGE:
            raise NotAnswered(got.error.description if got.error else "no message and no error")
        return None
