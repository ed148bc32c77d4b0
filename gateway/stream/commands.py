"""Commands for devices: NATS requests on `commands.<tenant>.<device>`, answered by the device.

A request's payload is `{"type":"..","data":..}`. The node that holds the device sends it on as a
`command` frame and answers the request with the device's `result`. A node that does not hold the
device stays silent, since another node may hold it. If none does, the request times out.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from msgspec import Raw, Struct
from nats.aio.msg import Msg

from gateway.stream.nats_client import LinkClient
from tidegate.wire import frames
from tidegate.wire.errors import FrameError
from tidegate.wire.grammar import is_message_type

_log = structlog.get_logger(__name__)

SUBJECT: Final = "commands.*.*"
_WAITING_MAX: Final = 10_000


class _Request(Struct, forbid_unknown_fields=True):
    type: str
    data: Raw = Raw(b"null")  # Raw is immutable


_decode = msgspec.json.Decoder(_Request).decode

Deliver = Callable[[str, str, frames.Command], bool]
"""Sends a command to (tenant, device); False if this node does not hold it."""


class CommandInlet:
    """Requests that wait for the result of their device."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._client: LinkClient | None = None
        self._waiting: OrderedDict[tuple[str, str, str], tuple[Msg, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    async def on_up(self, client: LinkClient) -> None:
        """Subscribe to requests on a fresh connection."""
        self._client = client
        await client.subscribe(SUBJECT, cb=self._on_request)

    def on_result(self, tenant: str, device: str, result: frames.Result) -> bool:
        """A device answered. False if no request waits for that answer."""
        waiting = self._waiting.pop((tenant, device, result.id), None)
        if waiting is None or self._client is None:
            return False
        request, _type = waiting
        self._answer(request, msgspec.json.encode(result))
        return True

    async def _on_request(self, msg: Msg) -> None:
        _commands, tenant, device = msg.subject.split(".")
        try:
            frames.check_utf8(msg.data)  # the device would have to close on it
            request = _decode(msg.data)
            if not is_message_type(request.type):
                raise msgspec.ValidationError("type is not one to eight tokens joined by dots")
        except (FrameError, msgspec.DecodeError, RecursionError) as exc:
            self._answer(msg, msgspec.json.encode({"error": "request", "detail": str(exc)}))
            return
        command = frames.Command(secrets.token_hex(8), request.type, request.data)
        # Register the request before the command is sent: the answer may come in the same turn.
        if msg.reply:
            self._waiting[tenant, device, command.id] = (msg, request.type)
        if not self._deliver(tenant, device, command):
            self._waiting.pop((tenant, device, command.id), None)
        elif len(self._waiting) > _WAITING_MAX:
            key, _forgotten = self._waiting.popitem(last=False)
            _log.warning("command_forgotten", tenant=key[0], device=key[1], waiting=_WAITING_MAX)

    def _answer(self, request: Msg, payload: bytes) -> None:
        if self._client is not None and request.reply:
            reply = request.reply.encode()
            self._client.write(b"PUB %s %d\r\n%s\r\n" % (reply, len(payload), payload))
