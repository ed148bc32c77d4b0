"""`tidegate backup` and `tidegate restore`: every stream of a gateway, to a directory and back.

The order of the snapshots matters, because the gateway and its consumers go on meanwhile. What
refers to a stream is saved before that stream: positions and facts first, events last. So a
restored position never lies beyond the end of the restored stream, and a letter whose fact of a
redrive is missing is looked up in the events.
"""

import contextlib
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client

from gateway import durable_file
from gateway.errors import BackupError
from gateway.settings import Settings
from gateway.stream.provisioning.snapshots import Snapshot, load, save, verify
from gateway.stream.server.rights import SAVED
from gateway.streams import operators_client

MANIFEST: Final = "manifest.json"
_FORM: Final = 1


class _Manifest(Struct, forbid_unknown_fields=True):
    """Written last: a directory without it is no complete backup."""

    form: int
    began: dt.datetime
    ended: dt.datetime
    snapshots: list[Snapshot]


async def back_up(settings: Settings, directory: Path, say: Callable[[str], None]) -> None:
    """Save every stream that is there to `directory`, which must not exist or be empty.

    Args:
        settings: of the gateway, which may run meanwhile.
        directory: made if missing.
        say: is called with each line for the operator.

    Raises:
        BackupError: the directory holds something.
        StreamError: NATS cannot be reached, or refused.
        GatewayError: the data directory cannot be used.
        OSError: the disk refused.
        nats.errors.Error: the server did not answer.
    """
    _make(directory)
    began = _now()
    snapshots = []
    async with operators_client(settings, name="tidegate-backup") as client:
        for name in await _streams(client):
            snapshots.append(await save(client, name, directory / name))
            say(_line(snapshots[-1]))
    if not snapshots:
        raise BackupError("there is no stream of Tidegate to save")
    manifest = _Manifest(_FORM, began, _now(), snapshots)
    durable_file.create(directory / MANIFEST, msgspec.json.encode(manifest).decode())


async def restore(settings: Settings, directory: Path, say: Callable[[str], None]) -> None:
    """Make the streams of a backup anew, in a server that has none of them.

    Raises:
        BackupError: `directory` holds no complete backup, or the server has such a stream.
        StreamError: NATS cannot be reached, a file is damaged, or the server refused.
        GatewayError: the data directory cannot be used.
        OSError: a file cannot be read.
        nats.errors.Error: the server did not answer.
    """
    manifest = _read(directory)
    for snapshot in manifest.snapshots:
        verify(snapshot, directory / snapshot.stream)
    async with operators_client(settings, name="tidegate-restore") as client:
        there = await _streams(client)
        taken = [each.stream for each in manifest.snapshots if each.stream in there]
        if taken:
            raise BackupError(
                f"{', '.join(taken)}: the server has it already. Restore into a new data directory"
                " or another server, before a gateway starts there"
            )
        for snapshot in manifest.snapshots:
            await load(client, snapshot, directory / snapshot.stream)
            say(_line(snapshot))


def _read(directory: Path) -> _Manifest:
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=_Manifest)
    except FileNotFoundError:
        raise BackupError(f"{directory} has no {MANIFEST}: it is no complete backup") from None
    except msgspec.DecodeError as exc:
        raise BackupError(f"{directory / MANIFEST} is damaged: {exc}") from None
    for snapshot in manifest.snapshots:
        if snapshot.stream not in SAVED:
            raise BackupError(f"{directory / MANIFEST} names an unknown stream")
    if manifest.form != _FORM:
        raise BackupError(f"{directory / MANIFEST} is of form {manifest.form}, not {_FORM}")
    return manifest


async def _streams(client: Client) -> list[str]:
    """The streams of Tidegate that the server has."""
    found = []
    for name in SAVED:
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await client.jetstream().stream_info(name)
            found.append(name)
    return found


def _make(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise BackupError(f"{directory} is not empty")


def _line(snapshot: Snapshot) -> str:
    return (
        f"{snapshot.stream}: {snapshot.messages:,} messages, up to {snapshot.last_seq},"
        f" {snapshot.bytes:,} bytes"
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
