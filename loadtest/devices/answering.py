"""Lean devices that answer queued commands at once, with receipts."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final

from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.senders import GatewayDevice
from loadtest.devices.wire import TEXT, hello, masked_frame

_COMMAND: Final = re.compile(rb'\{"command":\{"id":"([\w-]+)"')
_SETTLED: Final = re.compile(rb'\{"settled":"([\w-]+)"')


class Answered:
    """What became of the commands of a fleet, by id. Times in monotonic seconds."""

    def __init__(self) -> None:
        self.queued: dict[bytes, float] = {}
        """When each command was queued that no device has had yet."""
        self.waits_s: list[float] = []
        """How long each command that a device has had waited for that."""
        self.settled = 0

    def begun(self, command_id: str) -> None:
        """An operator queues it now."""
        self.queued[command_id.encode()] = monotonic()

    def arrived(self, command_id: bytes) -> None:
        """A device has it."""
        began = self.queued.pop(command_id, None)
        if began is not None:
            self.waits_s.append(monotonic() - began)


class AnsweringDevice(GatewayDevice):
    """Says `received` and `done` for each command, in one write."""

    def __init__(
        self, name: str, answered: Answered, on_ready: Callable[[], None], token: str
    ) -> None:
        super().__init__(name, Meter(0), on_ready, token)
        self._answered = answered

    def greeting(self) -> bytes:
        return hello("load", receipts=True)

    def heard(self, payload: bytes) -> None:
        command = _COMMAND.match(payload)
        if command is not None:
            self._answered.arrived(command[1])
            receipt = masked_frame(TEXT, b'{"received":"%b"}' % command[1])
            result = b'{"result":{"id":"%b","ok":true,"data":{"locked":true}}}' % command[1]
            self.write(receipt + masked_frame(TEXT, result))
        elif _SETTLED.match(payload):
            self._answered.settled += 1
        else:
            super().heard(payload)


def answering_fleet(credentials: Sequence[tuple[str, str]], answered: Answered) -> Fleet:
    """Such devices, from their names and tokens."""
    return Fleet(
        [partial(AnsweringDevice, name, answered, token=token) for name, token in credentials]
    )
