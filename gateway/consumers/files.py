"""A sink into JSON lines files: rotated, synced, and each event once.

The files hold the position: each line has the `stream_seq` of its event, and a batch counts as
written once it is synced. After a crash the newest file may end in half a line, or in whole lines
of a batch whose position was not yet recorded. Half a line is cut off. Whole lines are kept, and
the sink goes on behind them. `position.json` holds what the lines cannot (which stream it was, and
up to where events were written or buried); it is replaced atomically after each batch.

    battery-00000000000000000001.jsonl    named after its first stream sequence
    battery-00000000000000514203.jsonl
    position.json   lock
    redrives/       the same of events that were sent again, named after sequences of REDRIVES
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec

from gateway import durable_file
from gateway.consumers.errors import NotOwner, TargetAway, TargetRefused
from gateway.consumers.target import Bury, Rejected
from gateway.events.document import FilesSink
from gateway.events.event import Event
from gateway.events.position import Position
from gateway.events.redrives import RedrivenEvent

_LOCK: Final = "lock"
_POSITION: Final = "position.json"
_TAIL_BYTES: Final = 1 << 23
"""More than the longest line: a message has 4 MiB at most."""

T = TypeVar("T")


class _Line(msgspec.Struct):
    """What a sink reads back of its own lines."""

    stream_seq: int
    id: str = ""
    redrive_seq: int = 0


class _Record(msgspec.Struct):
    created: str
    seq: int
    message_id: str


class FilesTarget:
    """One folder of files. The owner holds a lock on it: one machine, one process."""

    ahead = 1

    def __init__(self, sink: FilesSink, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            sink: where, and when to begin a new file.
            clock: monotonic seconds, for the age of a file.
        """
        self._sink = sink
        self._clock = clock
        self._lock: int | None = None
        self._file: BinaryIO | None = None
        self._opened_at = 0.0
        self._position: Position | None = None

    async def open(self) -> None:
        await self._do(self._open)

    async def claim(self) -> tuple[bool, Position | None]:
        return await self._do(self._claim)

    async def beat(self) -> None:
        """A lock needs no sign of life: the system ends it with its process."""

    async def begin(self, position: Position) -> None:
        await self._do(lambda: self._remember(position))
        self._position = position

    def hand(self, events: Sequence[Event]) -> None:
        """A batch is written at once, and no other one meanwhile."""

    async def write(self, events: Sequence[Event], after: Position, bury: Bury) -> int:
        if self._lock is None:
            raise NotOwner("the folder is not locked")
        lines: list[bytes] = []
        rejected: list[Rejected] = []
        for event in events:
            try:
                lines.append(_line(event))
            except msgspec.DecodeError:
                rejected.append(Rejected(event, "json", "the event is not JSON"))
            except RecursionError:
                rejected.append(Rejected(event, "json", "the event is nested too deep to be read"))
        if rejected:
            await bury(rejected)
        await self._do(lambda: self._append(b"".join(lines), events[0].position_seq, after))
        self._position = after
        return len(rejected)

    async def release(self) -> None:
        self._unlock()

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._unlock()

    async def _do(self, work: Callable[[], T]) -> T:
        """Files block; the loop must not.

        Work that has begun is waited for, also if the sink is stopped meanwhile: the lock must not
        be given up while a thread still writes.
        """
        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            while not working.done():
                with contextlib.suppress(asyncio.CancelledError):  # it is raised below
                    await asyncio.wait({working})
            working.exception()
            raise
        except (PermissionError, NotADirectoryError, IsADirectoryError) as exc:
            raise TargetRefused(f"sink {self._sink.name}: {exc}") from exc
        except OSError as exc:
            raise TargetAway(f"sink {self._sink.name}: {exc}") from exc

    def _open(self) -> None:
        self._sink.directory.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = os.open(self._sink.directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)

    def _claim(self) -> tuple[bool, Position | None]:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False, None
        self._position = self._recover()
        return True, self._position

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # which ends the lock
            self._lock = None

    def _recover(self) -> Position | None:
        try:
            record = msgspec.json.decode(
                (self._sink.directory / _POSITION).read_bytes(), type=_Record
            )
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as exc:
            raise TargetRefused(
                f"sink {self._sink.name}: {self._sink.directory / _POSITION} is damaged ({exc})"
            ) from exc
        position = Position(record.created, record.seq, record.message_id)
        newest = max(self._files(), default=None)
        if newest is not None:
            last = _last_line(newest)
            if last is not None and last.redrive_seq > position.seq:
                position = Position(record.created, last.redrive_seq)
            elif last is not None and not last.redrive_seq and last.stream_seq > position.seq:
                position = Position(record.created, last.stream_seq, last.id)
        return position

    def _files(self) -> list[Path]:
        return list(self._sink.directory.glob(f"{self._sink.name}-*.jsonl"))

    def _append(self, block: bytes, first_seq: int, after: Position) -> None:
        file = self._current(first_seq)
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
        self._remember(after)

    def _current(self, first_seq: int) -> BinaryIO:
        sink, now = self._sink, self._clock()
        file = self._file
        if file is not None and (
            file.tell() >= sink.rotate_bytes or now - self._opened_at >= sink.rotate_s
        ):
            file.close()
            file = None
        if file is None:
            path = sink.directory / f"{sink.name}-{first_seq:020d}.jsonl"
            file = path.open("ab")
            _sync_folder(sink.directory)
            self._file, self._opened_at = file, now
        return file

    def _remember(self, position: Position) -> None:
        record = _Record(position.created, position.seq, position.message_id)
        durable_file.replace(
            self._sink.directory / _POSITION, msgspec.json.encode(record).decode() + "\n"
        )


def _line(event: Event) -> bytes:
    """
    Raises:
        msgspec.DecodeError: its data is not JSON.
        RecursionError: its data is nested too deep.
    """
    msgspec.json.decode(event.data, type=msgspec.Raw)
    line = {
        "stream_seq": event.stream_seq,
        "id": event.message_id,
        "tenant": event.tenant,
        "device": event.device,
        "type": event.type,
        "outbox": event.outbox,
        "seq": event.seq,
        "time": event.time,
        "stored_at": datetime.fromtimestamp(event.stored_at_ns / 1e9, UTC).isoformat(),
    }
    if isinstance(event, RedrivenEvent):
        line["redrive_seq"] = event.redrive_seq
    # JSON of a device may hold line ends between its tokens, never within a string.
    data = event.data.replace(b"\n", b" ").replace(b"\r", b" ")
    return msgspec.json.encode(line)[:-1] + b',"data":' + data + b"}\n"


def _last_line(path: Path) -> _Line | None:
    """The last whole line; half a line behind it is cut off.

    Raises:
        TargetRefused: the file does not end in lines of this sink.
    """
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            file.truncate(start + whole)
            os.fsync(file.fileno())
        if not whole:
            if start:
                raise TargetRefused(f"{path} ends in a line of over {_TAIL_BYTES} bytes")
            return None
        last = tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole]
    try:
        return msgspec.json.decode(last, type=_Line)
    except msgspec.DecodeError as exc:
        raise TargetRefused(f"{path} does not end in a line of this sink: {exc}") from exc


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
