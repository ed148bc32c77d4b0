"""The shell under every lean device: what it sends, and what it hands over."""

import pytest

from loadtest.devices.connection import Connection
from loadtest.devices.wire import BINARY, CLOSE, PING, PONG, TEXT, masked_frame

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Device(Connection):
    def __init__(self):
        super().__init__()
        self.events = []

    def request(self):
        return b"request"

    def greeting(self):
        return b"greeting"

    def heard(self, payload):
        self.events.append(payload)

    def refused(self, response):
        self.events.append(("refused", response))

    def lost(self):
        self.events.append("lost")


class Transport:
    def __init__(self):
        self.written = []
        self.aborted = False

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.aborted = True


@pytest.fixture
def device():
    made = Device()
    made.connection_made(Transport())
    return made


def frame(opcode, payload):
    return bytes([0x80 | opcode, len(payload)]) + payload


def test_it_knocks_at_once_and_greets_when_the_connection_is_upgraded(device):
    assert device.transport.written == [b"request"]
    device.data_received(SWITCH[:10])
    assert device.transport.written == [b"request"]
    device.data_received(SWITCH[10:] + frame(TEXT, b"welcome"))
    assert device.transport.written == [b"request", b"greeting"]
    assert device.events == [b"welcome"]


def test_messages_are_handed_over_pings_answered_and_close_frames_left(device):
    device.data_received(SWITCH)
    device.data_received(
        frame(TEXT, b"one") + frame(PING, b"?") + frame(BINARY, b"two") + frame(CLOSE, b"")
    )
    assert device.events == [b"one", b"two"]
    assert device.transport.written[2:] == [masked_frame(PONG, b"?")]


def test_a_refusal_is_handed_over_and_nothing_is_sent(device):
    device.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\nbody")
    assert device.events == [("refused", b"HTTP/1.1 503 Service Unavailable\r\n\r\nbody")]
    assert device.transport.written == [b"request"]


def test_a_lost_connection_takes_no_more_bytes(device):
    transport = device.transport
    device.connection_lost(None)
    device.write(b"late")
    device.abort()
    assert device.events == ["lost"]
    assert transport.written == [b"request"]
    assert not transport.aborted
