"""A request to a device is answered, whatever its bytes are."""

import json

import msgspec
import pytest

from gateway.stream.commands.chains import Chains
from gateway.stream.commands.requests import CommandInlet


class Client:
    """What a `CommandInlet` needs of the link's client."""

    is_connected = True

    def __init__(self):
        self.hear = None
        self.written = []

    def hear_exact(self, handler):
        self.hear = handler

    def write(self, data):
        if data.startswith(b"PUB"):
            self.written.append(data)


async def answered(data, outcome=True, headers=None, chains=None):
    """What the operator is told, and the commands that were delivered."""
    delivered = []

    def deliver(tenant, device, command):
        delivered.append((tenant, device, command))
        return outcome

    client = Client()
    inlet = CommandInlet(deliver, Chains(0.0) if chains is None else chains)
    await inlet.on_up(client)
    client.hear(b"commands.default.veh-1", b"_INBOX.operator", data, headers)
    assert len(inlet) == (1 if outcome and delivered else 0)
    if not client.written:
        return None, delivered
    head, _, body = client.written[0].partition(b"\r\n")
    assert head == b"PUB _INBOX.operator %d" % len(body.removesuffix(b"\r\n"))
    return json.loads(body), delivered


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"type":"t","data":"\xff"}', "UTF-8"),
        (b'{"type":"\xff","data":1}', "UTF-8"),
        (b"\xff", "UTF-8"),
        (b"", ""),
        (b'{"type":"t","data":' + b"[" * 100_000, ""),
        (b'{"type":"t","data":' + b"[" * 33 + b"]" * 33 + b"}", "nests deeper"),
        (b'{"type":"t!","data":1}', "tokens"),
        (b'{"type":7,"data":1}', "type"),
    ],
)
async def test_a_request_that_no_device_could_read_is_answered_and_not_delivered(data, said):
    answer, delivered = await answered(data)
    assert answer["error"] == "not_understood"
    assert said in answer["detail"]
    assert delivered == []


async def test_a_good_request_is_delivered_and_not_answered_by_the_gateway():
    answer, delivered = await answered('{"type":"t","data":"ü"}'.encode())
    assert answer is None
    [(tenant, device, command)] = delivered
    assert (tenant, device, command.type, bytes(command.data)) == (
        "default",
        "veh-1",
        "t",
        '"ü"'.encode(),
    )


async def test_a_device_that_does_not_read_is_busy():
    answer, _delivered = await answered(b'{"type":"t"}', outcome=False)
    assert answer["error"] == "busy"


async def test_a_device_that_has_left_is_silent_since_another_node_may_hold_it():
    answer, _delivered = await answered(b'{"type":"t"}', outcome=None)
    assert answer is None


@pytest.mark.parametrize(("outcome", "remembered"), [(True, 1), (False, 0), (None, 0)])
async def test_a_device_that_was_given_a_command_of_a_rule_goes_on_with_its_chain(
    outcome, remembered
):
    chains = Chains(60.0)
    headers = b"NATS/1.0\r\nTidegate-Hops: 3\r\n\r\n"
    await answered(b'{"type":"t"}', outcome, headers, chains)
    assert len(chains) == remembered


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "told"),
    [(TRACE, TRACE), (TRACE[:-1] + "0", ""), ("nonsense", ""), (b"\xff".decode("latin-1"), "")],
)
async def test_a_device_is_told_the_trace_of_a_request_if_it_is_sampled(given, told):
    headers = b"NATS/1.0\r\ntraceparent: %b\r\n\r\n" % given.encode("latin-1")
    _answer, delivered = await answered(b'{"type":"t"}', headers=headers)
    assert delivered[0][2].trace == told


async def test_without_a_trace_the_frame_has_no_such_member():
    for headers in (None, b"NATS/1.0\r\nTidegate-Hops: 1\r\n\r\n"):
        _answer, delivered = await answered(b'{"type":"t"}', headers=headers)
        assert b"trace" not in msgspec.json.encode(delivered[0][2])
