"""The bucket that holds the leases of rules, as one process sees it.

The server may sync each write, and a process may run a hundred rules, each of which shows a sign of
life every second. So records that are written while another write is under way go together, in one
atomic batch (ADR-50), in which each record keeps its own compare-and-set. If the batch is refused,
because one of them has changed, they go one by one.

It is a JetStream key-value bucket (`nats kv get TIDEGATE_RULES <name>`). nats-py's own client is
not used: it would need the right to read every bucket.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

from gateway.consumers.errors import TargetAway
from gateway.stream.api_error import ApiError
from gateway.stream.link.client import LinkClient
from gateway.stream.names import EVENTS
from gateway.stream.reading.reader import Link

BUCKET: Final = "TIDEGATE_RULES"
STREAM: Final = f"KV_{BUCKET}"
BATCH_MAX: Final = 500
_TIMEOUT_S: Final = 2.0
_WRONG_SEQUENCE: Final = 10071
_NO_MESSAGE: Final = 10037
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"


class _Message(Struct):
    seq: int
    data: bytes = b""


class _Got(Struct):
    message: _Message | None = None
    error: ApiError | None = None


class _PubAck(Struct):
    seq: int = 0
    count: int = 0
    error: ApiError | None = None


class _Write:
    """One record on its way."""

    __slots__ = ("data", "done", "revision", "subject")

    def __init__(self, subject: str, revision: int, data: bytes) -> None:
        self.subject = subject
        self.revision = revision
        self.data = data
        self.done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()


class LeaseBucket:
    """Reads and writes records by name."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._opened: LinkClient | None = None
        self._opening = asyncio.Lock()
        self._atomic = False
        self._waiting: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the bucket if there is none.

        Raises:
            TargetAway: NATS does not answer.
        """
        async with self._opening:
            client = self._client()
            if client is self._opened:
                return
            try:
                self._atomic = await _made(client.jetstream(timeout=_TIMEOUT_S))
            except (nats.errors.Error, TimeoutError) as exc:
                raise TargetAway(f"the leases of rules cannot be read: {exc or type(exc)}") from exc
            self._opened = client

    async def read(self, name: str) -> tuple[int, bytes]:
        """A record's revision and content; 0 if there is none.

        Raises:
            TargetAway: NATS does not answer.
        """
        wanted = msgspec.json.encode({"last_by_subj": _subject(name)})
        try:
            # Of the stream's leader: a replica may be behind.
            answer = await self._client().request(
                f"$JS.API.STREAM.MSG.GET.{STREAM}", wanted, timeout=_TIMEOUT_S
            )
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"a lease was not read: {exc or type(exc).__name__}") from exc
        got = msgspec.json.decode(answer.data, type=_Got)
        if got.error is not None and got.error.err_code != _NO_MESSAGE:
            raise TargetAway(f"a lease was not read: {got.error.description}")
        return (got.message.seq, got.message.data) if got.message is not None else (0, b"")

    async def write(self, name: str, revision: int, data: bytes) -> int | None:
        """Replace a record, if it has not changed since `revision`.

        Returns:
            The new revision, None if it was changed.

        Raises:
            TargetAway: it is not known whether it was stored.
        """
        write = _Write(_subject(name), revision, data)
        self._waiting.append(write)
        if self._writing is None:
            # A task of its own: a caller may be cancelled while the others still wait.
            self._writing = asyncio.create_task(self._write_all(), name="leases-write")
        return await write.done

    async def _write_all(self) -> None:
        """Write until nothing waits. Each waiting call raises its own failure."""
        try:
            while self._waiting:
                writes, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                try:
                    await self._write_these(writes)
                except msgspec.MsgspecError as exc:
                    for write in writes:
                        _fail(write, f"the answer is no PubAck: {exc}")
        finally:
            self._writing = None

    async def _write_these(self, writes: Sequence[_Write]) -> None:
        if len(writes) == 1 or not (self._atomic and await self._stored_together(writes)):
            await asyncio.gather(*map(self._store, writes))

    async def _stored_together(self, writes: Sequence[_Write]) -> bool:
        """Whether the batch was settled; else nothing of it is stored."""
        client, batch_id = self._opened, secrets.token_hex(11)
        *staged, last = enumerate(writes, 1)
        commands = b"".join(_staged(write, batch_id, place) for place, write in staged)
        if client is None or not client.write(commands):
            return False
        headers = {
            _EXPECTED: str(last[1].revision),
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(last[0]),
            "Nats-Batch-Commit": "1",
        }
        try:
            answer = await client.request(
                last[1].subject, last[1].data, timeout=_TIMEOUT_S, headers=headers
            )
        except (nats.errors.Error, TimeoutError) as exc:
            for write in writes:
                _fail(write, f"{exc or type(exc).__name__}")
            return True
        ack = msgspec.json.decode(answer.data, type=_PubAck)
        if ack.error is not None or ack.count != len(writes):
            return False
        for revision, write in enumerate(writes, ack.seq - len(writes) + 1):
            _settle(write, revision)
        return True

    async def _store(self, write: _Write) -> None:
        try:
            answer = await self._client().request(
                write.subject,
                write.data,
                timeout=_TIMEOUT_S,
                headers={_EXPECTED: str(write.revision)},
            )
        except (TargetAway, nats.errors.Error, TimeoutError) as exc:
            _fail(write, f"{exc or type(exc).__name__}")
            return
        ack = msgspec.json.decode(answer.data, type=_PubAck)
        if ack.error is None:
            _settle(write, ack.seq)
        elif ack.error.err_code == _WRONG_SEQUENCE:
            _settle(write, None)
        else:
            _fail(write, ack.error.description)

    def _client(self) -> LinkClient:
        client = self._link.client
        if client is None:
            raise TargetAway("NATS is away")
        return client


def _subject(name: str) -> str:
    return f"$KV.{BUCKET}.{name}"


def _settle(write: _Write, revision: int | None) -> None:
    if not write.done.done():
        write.done.set_result(revision)


def _fail(write: _Write, reason: str) -> None:
    if not write.done.done():
        write.done.set_exception(TargetAway(f"a lease was not stored: {reason}"))


def _staged(write: _Write, batch_id: str, place: int) -> bytes:
    headers = (
        f"NATS/1.0\r\n{_EXPECTED}: {write.revision}\r\n"
        f"Nats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: {place}\r\n\r\n"
    ).encode()
    sizes = f"{len(headers)} {len(headers) + len(write.data)}"
    return f"HPUB {write.subject} {sizes}\r\n".encode() + headers + write.data + b"\r\n"


async def _made(jetstream: JetStreamContext) -> bool:
    """Make the bucket if there is none. Whether it allows atomic batches."""
    try:
        found = await jetstream.stream_info(STREAM)
    except nats.js.errors.NotFoundError:
        found = await jetstream.add_stream(
            StreamConfig(
                STREAM,
                subjects=[f"$KV.{BUCKET}.>"],
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
                allow_rollup_hdrs=True,
                allow_atomic=True,
                deny_delete=True,
                allow_direct=False,
                num_replicas=await _replicas(jetstream),
            )
        )
    return bool(found.config.allow_atomic)


async def _replicas(jetstream: JetStreamContext) -> int:
    """A lease is kept as safely as the events."""
    return (await jetstream.stream_info(EVENTS)).config.num_replicas or 1
