"""Subscriptions of a node to the devices that it holds, and to no other."""

import asyncio

import nats.errors
import pytest

from gateway.stream.commands.interest import Interest
from gateway.stream.link.client import EXACT_SID_MIN, LinkClient
from support.loops import DrivenLoop
from support.servers import nats_server
from support.waiting import eventually, within

SLICE = 500


class Client:
    """What an `Interest` needs of the link's client."""

    def __init__(self):
        self.is_connected = True
        self.writes = []

    def hear_exact(self, handler):
        self.handler = handler

    def write(self, data):
        self.writes.append(data)
        return True

    def lines(self):
        return b"".join(self.writes).decode().splitlines()


def ignore(_subject, _reply, _data, _headers):
    pass


def key(number):
    return "default", f"veh-{number}"


async def told(interest, client):
    """The lines after the probe, once all are written."""
    await eventually(lambda: not interest.unwritten)
    return client.lines()[1:]


def subscribed(lines):
    """The subjects that are subscribed to after these lines."""
    found = {}
    for line in lines:
        word, *rest = line.split()
        if word == "SUB":
            subject, number = rest
            assert number not in found
            found[number] = subject
        else:
            del found[rest[0]]
    return sorted(found.values())


async def test_a_device_is_subscribed_to_while_a_session_holds_it():
    client, interest = Client(), Interest(ignore)
    interest.on_up(client)
    interest.established(key(1), 5)
    assert subscribed(await told(interest, client)) == ["commands.default.veh-1"]
    interest.ended(key(1), 5)
    assert subscribed(await told(interest, client)) == []
    assert len(interest) == 0


async def test_a_newer_session_keeps_the_subscription_of_the_older_one():
    client, interest = Client(), Interest(ignore)
    interest.on_up(client)
    interest.established(key(1), 5)
    interest.established(key(1), 6)
    interest.ended(key(1), 5)
    lines = await told(interest, client)
    assert lines == [f"SUB commands.default.veh-1 {EXACT_SID_MIN + 1}"]
    interest.ended(key(1), 5)  # a session that this node no longer knows
    assert len(interest) == 1


async def test_a_storm_is_written_in_slices_of_one_turn_each():
    client, interest = Client(), Interest(ignore)
    interest.on_up(client)
    for number in range(3 * SLICE + 1):
        interest.established(key(number), number + 1)
    assert client.writes[1:] == []  # gathered until the turn has ended
    lines = await told(interest, client)
    assert len(subscribed(lines)) == 3 * SLICE + 1
    assert [write.count(b"SUB") for write in client.writes[1:]] == [SLICE, SLICE, SLICE, 1]


@pytest.fixture
def loop(monkeypatch):
    loop = DrivenLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def held(loop, count):
    """A client that has heard of so many devices, some time ago."""
    client, interest = Client(), Interest(ignore)
    interest.on_up(client)
    for number in range(count):
        interest.established(key(number), 1)
    loop.turn()
    loop.until(10.0)
    client.writes.clear()
    return client, interest


def test_the_end_of_one_session_is_written_in_its_turn(loop):
    client, interest = held(loop, 1)
    interest.ended(key(0), 1)
    loop.turn()
    assert len(client.lines()) == 1


def test_the_ends_of_many_sessions_share_writes(loop):
    client, interest = held(loop, 100)
    for number in range(100):
        interest.ended(key(number), 1)
        loop.turn()
        loop.until(loop.now + 0.001)
    loop.until(20.0)
    assert len(client.lines()) == 100
    assert len(client.writes) <= 6, "one in 20 ms"
    assert interest.unwritten == 0


def test_a_device_that_comes_is_heard_for_at_once_although_ends_rest(loop):
    client, interest = held(loop, 2)
    interest.ended(key(0), 1)
    loop.turn()
    interest.ended(key(1), 1)
    loop.turn()
    assert len(client.lines()) == 1
    interest.established(key(7), 1)
    loop.turn()
    kinds = [line.split()[0] for line in client.lines()]
    assert kinds == ["UNSUB", "UNSUB", "SUB"]
    assert loop.waiting == [], "the rest is over"


async def test_all_devices_are_subscribed_to_again_on_a_fresh_connection():
    first, second, interest = Client(), Client(), Interest(ignore)
    interest.on_up(first)
    for number in range(3):
        interest.established(key(number), number + 1)
    await told(interest, first)
    first.is_connected = False
    interest.ended(key(0), 1)
    interest.established(key(7), 9)
    assert interest.unwritten == 0  # nothing gathers while there is no connection
    interest.on_up(second)
    expected = [f"commands.default.veh-{number}" for number in (1, 2, 7)]
    assert subscribed(await told(interest, second)) == expected


async def test_nothing_is_written_for_a_connection_that_was_lost_meanwhile():
    client, interest = Client(), Interest(ignore)
    interest.on_up(client)
    interest.established(key(1), 1)
    client.is_connected = False
    await eventually(lambda: not interest.unwritten)
    assert client.lines()[1:] == []


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path) as server:
        yield server


async def connected(server):
    client = LinkClient()
    await client.connect(server.url, allow_reconnect=False)
    return client


async def test_the_server_itself_says_that_no_node_holds_a_device(server):
    node, operator = await connected(server), await connected(server)

    def answer(subject, reply, data, _headers):
        node.write(b"PUB %s %d\r\n%s\r\n" % (reply, len(subject + data), subject + data))

    interest = Interest(answer)
    interest.on_up(node)
    interest.established(key(1), 1)
    await eventually(lambda: not interest.unwritten)
    await within(node.flush())
    heard = await operator.request("commands.default.veh-1", b"!", timeout=10)
    assert heard.data == b"commands.default.veh-1!"
    with_headers = await operator.request(
        "commands.default.veh-1", b"?", timeout=10, headers={"Tidegate-Hops": "1"}
    )
    assert with_headers.data == b"commands.default.veh-1?"
    with pytest.raises(nats.errors.NoRespondersError):
        await operator.request("commands.default.veh-2", b"!", timeout=10)
    interest.ended(key(1), 1)
    await eventually(lambda: not interest.unwritten)
    await within(node.flush())
    with pytest.raises(nats.errors.NoRespondersError):
        await operator.request("commands.default.veh-1", b"!", timeout=10)
    await asyncio.gather(node.discard(), operator.discard())
