"""A free port is held for its server, also while nobody listens there."""

import socket

import pytest

from gateway.stream.server.loopback_port import LoopbackPort


def is_free(number):
    """Whether somebody who looks for a free port would take it."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
        return True


def test_a_port_is_held_before_while_and_after_its_server_listens():
    port = LoopbackPort(0)
    port.hold()
    number = port.number
    assert not is_free(number)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number))
    with socket.create_server(("127.0.0.1", number)):  # with SO_REUSEADDR, as nats-server
        with socket.create_connection(("127.0.0.1", number)) as client:
            client.getpeername()
    assert not is_free(number)
    port.hold()
    assert port.number == number
    port.release()
    assert is_free(number)


def test_a_port_in_use_is_not_chosen(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        free = other.getsockname()[1]
        choices = [taken.getsockname()[1], free, free]
        other.close()
        monkeypatch.setattr("secrets.choice", lambda _ports: choices.pop(0))
        port = LoopbackPort(0)
        port.hold()
        assert (port.number, choices) == (free, [free])
        port.release()


def test_a_port_that_is_given_is_neither_chosen_nor_held():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        port = LoopbackPort(number)
        port.hold()
        assert port.number == number
        port.release()
