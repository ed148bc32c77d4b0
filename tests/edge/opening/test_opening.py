"""The opening handshake on a transport in memory."""

import random
from http import HTTPStatus

import pytest

from gateway.admission.outcome import Refuse
from gateway.edge.connection.context import ConnectionContext, ConnectionLimits
from gateway.edge.errors import Refusal
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.opening import Opening
from gateway.edge.opening.petition import Petition
from gateway.edge.ports import Granted
from support.in_memory import HANDSHAKE, IDENTITY, Listening, Loop, Transport, Wheel


class Gate:
    def __init__(self):
        self.answer = IDENTITY
        self.inside, self.gone = {}, []

    def arrived(self, visitor, *, anonymous):
        self.inside[visitor] = anonymous

    def left(self, visitor):
        self.inside.pop(visitor, None)

    def decide(self, _petition, _address, _visitor):
        if isinstance(self.answer, Refusal):
            raise self.answer
        return self.answer

    def hung_up(self, visitor):
        self.gone.append(visitor)


class Observer(EdgeObserver):
    def __init__(self):
        self.refusals = []

    def refused(self, error, reason):
        self.refusals.append((error, reason))


class Rig:
    def __init__(self, head=b"", granted=None):
        self.gate, self.observer, self.handler = Gate(), Observer(), Listening()
        self.loop, self.wheel, self.transport = Loop(), Wheel(), Transport()
        context = ConnectionContext(
            gate=self.gate,
            make_handler=lambda _identity: self.handler,
            limits=ConnectionLimits(head_bytes_max=1_000),
            wheel=self.wheel,
            observer=self.observer,
            rng=random.Random(1),
            loop=self.loop,
            endings=None,
        )
        self.opening = Opening(context, head, granted)
        self.opening.connection_made(self.transport)

    @property
    def answer(self):
        return bytes(self.transport.written)


def test_an_admitted_device_has_a_connection_in_place_of_the_visitor():
    rig = Rig()
    assert rig.gate.inside == {rig.opening: True}
    rig.opening.data_received(HANDSHAKE)
    assert rig.answer.startswith(b"HTTP/1.1 101")
    assert rig.transport.protocol.is_open
    assert rig.gate.inside == {rig.transport.protocol: False}


def test_what_comes_behind_the_handshake_is_read():
    rig = Rig()
    rig.opening.data_received(HANDSHAKE + b"\x81\x82" + bytes(4) + b"hi")
    assert rig.handler.heard == [b"hi"]


def test_a_grant_holds_if_the_full_parser_reads_the_same_petition():
    rig = Rig(HANDSHAKE, Granted(Petition("", ""), IDENTITY))
    assert rig.transport.protocol.is_open


def test_a_grant_on_another_reading_of_the_head_is_refused():
    rig = Rig(HANDSHAKE, Granted(Petition("other", ""), IDENTITY))
    assert rig.answer.startswith(b"HTTP/1.1 400")
    assert rig.observer.refusals == [("bad_request", "ambiguous")]
    assert rig.transport.protocol is None


def test_a_slot_and_another_refusal():
    rig = Rig()
    rig.gate.answer = Refuse("rate", 2.0, "T")
    rig.opening.data_received(HANDSHAKE)
    assert b"Tidegate-Ticket: T" in rig.answer
    assert rig.transport.eof
    rig = Rig()
    rig.gate.answer = Refusal(HTTPStatus.FORBIDDEN, "revoked")
    rig.opening.data_received(HANDSHAKE)
    assert rig.answer.startswith(b"HTTP/1.1 403")


def test_a_refusal_by_close_for_a_client_that_asks_for_one():
    rig = Rig()
    rig.gate.answer = Refuse("rate", 2.0, "T")
    rig.opening.data_received(HANDSHAKE.replace(b"GET / ", b"GET /?refusal=close "))
    assert rig.answer.startswith(b"HTTP/1.1 101")
    assert b'"retry_ms":2000' in rig.answer
    assert rig.transport.protocol is None


def waiting():
    rig = Rig()
    rig.gate.answer = None
    rig.opening.data_received(HANDSHAKE)
    assert rig.answer == b""
    return rig


def test_a_visitor_that_waits_may_be_admitted_later_and_only_once():
    rig = waiting()
    rig.opening.on_due(1e9)  # armed for the head, which is read
    rig.opening.admitted(IDENTITY)
    assert rig.transport.protocol.is_open
    rig.opening.refused(Refusal(HTTPStatus.FORBIDDEN, "revoked"))
    assert rig.observer.refusals == []


def test_a_visitor_that_waits_may_be_refused_later_and_only_once():
    rig = waiting()
    rig.opening.refused(Refusal(HTTPStatus.FORBIDDEN, "revoked"))
    rig.opening.admitted(IDENTITY)
    assert rig.observer.refusals == [("revoked", "")]
    assert rig.transport.protocol is None


@pytest.mark.parametrize("behind", [True, False])
def test_bytes_before_the_answer_end_the_wait(behind):
    if behind:
        rig = Rig()
        rig.gate.answer = None
        rig.opening.data_received(HANDSHAKE + b"x")
    else:
        rig = waiting()
        rig.opening.data_received(b"x")
    assert rig.gate.gone == [rig.opening]
    assert rig.observer.refusals == [("bad_request", "early")]


def test_a_visitor_that_goes_while_it_waits_hangs_up():
    rig = waiting()
    rig.opening.connection_lost(None)
    assert rig.gate.gone == [rig.opening]
    assert rig.gate.inside == {}


def test_a_peer_that_goes_before_its_head_is_counted_unless_we_dropped_it():
    rig = Rig()
    rig.opening.connection_lost(None)
    assert rig.observer.refusals == [("bad_request", "gone")]
    rig = Rig()
    rig.opening.abort("crowded")
    rig.opening.connection_lost(None)
    assert rig.transport.aborted
    assert rig.observer.refusals == []


def test_a_head_without_end_and_a_head_that_takes_too_long():
    rig = Rig()
    rig.opening.data_received(b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000)
    assert rig.observer.refusals == [("bad_request", "head_size")]
    rig = Rig()
    rig.opening.data_received(HANDSHAKE[:20])
    rig.opening.on_due(rig.wheel.due_at)
    assert rig.observer.refusals == [("bad_request", "head_timeout")]


def test_a_refused_peer_that_does_not_close_is_dropped():
    rig = Rig()
    rig.opening.data_received(b"nonsense\r\n\r\n")
    rig.opening.data_received(b"more")
    assert not rig.transport.aborted
    rig.opening.on_due(rig.wheel.due_at)
    assert rig.transport.aborted


def test_what_a_refused_peer_sends_on_is_dropped_and_bounded():
    rig = Rig()
    rig.opening.data_received(b"nonsense\r\n\r\n")
    rig.opening.data_received(b"x" * 60_000)
    assert rig.transport.reading
    rig.opening.data_received(b"x" * 60_000)
    assert not rig.transport.reading
    rig.opening.on_due(rig.wheel.due_at)
    assert rig.transport.aborted
