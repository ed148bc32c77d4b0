"""Thousands of connected devices that each send a message now and then, for little CPU.

The process is `python -m loadtest.devices.prepared`, and there can be several, because the
descriptors of a process are limited. It has no event loop: a device has one message in flight, and
its ack is read when its next turn to send comes. So a message costs two system calls, where a loop
would wake for each ack. A device whose ack has not come by then misses its turn, which is counted.

The process reads its parameters as one JSON line on stdin and answers once all devices are
connected. The next line begins the sending. Each line from then on is answered with what was sent.
"""

import asyncio
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from loadtest.devices.child import DeviceProcess
from loadtest.devices.wire import (
    CLOSE,
    PAYLOAD,
    PING,
    PONG,
    TEXT,
    Inbound,
    ack_of,
    handshake_request,
    hello,
    is_welcome,
    masked_frame,
)
from loadtest.errors import TargetError

_AT_ONCE: Final = 100
_ANSWER_S: Final = 30.0
_TICK_S: Final = 0.002
_HEARD_AT_ONCE: Final = 400
"""Devices that are read beside each hundred that connect, and ten times a second before the
sending: the gateway ends a connection on which its pings are not answered."""
_HEAR_EVERY_S: Final = 0.1
_RECEIVED_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Sent:
    """What happened since the last question."""

    messages: int
    missed: int
    """Turns of devices whose message before was not acknowledged yet."""
    lost: int
    """Devices whose connection has ended, since the start."""


class PreparedDevice:
    """One device, with at most one message in flight."""

    __slots__ = ("_acked", "_inbound", "_sent", "_socket", "gone", "greeted")

    def __init__(self, connection: socket.socket) -> None:
        """
        Args:
            connection: to the gateway; its handshake has been sent.
        """
        self._socket = connection
        self._inbound = Inbound()
        self._sent = self._acked = 0
        self.greeted = False
        """Whether the welcome has come."""
        self.gone = False

    def hear(self) -> None:
        """Read what has come, if anything has."""
        try:
            data = self._socket.recv(_RECEIVED_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        if not self._inbound.upgraded:
            answer = self._inbound.answer(data)
            if answer is None:
                return
            if answer:
                self._end()
                return
            self._socket.sendall(hello("load"))
            data = b""
        for opcode, payload in self._inbound.frames(data):
            self._heard(opcode, payload)

    def _heard(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            settled = ack_of(payload)
            if settled is not None:
                self._acked = settled[0]
            elif is_welcome(payload):
                self.greeted = True
        elif opcode == PING:
            self._socket.send(masked_frame(PONG, payload))
        elif opcode == CLOSE:
            self._end()

    def turn(self) -> bool:
        """Send a message, unless the one before is not acknowledged. Whether one was sent."""
        if self.gone:
            return False
        self.hear()
        if self.gone or self._acked < self._sent:
            return False
        self._sent += 1
        message = b'{"seq":%d,"type":"battery.low","data":%s}' % (self._sent, PAYLOAD)
        try:
            self._socket.send(masked_frame(TEXT, message))
        except OSError:
            self._end()
            return False
        return True

    def _end(self) -> None:
        self.gone = True
        self._socket.close()


def connect(port: int, tokens: Sequence[str]) -> list[PreparedDevice]:
    """Connect devices, a hundred at a time, and wait for their welcomes.

    Raises:
        TargetError: not all of them came in.
    """
    devices: list[PreparedDevice] = []
    rounds = _Rounds(devices)
    for start in range(0, len(tokens), _AT_ONCE):
        some = []
        for token in tokens[start : start + _AT_ONCE]:
            connection = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S)
            connection.sendall(handshake_request(token.encode()))
            connection.setblocking(False)
            some.append(PreparedDevice(connection))
        _wait_for_welcomes(some)
        devices += some
        rounds.hear()
    return devices


def _wait_for_welcomes(devices: Sequence[PreparedDevice]) -> None:
    deadline = time.monotonic() + _ANSWER_S
    while not all(device.greeted for device in devices):
        if any(device.gone for device in devices) or time.monotonic() > deadline:
            raise TargetError("a device was not admitted")
        time.sleep(_TICK_S)
        for device in devices:
            if not device.greeted:
                device.hear()


class _Rounds:
    """Reads one device after the other."""

    def __init__(self, devices: Sequence[PreparedDevice]) -> None:
        self._devices = devices
        self._next = 0

    def hear(self) -> None:
        """Read the next ones."""
        for _ in range(min(_HEARD_AT_ONCE, len(self._devices))):
            self._next = (self._next + 1) % len(self._devices)
            if not self._devices[self._next].gone:
                self._devices[self._next].hear()


class _Sending:
    """Turns of the devices at a rate."""

    def __init__(self, devices: Sequence[PreparedDevice], rate_per_s: float) -> None:
        self._devices = devices
        self._rate_per_s = rate_per_s
        self._began = time.monotonic()
        self._turns = self._messages = self._missed = 0

    def tick(self) -> None:
        """Give those their turn that are due. What was missed is made up for."""
        due = int((time.monotonic() - self._began) * self._rate_per_s)
        for turn in range(self._turns, due):
            if self._devices[turn % len(self._devices)].turn():
                self._messages += 1
            else:
                self._missed += 1
        self._turns = due

    def take(self) -> Sent:
        """What happened since the last call."""
        lost = sum(device.gone for device in self._devices)
        sent = Sent(self._messages, self._missed, lost)
        self._messages = self._missed = 0
        return sent


def _run() -> None:
    wanted = json.loads(sys.stdin.readline())
    devices = connect(wanted["port"], wanted["tokens"])
    print("{}", flush=True)
    rounds = _Rounds(devices)
    while not select.select([0], [], [], _HEAR_EVERY_S)[0]:
        rounds.hear()
    sys.stdin.readline()
    sending = _Sending(devices, wanted["rate_per_s"])
    print("{}", flush=True)
    while True:
        readable, _, _ = select.select([0], [], [], _TICK_S)
        if readable:
            if not os.read(0, _RECEIVED_MAX):
                return
            print(json.dumps(asdict(sending.take())), flush=True)
        sending.tick()


class PreparedDevices:
    """Such devices in several processes, as their parent uses them. A context."""

    def __init__(
        self, port: int, tokens: Sequence[str], *, rate_per_s: float, processes: int
    ) -> None:
        """
        Args:
            port: of the gateway.
            tokens: the credentials of the devices.
            rate_per_s: messages a second of all devices together.
            processes: that share them.
        """
        self._parameters = [
            {
                "port": port,
                "tokens": list(tokens[number::processes]),
                "rate_per_s": rate_per_s / processes,
            }
            for number in range(processes)
        ]
        self._processes: list[DeviceProcess] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def __aenter__(self) -> Self:
        """Connect all devices.

        Raises:
            TargetError: not all of them came in.
        """
        try:
            for _ in self._parameters:
                self._processes.append(await DeviceProcess.start("prepared"))
            await self._ask([json.dumps(each) for each in self._parameters])
        except BaseException:  # failed or cancelled, `__aexit__` is not called
            await self._end()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._end()

    async def begin(self) -> None:
        """Have the devices send."""
        await self._ask([""] * len(self._processes))

    async def sent(self) -> Sent:
        """What all of them have sent since the last call."""
        parts = await self._ask(["?"] * len(self._processes))
        return Sent(*(sum(part[name] for part in parts) for name in Sent.__slots__))

    async def _ask(self, lines: Sequence[str]) -> list[Any]:
        asked = zip(self._processes, lines, strict=True)
        return await asyncio.gather(*(process.ask(line) for process, line in asked))

    async def _end(self) -> None:
        for process in self._processes:
            await process.end()


if __name__ == "__main__":
    _run()
