"""A request on `commands.>` is answered, whatever its bytes are."""

import json
from dataclasses import dataclass

import pytest

from gateway.stream.commands import CommandInlet


@dataclass
class Request:
    data: bytes
    subject: str = "commands.default.veh-1"
    reply: str = "_INBOX.operator"


class Client:
    """What a `CommandInlet` needs of the link's client."""

    def __init__(self):
        self.hear = None
        self.written = []

    async def subscribe(self, subject, cb):
        assert subject == "commands.*.*"
        self.hear = cb

    def write(self, data):
        self.written.append(data)


async def answered(data):
    """What the operator is told, and the commands that were delivered."""
    delivered = []

    def deliver(tenant, device, command):
        delivered.append((tenant, device, command))
        return True

    client = Client()
    inlet = CommandInlet(deliver)
    await inlet.on_up(client)
    await client.hear(Request(data))
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
        (b'{"type":"t!","data":1}', "tokens"),
        (b'{"type":7,"data":1}', "type"),
    ],
)
async def test_a_request_that_no_device_could_read_is_answered_and_not_delivered(data, said):
    answer, delivered = await answered(data)
    assert answer["error"] == "request"
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
