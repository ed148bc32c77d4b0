"""A client that breaks a rule is closed by the gateway of a test, as by a real one."""

import json

import pytest

from support.waiting import within
from tidegate.connection import Closed
from tidegate.testing import (
    Gateway,
)


async def talk(gateway, *said):
    """Send frames on a new connection. Returns how the gateway closed it."""
    connection = await gateway.environment.connect(gateway.url, "t", None)
    for frame in said:
        await connection.send(json.dumps(frame).encode())
    with pytest.raises(Closed) as closed:
        while True:
            await within(connection.receive())
    return closed.value.code, json.loads(closed.value.reason)["error"]


HELLO = {"hello": {"outbox": "box", "oldest": 1}}


def message(seq):
    return {"seq": seq, "type": "t", "data": 1}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ([message(1)], "hello"),
        ([HELLO, message(2)], "gap"),
        ([HELLO, message(1), message(1)], "gap"),
        ([HELLO, [message(1), message(2), message(3)]], "credit"),
        ([HELLO, {"seq": 1}], "frame"),
    ],
)
async def test_a_client_that_breaks_a_rule_is_closed(said, error):
    async with Gateway(credit=2) as gateway:
        assert await talk(gateway, *said) == (1008, error)
