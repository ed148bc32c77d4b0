"""Commands for devices: NATS requests on `commands.<tenant>.<device>`, answered by the device.

A request's payload is `{"type":"..","data":..}`. The node that holds the device sends it on as a
`command` frame and answers the request with the device's `result`. If the request has a sampled
`traceparent`, the frame names it. Each node subscribes to the devices that it holds
(`interest.py`), so nats-server answers "no responders" if no node holds the device.

The gateway itself answers `{"error":"not_understood","detail":..}` to a request that no device
could read, and `{"error":"busy","detail":..}` if the device does not read now. It is silent if the
session has ended since the request was sent: another node may hold the device already.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from msgspec import Raw, Struct

from gateway.stream.commands.chains import Chains
from gateway.stream.commands.interest import DeviceKey, Interest
from gateway.stream.header_block import sampled_trace_in
from gateway.stream.link.client import LinkClient
from tidegate.wire import frames
from tidegate.wire.depth import json_depth_exceeds
from tidegate.wire.errors import FrameError
from tidegate.wire.grammar import is_message_type

_log = structlog.get_logger(__name__)

_WAITING_MAX: Final = 10_000

NOT_UNDERSTOOD: Final = "not_understood"
"""`error` of a request that no device could read, and of a device which has no handler for it."""
BUSY: Final = "busy"
"""`error` of a device which does not read what it is sent, or is changing its outbox."""


class Request(Struct, forbid_unknown_fields=True):
    """What the sender of a command asks for."""

    type: str
    data: Raw = Raw(b"null")  # Raw is immutable


_decode = msgspec.json.Decoder(Request).decode

Deliver = Callable[[str, str, frames.Command], bool | None]
"""Sends a command to (tenant, device); None if this node does not hold it, False if it is busy."""


def read_request(data: bytes) -> Request:
    """A request that a device can read.

    Raises:
        ValueError: the payload is no request; says why.
    """
    try:
        frames.check_utf8(data)  # the device would have to close on it
        request = _decode(data)
    except (FrameError, msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from None
    if not is_message_type(request.type):
        raise ValueError("type is not one to eight tokens joined by dots")
    if json_depth_exceeds(bytes(request.data), frames.TOLD_DEPTH_MAX):
        raise ValueError(f"data nests deeper than {frames.TOLD_DEPTH_MAX} levels")
    return request


class CommandInlet:
    """Requests that wait for the result of their device."""

    def __init__(self, deliver: Deliver, chains: Chains) -> None:
        """
        Args:
            deliver: sends a command to a device of this node.
            chains: hears which device was given one.
        """
        self._deliver = deliver
        self._chains = chains
        self._client: LinkClient | None = None
        self._waiting: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        """Where the answer goes, by tenant, device and id of the command."""
        self._interest = Interest(self._on_request)

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def subscribed(self) -> int:
        """Devices that commands are heard for."""
        return len(self._interest)

    async def on_up(self, client: LinkClient) -> None:
        """Hear requests on a fresh connection."""
        self._client = client
        self._interest.on_up(client)

    def established(self, key: DeviceKey, fence: int) -> None:
        """This node holds a device: hear requests for it."""
        self._interest.established(key, fence)

    def ended(self, key: DeviceKey, fence: int, cause: str) -> None:
        """The connection of that session is gone."""
        del cause
        self._interest.ended(key, fence)

    def on_result(self, tenant: str, device: str, result: frames.Result) -> bool:
        """A device answered. False if no request waits for that answer."""
        reply = self._waiting.pop((tenant, device, result.id), None)
        if reply is None or self._client is None:
            return False
        self._answer(reply, msgspec.json.encode(result))
        return True

    def _on_request(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        _commands, tenant, device = subject.decode().split(".")
        try:
            request = read_request(data)
        except ValueError as exc:
            self._refuse(reply, NOT_UNDERSTOOD, str(exc))
            return
        trace = sampled_trace_in(headers) if headers else ""
        command = frames.Command(secrets.token_hex(8), request.type, request.data, trace=trace)
        key = (tenant, device, command.id)
        # Register the request before the command is sent: the answer may come in the same turn.
        if reply:
            self._waiting[key] = reply
        sent = self._deliver(tenant, device, command)
        if sent and headers:
            self._chains.commanded((tenant, device), headers)
        if not sent:
            self._waiting.pop(key, None)
            if sent is False:
                self._refuse(reply, BUSY, "the device does not take a command now")
        elif len(self._waiting) > _WAITING_MAX:
            forgotten, _reply = self._waiting.popitem(last=False)
            _log.warning(
                "command_forgotten", tenant=forgotten[0], device=forgotten[1], waiting=_WAITING_MAX
            )

    def _refuse(self, reply: bytes, error: str, detail: str) -> None:
        self._answer(reply, msgspec.json.encode({"error": error, "detail": detail}))

    def _answer(self, reply: bytes, payload: bytes) -> None:
        if self._client is not None and reply:
            self._client.write(b"PUB %s %d\r\n%s\r\n" % (reply, len(payload), payload))
