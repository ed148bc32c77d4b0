"""The opening handshake on a transport, from the first byte to an open connection or a refusal.

      HEAD ------> WAITING ------> (admitted: `WebSocketConnection` takes the transport over)
       |              |
       | refused      | refused, or bytes before the answer
       v              v
            REFUSED ------> the peer closes, or the close timeout passes

The full parser (`handshake.py`) judges every head, or one of the same form (`known_heads.py`), also
where the raw scan has admitted the connection.
"""

import asyncio
import enum
import http
import math
from typing import Final, cast

from gateway.admission.credential import Identity
from gateway.admission.outcome import Refuse
from gateway.edge.connection.connection import WebSocketConnection
from gateway.edge.connection.context import ConnectionContext
from gateway.edge.connection.ending import end_of_stream, peer_ended
from gateway.edge.connection.framing import close_frame
from gateway.edge.errors import Refusal
from gateway.edge.opening.handshake import Request, Upgrade, negotiate, read_request
from gateway.edge.opening.knock import HEAD_END
from gateway.edge.opening.petition import Petition, petition_of
from gateway.edge.opening.refusal import bad_request, close_of, come_back, render_refusal
from gateway.edge.ports import Granted

_SENDING_STILL: Final = ("early", "head_size")
"""Reasons of refusals after which the peer is likely to send more."""
_DROPPED_BYTES_MAX: Final = 65_536
"""What is read and dropped after a refusal, so that a reset does not overtake our answer."""
_REFUSED_BY_CLOSE: Final = (
    http.HTTPStatus.UNAUTHORIZED,
    http.HTTPStatus.FORBIDDEN,
    http.HTTPStatus.TOO_MANY_REQUESTS,
    http.HTTPStatus.SERVICE_UNAVAILABLE,
)


class Stage(enum.Enum):
    HEAD = "head"
    WAITING = "waiting"
    REFUSED = "refused"


class Opening(asyncio.Protocol):
    """One connection until it is open: a visitor of the gate."""

    __slots__ = (
        "_context",
        "_dropped_bytes",
        "_due_at",
        "_granted",
        "_head",
        "_request",
        "_stage",
        "_transport",
        "_upgrade",
        "due_tick",
    )

    def __init__(
        self, context: ConnectionContext, head: bytes = b"", granted: Granted | None = None
    ) -> None:
        """
        Args:
            context: shared by the connections of a listener.
            head: what was read from the socket already.
            granted: on what it was admitted, if the raw scan has read its petition.
        """
        self._context = context
        self._head = bytearray(head)
        self._granted = granted
        self._request: Request | None = None
        self._upgrade: Upgrade | None = None
        self._transport: asyncio.Transport | None = None
        self._stage = Stage.HEAD
        self._due_at = math.inf
        self._dropped_bytes = 0
        self.due_tick = -1

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self._context
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=context.limits.write_buffer_bytes_max)
        context.gate.arrived(self, anonymous=self._granted is None)
        self._due_at = context.loop.time() + context.limits.head_timeout_s
        if self._head:
            self._read_head(b"")
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._stage is Stage.HEAD:
            self._read_head(data)
        elif self._stage is Stage.WAITING:
            self._interrupt()
        else:
            self._drop(len(data))

    def eof_received(self) -> bool:
        transport = self._transport
        return transport is not None and peer_ended(self, transport, self._context.endings)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._stage is Stage.HEAD:
            self._context.observer.refused("bad_request", "gone")
        waited = self._stage is Stage.WAITING
        self._leave()
        if waited:
            self._context.gate.hung_up(self)

    def hang_up(self) -> None:
        """It is the turn of this connection, whose peer has ended."""
        if self._transport is not None:
            self._transport.close()

    # Visitor of the gate

    def admitted(self, identity: Identity) -> None:
        if self._stage is Stage.WAITING:
            self._open(identity)

    def refused(self, refusal: Refusal) -> None:
        if self._stage is Stage.WAITING:
            self._refuse(refusal)

    def abort(self, _cause: str) -> None:
        """Drop the connection at once; the caller counts it."""
        if self._stage is Stage.HEAD:
            self._stage = Stage.REFUSED
        if self._transport is not None:
            self._transport.abort()

    # Deadline

    def on_due(self, now: float) -> None:
        if now < self._due_at:
            return  # it was armed for the head, and the head is read
        if self._stage is Stage.HEAD:
            self._refuse(bad_request("head_timeout", "the request head took too long"))
        else:
            self.abort("close_timeout")

    def _arm(self) -> None:
        if self._due_at < math.inf:
            self._context.wheel.schedule(self, self._due_at)

    # Handshake

    def _read_head(self, data: bytes) -> None:
        head = self._head
        searched = max(0, len(head) - 3) if data else 0
        head += data
        end = head.find(HEAD_END, searched)
        limit = self._context.limits.head_bytes_max
        if end < 0 and len(head) <= limit:
            return
        if end < 0 or end > limit:
            self._refuse(bad_request("head_size", f"the request head is over {limit} bytes"))
            return
        end += len(HEAD_END)
        try:
            identity = self._ask(bytes(head[:end]))
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if identity is not None:
            self._open(identity, bytes(head[end:]))
        elif len(head) > end:
            self._interrupt()

    def _ask(self, head: bytes) -> Identity | None:
        """Ask the gate, which may answer at once or, with None, later.

        Raises:
            Refusal: the request is no handshake for us, or it is refused.
        """
        context, granted = self._context, self._granted
        known = context.known_heads.read(head)
        if known is not None:
            petition, self._upgrade = known
        else:
            petition = self._parse(head)
        if granted is not None:
            if granted.petition != petition:
                raise bad_request("ambiguous", "the request can be read in two ways")
            return granted.identity
        self._stage = Stage.WAITING
        self._due_at = math.inf  # the gate bounds how long a visitor waits
        assert self._transport is not None
        peer = self._transport.get_extra_info("peername")
        outcome = context.gate.decide(petition, peer[0] if peer else "", self)
        if isinstance(outcome, Refuse):
            raise come_back(outcome)
        return outcome

    def _parse(self, head: bytes) -> Petition:
        """Ask the full parser.

        Raises:
            Refusal: the request is no handshake for us.
        """
        context = self._context
        request = read_request(head)
        self._upgrade = negotiate(
            request,
            path=context.path,
            subprotocols=context.subprotocols,
            extensions=context.extensions,
        )
        self._request = request
        petition = petition_of(request)
        if not request.query:  # it may ask for refusals in another form
            context.known_heads.learn(head, petition, self._upgrade)
        return petition

    def _interrupt(self) -> None:
        """The peer sent bytes before it was answered. No known client does; nothing is kept."""
        self._context.gate.hung_up(self)
        self._refuse(bad_request("early", "bytes before the handshake was answered"))

    def _drop(self, size: int) -> None:
        """The peer sends on after its refusal: read nothing more once it is too much."""
        self._dropped_bytes += size
        if self._dropped_bytes > _DROPPED_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def _open(self, identity: Identity, rest: bytes = b"") -> None:
        """Accept the handshake, and hand the transport over to the open connection."""
        context, upgrade, transport = self._context, self._upgrade, self._transport
        assert upgrade is not None
        assert transport is not None
        connection = WebSocketConnection(
            context, transport, context.make_handler(identity), upgrade.extensions
        )
        transport.set_protocol(connection)
        context.gate.arrived(connection, anonymous=False)
        self._leave()
        transport.write(upgrade.response)
        connection.open(rest)

    def _leave(self) -> None:
        """This object speaks for the connection no more."""
        self._stage = Stage.REFUSED
        self._due_at = math.inf
        self._context.wheel.cancel(self)
        self._request = self._upgrade = self._granted = self._transport = None
        self._context.gate.left(self)

    def _refuse(self, refusal: Refusal) -> None:
        self._stage = Stage.REFUSED
        context, transport = self._context, self._transport
        self._head.clear()
        context.observer.refused(refusal.error, refusal.reason)
        assert transport is not None
        transport.write(self._rendered(refusal))
        limits = context.limits
        sending_still = refusal.reason in _SENDING_STILL
        wait_s = limits.close_timeout_s
        if end_of_stream(transport, peer_may_send=sending_still):
            wait_s = min(wait_s, limits.tls_linger_s)
        self._due_at = context.loop.time() + wait_s
        self._arm()

    def _rendered(self, refusal: Refusal) -> bytes:
        """An HTTP answer; a close frame if the client asked for it (browsers cannot read a 503)."""
        request, upgrade = self._request, self._upgrade
        self._request = self._upgrade = None
        if (
            upgrade is None
            or request is None
            or refusal.status not in _REFUSED_BY_CLOSE
            or "refusal=close" not in request.query.split("&")
        ):
            return render_refusal(refusal)
        return upgrade.response + close_frame(*close_of(refusal))
