"""The session of a lost connection ends in its turn; until then nothing reaches the peer."""

from collections import deque

from support.in_memory import Line


class Turns(deque):
    """Ends that wait for their turn until the test takes it."""

    add = deque.append

    def take(self):
        while self:
            self.popleft().hang_up()


def test_the_session_of_a_lost_connection_ends_in_its_turn():
    turns = Turns()
    line = Line(endings=turns)
    line.end()
    assert not line.connection.is_open
    assert line.handler.heard == []
    turns.take()
    assert line.handler.heard == ["lost"]


def test_until_then_nothing_is_written_and_no_deadline_matters():
    turns = Turns()
    line = Line(endings=turns, close_timeout_s=1.0)
    line.end()
    line.connection.send_text(b"{}")
    line.connection.close(1012, "", "drain")
    line.connection.abort("stopped")
    line.connection.resume_reading(1)
    line.connection.touch()
    line.connection.on_due(1e12)
    assert not line.transport.written
    assert not line.transport.aborted
    turns.take()
    assert line.handler.heard == ["lost"]


def test_nothing_is_sent_to_a_peer_that_has_ended():
    turns = Turns()
    line = Line(endings=turns)
    line.connection.eof_received()
    assert not line.connection.is_open
    line.connection.send_text(b"{}")
    line.connection.fail(4409, "", "taken_over")  # its device is back before its end has its turn
    line.sleep(1e10)
    assert not line.transport.written
    assert not line.transport.aborted
    turns.take()
    assert line.transport.closed
    assert line.handler.heard == ["lost"]  # its room is free in the same turn
    line.end()
    turns.take()
    assert line.handler.heard == ["lost"]


def test_a_peer_that_has_ended_may_read_on_for_a_while():
    turns = Turns()
    line = Line(endings=turns, close_timeout_s=5.0)
    line.transport.unsent = 100
    line.connection.eof_received()
    turns.take()
    assert line.transport.closed
    line.sleep(4.9)
    assert line.handler.heard == []
    assert not line.transport.aborted
    line.sleep(0.2)
    assert line.transport.aborted
    line.end()
    turns.take()
    assert line.handler.heard == ["close_timeout"]


def test_a_connection_that_is_lost_before_its_turn_ends_once():
    turns = Turns()
    line = Line(endings=turns)
    line.connection.eof_received()
    line.end()
    turns.take()
    assert line.handler.heard == ["lost"]


def test_the_deadline_of_the_handler_does_not_matter_after_the_peer_has_ended():
    line = Line(endings=Turns())
    line.handler.deadline = 1.0
    line.connection.eof_received()
    line.connection.touch()
    assert line.wheel.due_at > 1.0
