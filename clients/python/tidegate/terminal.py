"""A device at a terminal: reads messages as lines of JSON, and prints acks, commands and states."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tidegate.backoff import BackoffSettings
from tidegate.clock import Clock
from tidegate.device import Device
from tidegate.errors import DeviceError, Rejected
from tidegate.exchange import Command
from tidegate.wire.frames import Reject

_LINE_BYTES_MAX: Final = 2**22
_READ_BYTES: Final = 65_536
_CHUNKS_MAX: Final = 16
_LOOK_INTERVAL_S: Final = 0.5
_PATIENCE_S: Final = 3.0
"""How long connecting may take before a line reports it. Errors are reported at once."""
_REPEAT_S: Final = 10.0
"""How often at most a new error is reported."""
_SIGNALLED: Final = 128

Say = Callable[[str], None]

ECHO: Final = object()
"""An answer that repeats the data of its command."""


@dataclass(frozen=True, slots=True)
class TerminalOptions:
    """The options of the command line."""

    urls: Sequence[str]
    credential: str
    outbox: Path
    tls: ssl.SSLContext | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)
    """For types of commands the data of the answer; `ECHO` is the command's own data."""


async def serve_terminal(options: TerminalOptions, *, stdin: int = 0) -> int:
    """Act as a device until stdin has ended and everything is acknowledged, or a signal arrives.

    Args:
        options: of the command line.
        stdin: file descriptor of the lines: a terminal, a pipe or a file.

    Returns:
        The exit code: 0, or 128 and the number of the signal.

    Raises:
        DeviceError: the device cannot be opened, or has ended, and this is why.
    """
    stop = _Stop()
    show = _Output(stop)
    device = Device(
        options.urls,
        options.credential,
        outbox=options.outbox,
        on_ack=lambda number: show.line(ack=number),
        on_reject=lambda reject: show.line(reject=_reject(reject)),
        ssl=options.tls,
        state=True,
        # A person waits, so the first attempt is spread over a tenth of a second only.
        backoff=BackoffSettings(first_retry_ms=100),
    )
    for command_type, data in options.answers.items():
        device.on(command_type)(_Answering(data, show))
    async with device:
        feeding = _feed(device, lines(stdin), show, and_stay=bool(options.answers))
        tasks = [
            asyncio.create_task(feeding, name="stdin"),
            asyncio.create_task(_show_commands(device, show), name="commands"),
            asyncio.create_task(_show_states(device, show), name="states"),
            asyncio.create_task(stop.demanded.wait(), name="stop"),
            asyncio.create_task(tell_trouble(device, _complain, Clock()), name="trouble"),
        ]
        try:
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            kept = device.pending
    if stop.signal is not None and kept:
        _complain(f"stopped; {kept} messages stay in {options.outbox}")
    return _SIGNALLED + stop.signal if stop.signal is not None else 0


class _Stop:
    """What makes the command end: SIGINT, SIGTERM, or a reader of its output that goes away."""

    def __init__(self) -> None:
        self.demanded = asyncio.Event()
        self.signal: int | None = None
        """The first signal that arrived."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        self.signal = self.signal if self.signal is not None else number
        self.demanded.set()


class _Output:
    """JSON lines on stdout. If their reader goes away, the command ends in order."""

    def __init__(self, stop: _Stop) -> None:
        self._stop = stop

    def line(self, **line: Any) -> None:
        try:
            sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # At its end Python flushes stdout: that must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._stop.demanded.set()


def _complain(words: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"tidegate: {words}\n")
        sys.stderr.flush()


async def tell_trouble(device: Device, complain: Say, clock: Clock) -> None:
    """Report why the device is not connected, and when it is connected again."""
    began = clock.monotonic()
    told, told_at = "", began - _REPEAT_S
    while True:
        await clock.sleep(_LOOK_INTERVAL_S)
        now = clock.monotonic()
        if device.connected:
            if told:
                complain("connected")
            told, told_at, began = "", now - _REPEAT_S, now
            continue
        why = device.last_error
        if why is None and now - began >= _PATIENCE_S:
            why = "no answer yet"
        if why is not None and why != told and now - told_at >= _REPEAT_S:
            complain(f"not connected: {why}; trying again")
            told, told_at = why, now


async def lines(descriptor: int) -> AsyncIterator[bytes]:
    """Lines of a terminal, a pipe or a file, without their line ends.

    A thread reads them, because an event loop cannot wait for a file. The thread is a daemon and
    reads the descriptor itself, so that a silent terminal does not keep the process from ending.

    Raises:
        ValueError: a line is longer than 4 MiB.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS_MAX)

    def read() -> None:
        chunk = b"begin"
        while chunk:
            try:
                chunk = os.read(descriptor, _READ_BYTES)
            except OSError:  # closed, or a terminal that has gone
                chunk = b""
            putting = chunks.put(chunk)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            except (RuntimeError, CancelledError):  # the loop has ended
                putting.close()
                return

    threading.Thread(target=read, name="tidegate-stdin", daemon=True).start()
    rest = b""
    while chunk := await chunks.get():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > _LINE_BYTES_MAX:
            raise ValueError(f"a line of stdin is longer than {_LINE_BYTES_MAX} bytes")
    if rest:
        yield rest


async def _feed(
    device: Device, source: AsyncIterator[bytes], show: _Output, *, and_stay: bool
) -> None:
    """Send the lines. A device that answers commands stays when they have ended."""
    try:
        async for line in source:
            await _send_line(device, line, show)
    except ValueError as exc:
        show.line(error=f"ValueError: {exc}")
    await device.flush()
    if and_stay:
        await asyncio.Event().wait()


class _Answering:
    """The handler of one type of commands."""

    def __init__(self, data: Any, show: _Output) -> None:
        self._data = data
        self._show = show

    def __call__(self, command: Command) -> Any:
        _show_command(command, self._show)
        data = command.data if self._data is ECHO else self._data
        self._show.line(result={"id": command.id, "ok": True, "data": data})
        return data


async def _show_commands(device: Device, show: _Output) -> None:
    async for command in device.commands():
        _show_command(command, show)


def _show_command(command: Command, show: _Output) -> None:
    shown = {"id": command.id, "type": command.type, "data": command.data}
    show.line(command=shown | ({"queued": True} if command.queued else {}))


async def _show_states(device: Device, show: _Output) -> None:
    async for state in device.states():
        show.line(state={"version": state.version, "desired": state.desired})


async def _send_line(device: Device, line: bytes, show: _Output) -> None:
    if not line.strip():
        return
    try:
        document = _line_object(line)
        if "result" in document:
            result = document["result"]
            await device.answer(result["id"], ok=bool(result["ok"]), data=result.get("data"))
            return
        number = await device.send(document["type"], document["data"], time=document.get("time"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, Rejected) as exc:
        show.line(error=f"{type(exc).__name__}: {exc}")
    else:
        show.line(queued=number)


def _line_object(line: bytes) -> dict[str, Any]:
    """A line of stdin.

    Raises:
        ValueError: not a JSON object, or one with unknown members.
    """
    document = json.loads(line)
    if not isinstance(document, dict):
        raise ValueError("a line is a JSON object")  # noqa: TRY004  # one error for a bad line
    unknown = document.keys() - {"type", "data", "time", "result"}
    if unknown:
        raise ValueError(f"unknown members: {', '.join(sorted(unknown))}")
    return document


def _reject(reject: Reject) -> dict[str, Any]:
    return {"seq": reject.seq, "error": reject.error, "detail": reject.detail}


__all__ = ["DeviceError", "TerminalOptions", "lines", "serve_terminal", "tell_trouble"]
