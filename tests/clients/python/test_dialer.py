"""RFC 8305: a silent address among those of a name costs a quarter of a second."""

import asyncio
import errno
import socket

import pytest

from support.scripted import told
from support.waiting import eventually, within
from tidegate.clock import Clock
from tidegate.dialer import ATTEMPT_DELAY_S, Dialer, Endpoint, alternated, connect_to, resolve
from tidegate.testing import FakeClock

V6 = [Endpoint(socket.AF_INET6, (f"2001:db8::{n}", 1)) for n in range(3)]
V4 = [Endpoint(socket.AF_INET, (f"192.0.2.{n}", 1)) for n in range(3)]


class Network:
    """The fate of each address: `hole` never answers, an OSError refuses, `up` connects."""

    def __init__(self, clock, **fates):
        self.clock = clock
        self.fates = fates
        self.attempts = []
        self.made = []
        self.ended = 0

    async def connect(self, endpoint):
        self.attempts.append((self.clock.monotonic(), endpoint))
        fate = self.fates.get(endpoint.address[0], "hole")
        try:
            if fate == "hole":
                await asyncio.Event().wait()
            if isinstance(fate, BaseException):
                raise fate
        finally:
            self.ended += 1
        made = socket.socket()
        self.made.append(made)
        return made

    def dialer(self, endpoints):
        async def lookup(_host, _port):
            return endpoints

        return Dialer(self.clock, lookup, self.connect)


def refused():
    return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


async def test_the_next_address_is_tried_a_quarter_of_a_second_after_one_that_is_silent():
    clock = FakeClock()
    network = Network(clock, **{"192.0.2.0": "up"})
    dialing = asyncio.create_task(network.dialer([V6[0], V4[0]]).dial("x", 1))
    await eventually(lambda: network.attempts)
    assert await clock.advance_to_next() == ATTEMPT_DELAY_S
    made = await within(dialing)
    assert made is network.made[0]
    made.close()
    assert network.ended == 2, "the black hole's attempt is not left behind"


async def test_a_refusal_does_not_wait():
    clock = FakeClock()
    network = Network(clock, **{"2001:db8::0": refused(), "192.0.2.0": "up"})
    (await within(network.dialer([V6[0], V4[0]]).dial("x", 1))).close()
    assert network.attempts[0][0] == network.attempts[1][0]


async def test_if_all_addresses_refuse_the_error_has_the_reason_of_each():
    network = Network(FakeClock(), **{"2001:db8::0": refused(), "192.0.2.0": refused()})
    with pytest.raises(OSError, match=r"2001:db8::0 port 1: .*refused; 192.0.2.0 port 1") as caught:
        await within(network.dialer([V6[0], V4[0]]).dial("x", 1))
    assert isinstance(caught.value, OSError)


async def test_a_cancelled_dial_leaves_nothing_behind():
    clock = FakeClock()
    network = Network(clock)
    dialing = asyncio.create_task(network.dialer([*V6, *V4]).dial("x", 1))
    for attempts in range(1, 4):
        await eventually(lambda n=attempts: len(network.attempts) == n)
        await clock.advance_to_next()
    await eventually(lambda: len(network.attempts) == 4)
    dialing.cancel()
    await asyncio.wait({dialing})
    assert network.ended == 4


async def test_a_late_winner_is_closed():
    clock = FakeClock()
    both = asyncio.Event()

    class Twins(Network):
        async def connect(self, endpoint):
            self.attempts.append(endpoint)
            await both.wait()
            made = socket.socket()
            self.made.append(made)
            return made

    network = Twins(clock)
    dialing = asyncio.create_task(network.dialer([V6[0], V4[0]]).dial("x", 1))
    await eventually(lambda: network.attempts)
    await clock.advance_to_next()
    await eventually(lambda: len(network.attempts) == 2)
    both.set()
    won = await within(dialing)
    (lost,) = [made for made in network.made if made is not won]
    assert lost.fileno() == -1
    won.close()


async def test_an_empty_list_of_addresses_is_refused():
    with pytest.raises(OSError, match="no address"):
        await Network(FakeClock()).dialer([]).dial("x", 1)


def test_families_take_turns_and_the_list_is_bounded():
    assert alternated([V6[0], V6[1], V4[0], V6[0]]) == [V6[0], V4[0], V6[1]]
    assert alternated([V4[0], V4[1], V6[0]])[0] == V4[0]
    many = [Endpoint(socket.AF_INET, (f"192.0.2.{n}", 1)) for n in range(200)]
    assert len(alternated(many)) == 16


async def test_real_sockets_are_connected():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with listener:
        (await within(Dialer(Clock()).dial("localhost", port))).close()
        (await within(Dialer(Clock()).dial("127.0.0.1", port))).close()
    with pytest.raises(OSError, match=r"127\.0\.0\.1 port 1: Connection refused"):
        await within(connect_and_name(1))


async def connect_and_name(port):
    return await Dialer(Clock()).dial("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64 + ".invalid", "\u00e4" * 70])
async def test_texts_that_are_not_names_are_refused(host):
    with pytest.raises(OSError, match=r"name|no address"):
        await within(resolve(host, 1))


async def test_a_look_up_that_hangs_can_be_left(monkeypatch):
    import threading

    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: release.wait(30) and [])
    looking = asyncio.create_task(resolve("slow.example", 1))
    await asyncio.sleep(0)
    looking.cancel()
    await asyncio.wait({looking})
    release.set()
    assert looking.cancelled()


async def test_a_failed_connection_closes_its_socket():
    failing = asyncio.create_task(connect_to(Endpoint(socket.AF_INET, ("127.0.0.1", 1))))
    assert isinstance(await told(failing), OSError)
