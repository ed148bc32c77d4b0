"""Free ports for servers: nobody else is given one before its server listens there."""

import os
import socket

import pytest

from loadtest.servers import process
from loadtest.servers.process import free_port


def bound(port):
    probe = socket.socket()
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.close()
        return None
    return probe


def test_a_port_that_was_given_out_is_free_for_its_server_alone():
    port = free_port()
    assert bound(port) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for _ in range(2):  # the server starts again
        with socket.create_server(("127.0.0.1", port)):
            assert bound(port) is None
        assert bound(port) is None


def test_so_many_ports_are_held_and_no_more(monkeypatch):
    monkeypatch.setattr(process, "_held", held := process.deque())
    monkeypatch.setattr(process, "_HELD_MAX", 3)
    ports = [free_port() for _ in range(5)]
    assert len(set(ports)) == 5
    assert len(held) == 3
    free = [probe for port in ports if (probe := bound(port)) is not None]
    assert [probe.getsockname()[1] for probe in free] == ports[:2]
    for probe in free:
        probe.close()
    for descriptor in held:
        os.close(descriptor)
