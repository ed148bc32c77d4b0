"""The listener: a connection that cannot be made is logged."""

import asyncio
import socket

from structlog.testing import capture_logs

from gateway.edge import sliced
from gateway.edge.listening.connector import Connector
from gateway.edge.listening.listener import Listener
from gateway.edge.listening.sockets import bind
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.anteroom import Anteroom
from support.waiting import eventually


def connector_of(make, slice_s=1.0):
    return Connector(
        make,
        slice_s=slice_s,
        tls=lambda: None,
        tls_handshake_timeout_s=5.0,
        anteroom=Anteroom(places=4, observer=EdgeObserver()),
        observer=EdgeObserver(),
    )


def listener_beside_others(accepted, leave_s):
    """A listener of which other processes share the queue."""
    return Listener(
        connector_of(lambda _head, _granted: None),
        accept_budget=4,
        accept_slice_s=1.0,
        observer=EdgeObserver(),
        knock=lambda accepted_socket, _address: accepted.append(accepted_socket),
        leave_s=leave_s,
    )


async def test_a_protocol_that_cannot_be_made_is_logged():
    def broken(_head, _granted):
        raise ValueError("broken")

    listener = Listener(
        connector_of(broken),
        accept_budget=4,
        accept_slice_s=1.0,
        observer=EdgeObserver(),
    )
    port = await listener.start("127.0.0.1", 0, 4)
    with capture_logs() as logs:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        await eventually(lambda: logs)
    writer.close()
    await listener.stop()
    assert [(line["event"], str(line["exc_info"])) for line in logs] == [
        ("connection_failed", "broken")
    ]


async def test_a_connection_sends_at_once():
    """The loop sets TCP_NODELAY, if the socket says that it is one of TCP."""
    made = asyncio.get_running_loop().create_future()

    class Made(asyncio.Protocol):
        def connection_made(self, transport):
            made.set_result(transport)

    connector = connector_of(lambda _head, _granted: Made())
    (listening,) = await bind("127.0.0.1", 0, 4)
    with listening, socket.create_connection(listening.getsockname()):
        descriptor, _address = listening._accept()
        connector.connect(socket.SocketType(listening.family, listening.type, 0, descriptor))
        transport = await made
        raw = transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()
        await eventually(lambda: not len(connector))


async def test_a_turn_begins_no_more_connections_than_it_can_finish(monkeypatch):
    monkeypatch.setattr(sliced, "perf_counter", lambda: 0.0)  # to begin one takes no time at all
    connector = connector_of(lambda _head, _granted: asyncio.Protocol(), slice_s=290e-6)
    pairs = [socket.socketpair() for _ in range(12)]
    for ours, _theirs in pairs:
        connector.connect(ours)
    begun = []
    while len(begun) < 3:
        await asyncio.sleep(0)
        begun.append(sum(ours.fileno() < 0 for ours, _theirs in pairs))
    assert begun == [5, 10, 12]
    await eventually(lambda: not len(connector))
    for _ours, theirs in pairs:
        theirs.close()


async def test_connections_are_left_to_other_processes_for_as_long_as_it_is_told():
    accepted, leave = [], [0.01]
    asked = []

    def leave_s():
        asked.append(1)
        return leave[0]

    listener = listener_beside_others(accepted, leave_s)
    port = listener.start_on(await bind("127.0.0.1", 0, 4))
    _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: len(asked) > 2)
    assert not accepted
    leave[0] = 0.0
    await eventually(lambda: accepted)
    accepted[0].close()
    writer.close()
    await listener.stop()


async def test_other_work_is_looked_at_after_the_connections_that_a_turn_accepts():
    done = []
    listener = Listener(
        connector_of(lambda _head, _granted: None),
        accept_budget=2,
        accept_slice_s=1.0,
        observer=EdgeObserver(),
        knock=lambda accepted_socket, _address: done.append(accepted_socket),
        between=lambda: done.append("other"),
    )
    listening = await bind("127.0.0.1", 0, 4)
    port = listener.start_on(listening)
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    for each in listening:
        listener._accept(each)
        listener._accept(each)
    assert [each == "other" for each in done] == [False, False, True, False, True]
    for each in [*made, *done]:
        if each != "other":
            each.close()
    await listener.stop()


async def test_a_process_that_comes_too_late_for_a_connection_rests_and_then_accepts_again():
    accepted = []
    listener = listener_beside_others(accepted, lambda: 0.0)
    (listening,) = shared = await bind("127.0.0.1", 0, 4)
    port = listener.start_on(shared)
    listener._accept(listening)  # another process has taken the connection
    assert not asyncio.get_running_loop().remove_reader(listening)
    _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: accepted)
    assert listener._missed == 1  # one connection is no reason to come sooner the next time
    accepted.pop().close()
    writer.close()
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    listener._accept(listening)  # as many as a turn accepts
    assert listener._missed == 0
    for each in accepted + made:
        each.close()
    await listener.stop()


async def test_a_process_whose_turns_follow_each_other_soon_lets_connections_gather(monkeypatch):
    accepted, now_s = [], [10.0]
    monkeypatch.setattr("gateway.edge.listening.listener.perf_counter", lambda: now_s[0])
    listener = listener_beside_others(accepted, lambda: 0.0)
    (listening,) = shared = await bind("127.0.0.1", 0, 4)
    port = listener.start_on(shared)
    made, resting = [], []
    for later_s in (0.0, 1.0, 0.001):
        now_s[0] += later_s
        made.append(socket.create_connection(("127.0.0.1", port)))
        listener._accept(listening)
        resting.append(listener._resume is not None)
    assert (len(accepted), resting) == (3, [False, False, True])
    made.append(socket.create_connection(("127.0.0.1", port)))
    await eventually(lambda: len(accepted) == 4)
    for each in accepted + made:
        each.close()
    await listener.stop()
