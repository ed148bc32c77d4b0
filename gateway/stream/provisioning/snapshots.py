"""Snapshots of streams: one stream to a file, and back from it.

The server sends a snapshot as chunks of one compressed archive and waits for an acknowledgement of
each, so a slow disk here slows the server's reading, and nothing piles up. The messages are those
that were stored when the snapshot began; the stream goes on meanwhile.

Protocol: `$JS.API.STREAM.SNAPSHOT.<stream>` and `$JS.API.STREAM.RESTORE.<stream>` of nats-server
(`server/jetstream_api.go`). A snapshot has the form that the tool `nats stream backup` writes, so
that `nats stream restore` reads it, too: `backup.json` and `stream.tar.s2`.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import nats.errors
from msgspec import Raw, Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gateway.stream.api_error import ApiError
from gateway.stream.errors import SnapshotError

DESCRIPTION: Final = "backup.json"
ARCHIVE: Final = "stream.tar.s2"

_CHUNK_BYTES: Final = 128 * 1024
_ANSWER_S: Final = 600.0
"""How long the server may take to check every message of the stream, before it sends the first."""
_CHUNK_S: Final = 30.0
"""How long the server may take for the next chunk."""
_RESTORED_S: Final = 600.0
"""How long the server may take to make a stream of the whole archive."""
_COMPLETE: Final = "204"
"""Status of the message behind the last chunk."""


class Snapshot(Struct):
    """What is known of a snapshot that was written."""

    stream: str
    messages: int
    first_seq: int
    last_seq: int
    bytes: int
    """Of the archive."""
    sha256: str
    """Of the archive, in hexadecimal digits."""


class _State(Struct):
    messages: int
    first_seq: int
    last_seq: int


class _Described(Struct):
    """An answer of the server. Its other members are kept in the file as they are."""

    error: ApiError | None = None
    state: _State | None = None
    deliver_subject: str = ""


_decode = msgspec.json.Decoder(_Described).decode


async def save(client: Client, stream: str, directory: Path) -> Snapshot:
    """Write a snapshot of `stream`, with the state of its durable consumers, to `directory`.

    Both files are on disk when this returns.

    Raises:
        SnapshotError: the server refused, or stopped sending.
        OSError: the disk refused.
        nats.errors.Error: the server did not answer.
    """
    _make(directory)
    inbox = client.new_inbox()
    chunks = await client.subscribe(inbox)
    try:
        request = {"deliver_subject": inbox, "chunk_size": _CHUNK_BYTES, "jsck": True}
        answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.{stream}", request, stream)
        state = _decode(answer).state
        if state is None:
            raise SnapshotError(f"{stream}: the server described no state")
        digest, size = hashlib.sha256(), 0
        with _synced(directory / ARCHIVE) as file:
            while chunk := await _next_chunk(chunks, stream):
                file.write(chunk.data)
                digest.update(chunk.data)
                size += len(chunk.data)
                if chunk.reply:  # the last chunk, which is not full, asks for no acknowledgement
                    await client.publish(chunk.reply)
        with _synced(directory / DESCRIPTION) as file:
            file.write(answer)
    finally:
        await chunks.unsubscribe()
    return Snapshot(
        stream, state.messages, state.first_seq, state.last_seq, size, digest.hexdigest()
    )


def verify(snapshot: Snapshot, directory: Path) -> None:
    """Check that the archive in `directory` is the one that was written.

    Raises:
        SnapshotError: it is damaged.
        OSError: it cannot be read.
    """
    with (directory / ARCHIVE).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != snapshot.sha256:
        raise SnapshotError(
            f"{directory / ARCHIVE} is damaged: its digest is not that of {snapshot.stream}"
        )


async def load(client: Client, snapshot: Snapshot, directory: Path) -> None:
    """Make a stream of the snapshot in `directory`. There must be no stream of that name.

    The stream has the sequences and the creation time of the one that was saved.

    Raises:
        SnapshotError: `backup.json` is damaged, or the server refused.
        OSError: the files cannot be read.
        nats.errors.Error: the server did not answer.
    """
    stream = snapshot.stream
    try:
        described = msgspec.json.decode((directory / DESCRIPTION).read_bytes(), type=dict[str, Raw])
        request = {"config": described["config"], "state": described["state"]}
    except (msgspec.DecodeError, KeyError) as exc:
        raise SnapshotError(f"{directory / DESCRIPTION} is damaged: {exc}") from None
    answer = await _ask(client, f"$JS.API.STREAM.RESTORE.{stream}", request, stream)
    subject = _decode(answer).deliver_subject
    with (directory / ARCHIVE).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            # The answer to a chunk is empty unless the server gives up.
            answered = await client.request(subject, chunk, timeout=_CHUNK_S)
            _refuse_error(answered.data, stream)
    done = await client.request(subject, b"", timeout=_RESTORED_S)
    _refuse_error(done.data, stream)


async def _ask(client: Client, subject: str, request: dict[str, Any], stream: str) -> bytes:
    answer = await client.request(subject, msgspec.json.encode(request), timeout=_ANSWER_S)
    _refuse_error(answer.data, stream)
    return answer.data


def _refuse_error(answer: bytes, stream: str) -> None:
    error = _decode(answer).error if answer else None
    if error is not None:
        raise SnapshotError(f"{stream}: {error.description or 'refused'}")


async def _next_chunk(chunks: Subscription, stream: str) -> Msg | None:
    """The next chunk; None at the end of the archive."""
    try:
        chunk = await chunks.next_msg(timeout=_CHUNK_S)
    except nats.errors.TimeoutError:
        raise SnapshotError(f"{stream}: no more was sent within {_CHUNK_S:.0f} s") from None
    if chunk.data:
        return chunk
    # An archive of less than one chunk can end without a status.
    status = (chunk.headers or {}).get("Status", _COMPLETE)
    if status != _COMPLETE:
        why = (chunk.headers or {}).get("Description", "")
        raise SnapshotError(f"{stream}: the server stopped sending: {status} {why}".rstrip())
    return None


def _make(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True)


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file, readable by its owner only, which is on disk at the end of the block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(descriptor)
