"""One process of a worker, as its supervisor sees it: from its start to its end."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from gateway import tasks
from gateway.child_processes import dying_with_parent, end
from gateway.supervisor.looks import Looks, Snapshot
from gateway.supervisor.messages import (
    LINE_BYTES_MAX,
    Failed,
    HandOver,
    Listening,
    Look,
    Seen,
    Serving,
    Stop,
    Write,
    Written,
    line_of,
    parse_to_supervisor,
)
from gateway.supervisor.worker_client import WorkerSilent
from gateway.supervisor.worker_files import WorkerFiles

_log = structlog.get_logger(__name__)

_KILL_AFTER_S: Final = 10.0
"""A worker that is told to stop at once has so long."""
_LAST_LINES_S: Final = 1.0
"""What an ended process has said last is in the socket already."""


class WorkerProcess:
    """One process. Its worker may have others before and after it."""

    def __init__(
        self,
        number: int,
        hand_over: Callable[[int], HandOver],
        files: WorkerFiles,
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            number: of its worker, from 1.
            hand_over: says what it is to be, when it is started.
            files: writes for it.
            on_failure: hears of a failure of this part.
        """
        self._number = number
        self._hand_over = hand_over
        self._files = files
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._crew = tasks.Crew(on_failure)
        self._looks = Looks()
        self.listening = asyncio.Event()
        self.serving = asyncio.Event()
        self.reason = ""
        """Why it ended, as it said itself."""
        self.stopping = False
        """Whether it has been told to stop."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    async def start(self) -> None:
        """Start it, and tell it what it is to be."""
        given = self._hand_over(self._number)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gateway.supervisor"),
                *(str(self._number), str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), given.page, *given.listening),
                # A Ctrl-C at the terminal must reach the supervisor only, which drains all workers.
                start_new_session=True,
                # At once: NATS ends too, so a stop in order would wait for its answers in vain, and
                # keep the port from the next supervisor. A worker that hangs would never free it.
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
        self._writer.write(line_of(given))
        self._hearing = self._crew.start(self._hear(reader), f"worker-{self._number}")

    async def wait(self) -> int:
        """Wait for its end. Returns its status, negative for a signal."""
        assert self._process is not None
        status = await self._process.wait()
        if self._hearing is not None:
            await asyncio.wait({self._hearing}, timeout=_LAST_LINES_S)
        await self._crew.close()
        if self._writer is not None:
            self._writer.close()
        return status

    def stop(self, leaving: int, *, now: bool) -> None:
        """Have it drain and end.

        Args:
            leaving: the other workers that stop at the same time.
            now: without a drain.
        """
        self.stopping = True
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(line_of(Stop(leaving, now)))

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on."""
        if self._process is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self, reason: str) -> None:
        """End it at once: it does not do what it is told.

        Args:
            reason: of its end, for the log.
        """
        self.reason = reason
        self.signal(signal.SIGKILL)

    async def look(self) -> Snapshot | None:
        """Ask it for a snapshot.

        Returns:
            None if it could take none.

        Raises:
            WorkerSilent: there is no answer in time.
        """
        if self._writer is None or self._writer.is_closing():
            raise WorkerSilent(f"worker {self._number} has ended")
        number = self._looks.ask()
        self._writer.write(line_of(Look(number)))
        return await self._looks.answer(number)

    async def end(self) -> None:
        """End it within seconds, whatever it does."""
        if self._process is None:
            return
        self.stop(0, now=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_AFTER_S):
                await self._process.wait()
        await end(self._process, f"worker-{self._number}", _KILL_AFTER_S)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                await self._heard(line)
        except (ConnectionError, ValueError, msgspec.DecodeError) as exc:
            # Killed, or it wrote half a line: its end says the rest.
            _log.warning("worker_unheard", worker=self._number, error=repr(exc))

    async def _heard(self, line: bytes) -> None:
        match parse_to_supervisor(line):
            case Listening():
                self.listening.set()
            case Serving():
                self.serving.set()
            case Failed(reason):
                self.reason = reason
            case Seen(number, snapshot):
                self._looks.answered(number, snapshot)
            case Write(number, name, text):
                error = await self._files.write(name, text)
                if error:
                    _log.error("worker_file_not_written", file=name, error=error)
                if number and self._writer is not None:
                    self._writer.write(line_of(Written(number, error)))


def reason_of(process: WorkerProcess, status: int) -> str:
    """Why a process ended: in its own words, or by its status."""
    if process.reason:
        return process.reason
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}"
