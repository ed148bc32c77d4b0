"""A knock: a connection on a bare socket, with a head and an answer of one write.

A refused knock of a storm never becomes a transport, a protocol or a parser. It costs an accept, a
read, a decision, a write and a close. A knock that is admitted, or whose head the raw scan is not
sure of, goes on to `Opening` with its head. With TLS there is no bare socket: every connection
starts as an `Opening`.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.admission.credential import Identity
from gateway.admission.outcome import Refuse
from gateway.edge.errors import Refusal
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.head import HeadScanner
from gateway.edge.opening.petition import Petition
from gateway.edge.opening.refusal import bad_request, render_come_back, render_refusal
from gateway.edge.ports import Gate, Granted
from gateway.edge.wheel import TimingWheel

HEAD_END: Final = b"\r\n\r\n"
_READ_BYTES: Final = 16_384
_DONTWAIT: Final = socket.MSG_DONTWAIT
"""A flag of each call: a refused socket is not worth a call that makes it non-blocking."""
_WITH_FIN: Final = _DONTWAIT | getattr(socket, "MSG_MORE", 0)
"""MSG_MORE announces the FIN, so the answer and the FIN share one packet."""


@dataclass(frozen=True, slots=True)
class KnockContext:
    """What all knocks of a listener share. Sizes in bytes, times in seconds."""

    gate: Gate
    wheel: TimingWheel
    observer: EdgeObserver
    loop: asyncio.AbstractEventLoop
    head_bytes_max: int
    head_timeout_s: float
    connect: Callable[[socket.SocketType, bytes, Granted | None], None]
    """Takes a socket, the bytes read from it, and what it was admitted on (`Connector.connect`)."""
    scanner: HeadScanner = field(default_factory=HeadScanner)

    def knock(self, accepted: socket.SocketType, address: str) -> None:
        """Answer an accepted socket, or begin to wait for its head."""
        Knock(self, accepted, address).read()


class Knock:
    """One bare socket: a visitor of the gate.

    It reads at once, because in a storm the head is there before the accept. The gate counts it
    only if it must wait: most knocks are answered at once.
    """

    __slots__ = (
        "_address",
        "_context",
        "_head",
        "_petition",
        "_reading",
        "_socket",
        "_waiting",
        "due_tick",
    )

    def __init__(self, context: KnockContext, accepted: socket.SocketType, address: str) -> None:
        self._context = context
        self._socket: socket.SocketType | None = accepted
        self._address = address
        self._head = b""
        self._reading = False
        self._petition: Petition | None = None
        self._waiting = False
        self.due_tick = -1

    def abort(self, _cause: str) -> None:
        """Drop the socket; the caller counts it."""
        self._let_go()

    # Visitor

    def admitted(self, identity: Identity) -> None:
        assert self._petition is not None
        self._waiting = False
        self._go_on(Granted(self._petition, identity))

    def refused(self, refusal: Refusal) -> None:
        self._answer(refusal.error, refusal.reason, render_refusal(refusal))

    # Deadline

    def on_due(self, _now: float) -> None:
        if self._petition is None:
            self.refused(bad_request("head_timeout", "the request head took too long"))

    # Reading

    def read(self) -> None:
        """Read what is there, and answer if it is enough. Called once, and then by the loop."""
        accepted, context = self._socket, self._context
        if accepted is None:
            return
        try:
            data = accepted.recv(_READ_BYTES, _DONTWAIT)
        except (BlockingIOError, InterruptedError):
            self._wait()
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        if self._petition is not None:
            # The peer sent bytes before it was answered. No known client does; nothing is kept.
            self.refused(bad_request("early", "bytes before the handshake was answered"))
            context.gate.hung_up(self)
            return
        head = self._head = self._head + data
        size_max = context.head_bytes_max + len(HEAD_END)
        petition = None
        if head.endswith(HEAD_END) and len(head) <= size_max:
            petition = context.scanner.scan(head)
        if petition is None:
            self._look_closer(head)
            return
        self._petition = petition
        self._ask(petition)

    def _ask(self, petition: Petition) -> None:
        try:
            outcome = self._context.gate.decide(petition, self._address, self)
        except Refusal as refusal:
            self.refused(refusal)
            return
        if isinstance(outcome, Refuse):
            self._answer("admission", outcome.reason, render_come_back(outcome))
        elif outcome is not None:
            self._go_on(Granted(petition, outcome))
        else:
            self._waiting = True
            self._wait()  # to see it hang up

    def _look_closer(self, head: bytes) -> None:
        """The scan could not read the head: it is incomplete, too long, or for the full parser."""
        end, limit = head.find(HEAD_END), self._context.head_bytes_max
        if end < 0 and len(head) <= limit:
            self._wait()
        elif end < 0 or end > limit:
            self.refused(bad_request("head_size", f"the request head is over {limit} bytes"))
        else:
            self._go_on(None)

    def _wait(self) -> None:
        if self._reading:
            return
        context, accepted = self._context, self._socket
        assert accepted is not None
        self._reading = True
        context.gate.arrived(self, anonymous=self._petition is None)
        context.loop.add_reader(accepted, self.read)
        context.wheel.schedule(self, context.loop.time() + context.head_timeout_s)

    # Parting

    def _answer(self, error: str, reason: str, response: bytes) -> None:
        accepted, observer = self._detach(), self._context.observer
        if accepted is None:
            return
        observer.refused(error, reason)
        self._waiting = False
        try:
            accepted.send(response, _WITH_FIN)
        except OSError:
            observer.answer_lost()  # it hung up without waiting for the answer
        accepted.close()

    def _gone(self) -> None:
        if self._petition is None:
            self._context.observer.refused("bad_request", "gone")
        self._let_go()

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, False
        accepted = self._detach()
        if accepted is not None:
            accepted.close()
        if waiting:
            self._context.gate.hung_up(self)

    def _go_on(self, granted: Granted | None) -> None:
        accepted = self._detach()
        if accepted is not None:
            self._context.connect(accepted, self._head, granted)

    def _detach(self) -> socket.SocketType | None:
        accepted, self._socket = self._socket, None
        if self._reading and accepted is not None:
            self._context.loop.remove_reader(accepted)
            self._context.wheel.cancel(self)
            self._context.gate.left(self)
        return accepted
