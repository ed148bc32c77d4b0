"""Devices that each send a message now and then, over a socket pair."""

import json
import socket

import pytest

from loadtest.devices.prepared import PreparedDevice, _Rounds
from loadtest.devices.wire import PING, PONG, TEXT

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def server_frame(opcode, payload):
    return bytes([0x80 | opcode, len(payload)]) + payload


@pytest.fixture
def ends():
    """The gateway's end, and the device's."""
    gateway, device = socket.socketpair()
    for each in (gateway, device):
        each.setblocking(False)
    with gateway, device:
        yield gateway, PreparedDevice(device)


def frames_at(gateway):
    """What the device has sent: opcode and payload. Its masking keys are zero."""
    data, found = gateway.recv(4_096), []
    while data:
        size, start = data[1] & 0x7F, 6
        if size == 126:  # RFC 6455 section 5.2
            size, start = int.from_bytes(data[2:4], "big"), 8
        found.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return found


def greeted(ends):
    gateway, device = ends
    gateway.send(UPGRADED)
    device.hear()
    ((opcode, text),) = frames_at(gateway)
    assert (opcode, b"hello" in text, device.greeted) == (TEXT, True, False)
    gateway.send(server_frame(TEXT, b'{"welcome":{"seq":0,"credit":8}}'))
    device.hear()
    assert device.greeted
    return gateway, device


def test_a_device_has_one_message_in_flight(ends):
    gateway, device = greeted(ends)
    assert device.turn()
    assert not device.turn()
    gateway.send(server_frame(TEXT, b'{"ack":1,"credit":8}'))
    assert device.turn()
    assert [json.loads(text)["seq"] for _opcode, text in frames_at(gateway)] == [1, 2]


def test_a_ping_is_answered_at_the_next_turn(ends):
    gateway, device = greeted(ends)
    gateway.send(server_frame(PING, b"7"))
    assert device.turn()
    assert frames_at(gateway)[0] == (PONG, b"7")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\n\r\n", b""])
def test_a_device_that_is_refused_or_cut_is_gone(ends, answer):
    gateway, device = ends
    if answer:
        gateway.send(answer)
    else:
        gateway.close()
    device.hear()
    assert device.gone
    assert not device.turn()
    assert not device.greeted


def test_devices_that_wait_to_send_answer_pings(ends):
    gateway, device = greeted(ends)
    gateway.send(server_frame(PING, b"7"))
    _Rounds([device]).hear()
    assert frames_at(gateway) == [(PONG, b"7")]
