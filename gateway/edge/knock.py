"""A connection before it is let in: a bare socket, a head, and an answer of one write.

A refused knock of a storm never becomes a transport, a protocol or a parser; it costs an accept, a
read, a decision, a write and a close. Who is let in, and whatever the raw scan is unsure of, goes
on to `WebSocketConnection` with its head. With TLS there is no bare socket: it all starts there.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.admission.outcome import Refuse
from gateway.edge.errors import Refusal
from gateway.edge.head import HeadScanner, Petition
from gateway.edge.observer import EdgeObserver
from gateway.edge.refusal import bad_request, render_come_back, render_refusal
from gateway.edge.wheel import TimingWheel

HEAD_END: Final = b"\r\n\r\n"
_READ_BYTES: Final = 16_384
_DONTWAIT: Final = socket.MSG_DONTWAIT
"""Per call, so that a refused socket is never worth the call that makes it non-blocking."""
_WITH_FIN: Final = _DONTWAIT | getattr(socket, "MSG_MORE", 0)
"""More is to come, says this to Linux: the FIN. So answer and FIN go out as one packet, not two."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A knock that was let in, and on what."""

    petition: Petition
    handler: object


class Door(Protocol):
    """Who decides on knocks."""

    def arrived(self, visitor: "Visitor", *, anonymous: bool) -> None:
        """Somebody is at the door, and was not answered at once.

        Args:
            visitor: who.
            anonymous: whether nothing is known of it yet.
        """

    def left(self, visitor: "Visitor") -> None:
        """And has gone, or gone on."""

    def decide(
        self, petition: Petition, address: str, visitor: "Visitor"
    ) -> object | Refuse | None:
        """The handler of whoever is let in at once; None if `visitor` waits for an answer.

        Returns:
            `Refuse` for who is to come back in its slot: what a storm is made of is a value, not
            an exception.

        Raises:
            Refusal: it is not let in, for any other reason.
        """

    def hung_up(self, visitor: "Visitor") -> None:
        """A visitor left while it waited for an answer."""


class Visitor(Protocol):
    """Who is at the door. It can be answered from the moment it has asked until it says it left."""

    def admitted(self, handler: object) -> None:
        """Come in."""

    def refused(self, refusal: Refusal) -> None:
        """Go home."""

    def abort(self, cause: str) -> None:
        """Drop the connection at once."""


@dataclass(frozen=True, slots=True)
class KnockContext:
    """What all knocks of a listener share. Sizes in bytes, times in seconds."""

    door: Door
    wheel: TimingWheel
    observer: EdgeObserver
    loop: asyncio.AbstractEventLoop
    head_bytes_max: int
    head_timeout_s: float
    upgrade: Callable[[socket.SocketType, bytes, Granted | None], None]
    """Goes on with a socket, the bytes read from it, and the grant if there is one."""
    scanner: HeadScanner = field(default_factory=HeadScanner)

    def knock(self, accepted: socket.SocketType, address: str) -> None:
        """Somebody knocked."""
        Knock(self, accepted, address).read()


class Knock:
    """One bare socket. Tries to read at once: in a storm the head is there before we are.

    The door hears of it only if it must wait; most are answered before anybody could ask.
    """

    __slots__ = (
        "_address",
        "_context",
        "_head",
        "_petition",
        "_reading",
        "_socket",
        "_undecided",
        "due_tick",
    )

    def __init__(self, context: KnockContext, accepted: socket.SocketType, address: str) -> None:
        self._context = context
        self._socket: socket.SocketType | None = accepted
        self._address = address
        self._head = b""
        self._reading = False
        self._petition: Petition | None = None
        self._undecided = False
        self.due_tick = -1

    def abort(self, _cause: str) -> None:
        """Drop it; whoever does so counts it."""
        self._let_go()

    # Visitor

    def admitted(self, handler: object) -> None:
        assert self._petition is not None
        self._undecided = False
        self._go_on(Granted(self._petition, handler))

    def refused(self, refusal: Refusal) -> None:
        self._answer(refusal.error, refusal.reason, render_refusal(refusal))

    # Deadline

    def on_due(self, _now: float) -> None:
        if self._petition is None:
            self.refused(bad_request("head_timeout", "the request head took too long"))

    # Reading

    def read(self) -> None:  # noqa: C901  # over 10 until its room has landed (issue 14)
        """Read what is there and answer if it is enough. Called once; then by the loop."""
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
            # Talking before the answer: nothing we know does, and nothing is kept for it.
            self._hang_up(bad_request("early", "bytes before the handshake was answered"))
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
        try:
            outcome = context.door.decide(petition, self._address, self)
        except Refusal as refusal:
            self.refused(refusal)
            return
        if type(outcome) is Refuse:
            self._answer("admission", outcome.reason, render_come_back(outcome))
        elif outcome is not None:
            self._go_on(Granted(petition, outcome))
        else:
            self._undecided = True
            self._wait()  # to see it hang up

    def _look_closer(self, head: bytes) -> None:
        """The scan made nothing of it: it is not complete, too long, or for the full parser."""
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
        context.door.arrived(self, anonymous=self._petition is None)
        context.loop.add_reader(accepted, self.read)
        context.wheel.schedule(self, context.loop.time() + context.head_timeout_s)

    # Parting

    def _answer(self, error: str, reason: str, response: bytes) -> None:
        accepted, observer = self._detach(), self._context.observer
        if accepted is None:
            return
        observer.refused(error, reason)
        self._undecided = False
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
        undecided, self._undecided = self._undecided, False
        accepted = self._detach()
        if accepted is not None:
            accepted.close()
        if undecided:
            self._context.door.hung_up(self)

    def _hang_up(self, refusal: Refusal) -> None:
        """An offence while it waits: its place in the queue is given up."""
        self.refused(refusal)
        self._context.door.hung_up(self)

    def _go_on(self, granted: Granted | None) -> None:
        accepted = self._detach()
        if accepted is not None:
            self._context.upgrade(accepted, self._head, granted)

    def _detach(self) -> socket.SocketType | None:
        accepted, self._socket = self._socket, None
        if self._reading and accepted is not None:
            self._context.loop.remove_reader(accepted)
            self._context.wheel.cancel(self)
            self._context.door.left(self)
        return accepted
