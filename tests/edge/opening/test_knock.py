"""A knock on one end of a socket pair: when it is answered, and what becomes of the socket."""

import asyncio
import socket

import pytest

from gateway.admission.credential import Identity
from gateway.admission.outcome import Refuse
from gateway.edge.errors import Refusal
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.knock import KnockContext
from gateway.edge.opening.petition import Petition
from gateway.edge.opening.refusal import bad_request
from gateway.edge.ports import Granted
from support.waiting import eventually
from tidegate.wire import frames

DEVICE = Identity("veh-1", "default", "", urgent=False, jti="", expires_at=2**40)
HEAD = (
    f"GET {frames.PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Protocol: {frames.SUBPROTOCOL}\r\nAuthorization: Bearer a.b.c\r\n\r\n"
).encode()
PETITION = Petition("a.b.c", "")


class Gate:
    def __init__(self):
        self.answer = DEVICE
        self.inside, self.gone, self.asked = {}, [], []

    def arrived(self, visitor, *, anonymous):
        self.inside[visitor] = anonymous

    def left(self, visitor):
        self.inside.pop(visitor, None)

    def decide(self, petition, address, visitor):
        self.asked.append((petition, address, visitor))
        if isinstance(self.answer, Refusal):
            raise self.answer
        return self.answer

    def hung_up(self, visitor):
        self.gone.append(visitor)


class Observer(EdgeObserver):
    def __init__(self):
        self.refusals, self.lost = [], 0

    def refused(self, error, reason):
        self.refusals.append((error, reason))

    def answer_lost(self):
        self.lost += 1


class Wheel:
    def __init__(self):
        self.armed = []

    def schedule(self, deadline, _due_at):
        self.armed.append(deadline)

    def cancel(self, deadline):
        self.armed.remove(deadline)


class Rig:
    def __init__(self):
        self.gate, self.observer, self.wheel = Gate(), Observer(), Wheel()
        self.connected = []
        self.context = KnockContext(
            gate=self.gate,
            wheel=self.wheel,
            observer=self.observer,
            loop=asyncio.get_running_loop(),
            head_bytes_max=1_000,
            head_timeout_s=5.0,
            connect=lambda *admitted: self.connected.append(admitted),
        )
        self.device, accepted = socket.socketpair()
        self.accepted = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, accepted.detach())

    def knock(self, data=b""):
        self.device.send(data) if data else None
        self.context.knock(self.accepted, "address")

    def answer(self):
        """All that the device reads, up to the end."""
        self.device.settimeout(5)
        answer = b""
        while part := self.device.recv(4_096):
            answer += part
        return answer


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    rig.device.close()
    for accepted, *_ in rig.connected:
        accepted.close()


async def test_an_admitted_knock_goes_on_with_its_head_and_its_grant(rig):
    rig.knock(HEAD)
    assert rig.gate.asked[0][:2] == (PETITION, "address")
    assert rig.connected == [(rig.accepted, HEAD, Granted(PETITION, DEVICE))]
    assert rig.gate.inside == {}, "the gate does not count what is answered at once"


async def test_a_refused_knock_is_answered_in_one_write_and_closed(rig):
    rig.gate.answer = Refuse("rate", 2.0, "T")
    rig.knock(HEAD)
    answer = rig.answer()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Tidegate-Ticket: T" in answer
    assert rig.observer.refusals == [("admission", "rate")]


async def test_a_refusal_of_another_kind(rig):
    rig.gate.answer = bad_request("x", "y")
    rig.knock(HEAD)
    assert rig.answer().startswith(b"HTTP/1.1 400")


async def test_a_head_in_pieces_is_waited_for_among_the_anonymous(rig):
    rig.knock(HEAD[:40])
    (visitor,) = rig.gate.inside
    assert rig.gate.inside == {visitor: True}
    assert rig.wheel.armed == [visitor]
    rig.device.send(HEAD[40:])
    await eventually(lambda: rig.connected)
    assert (rig.gate.inside, rig.wheel.armed) == ({}, [])


async def test_a_head_that_takes_too_long_is_refused(rig):
    rig.knock(HEAD[:40])
    (visitor,) = rig.gate.inside
    visitor.on_due(5.0)
    assert rig.answer().startswith(b"HTTP/1.1 400")
    assert rig.observer.refusals == [("bad_request", "head_timeout")]


async def test_a_head_beyond_its_limit_is_refused(rig):
    rig.knock(b"GET / HTTP/1.1\r\nX: " + b"y" * 1_100)
    assert rig.answer().startswith(b"HTTP/1.1 400")
    assert rig.observer.refusals == [("bad_request", "head_size")]


async def test_a_head_that_the_scan_cannot_read_goes_to_the_full_parser(rig):
    head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    rig.knock(head)
    assert rig.connected == [(rig.accepted, head, None)]
    assert rig.gate.asked == []


async def test_a_peer_that_goes_without_a_word_is_counted(rig):
    rig.device.shutdown(socket.SHUT_WR)
    rig.knock()
    assert rig.observer.refusals == [("bad_request", "gone")]
    assert rig.answer() == b""


async def test_a_visitor_that_waits_may_be_admitted_later(rig):
    rig.gate.answer = None
    rig.knock(HEAD)
    (visitor,) = rig.gate.inside
    assert rig.gate.inside == {visitor: False}
    visitor.on_due(5.0)  # the deadline was that of the head
    visitor.admitted(DEVICE)
    assert rig.connected == [(rig.accepted, HEAD, Granted(PETITION, DEVICE))]
    assert rig.gate.gone == []


async def test_a_visitor_that_waits_and_hangs_up_gives_its_place_back(rig):
    rig.gate.answer = None
    rig.knock(HEAD)
    rig.device.close()
    await eventually(lambda: rig.gate.gone)
    assert rig.gate.inside == {}


async def test_bytes_before_the_answer_end_the_wait(rig):
    rig.gate.answer = None
    rig.knock(HEAD)
    rig.device.send(b"x")
    await eventually(lambda: rig.gate.gone)
    assert b"early" in rig.answer()


async def test_an_aborted_visitor_says_that_it_has_hung_up(rig):
    rig.gate.answer = None
    rig.knock(HEAD)
    (visitor,) = rig.gate.inside
    visitor.abort("stopped")
    visitor.abort("stopped")
    assert rig.gate.gone == [visitor]
    assert rig.answer() == b""


async def test_an_answer_that_cannot_be_written_is_counted(rig):
    rig.gate.answer = None
    rig.knock(HEAD)
    (visitor,) = rig.gate.inside
    rig.device.close()
    visitor.refused(bad_request("x", "y"))
    assert rig.observer.lost == 1
