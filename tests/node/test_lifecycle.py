"""The life of a gateway: its phases, and what a stop, a second stop and a failure do in each."""

import asyncio
import os
import signal

import pytest

from gateway.node.lifecycle import Lifecycle, NodeState, Phase, StopOrders
from gateway.process import Assembly, Ending, Part
from support.waiting import eventually, within


class Drain:
    """Drains at once, never, or with an error."""

    unsettled = 3

    def __init__(self, *, hangs=False, fails=False):
        self.seen = []
        self._hangs = hangs
        self._fails = fails

    def refuse_knocks(self):
        self.seen.append("refuse")

    async def run(self):
        self.seen.append("drain")
        if self._fails:
            raise ValueError("drain")
        if self._hangs:
            await asyncio.Event().wait()
        self.seen.append("drained")


class Node:
    """A life around one part, whose storage is ready when the test says so."""

    def __init__(self, drain=None):
        self.seen = []
        self.ending = Ending()
        self.orders = StopOrders(self.ending)
        self.state = NodeState()
        self.storage = asyncio.Event()
        self.drain = drain or Drain()
        part = Part("part", lambda: self.seen.append("start"), lambda: self.seen.append("stop"))
        self.life = Lifecycle(
            Assembly([part]),
            state=self.state,
            ending=self.ending,
            orders=self.orders,
            storage_ready=self._storage_ready,
            on_serving=lambda: self.seen.append("serving"),
            draining=self.drain,
            reload=lambda: self.seen.append("reload"),
        )

    async def _storage_ready(self):
        await self.storage.wait()

    async def serve(self):
        self.storage.set()
        await self.life.start()
        await self.life.ready()


def test_a_node_is_ready_only_while_it_serves_and_stores():
    state = NodeState()
    table = [
        (Phase.STARTING, None, "starting"),
        (Phase.STARTING, "nats_refused", "nats_refused"),
        (Phase.SERVING, None, None),
        (Phase.SERVING, "disk_full", "disk_full"),
        (Phase.DRAINING, "disk_full", "draining"),
        (Phase.STOPPED, None, "stopped"),
    ]
    for phase, trouble, reason in table:
        state.phase = phase
        assert state.not_ready(trouble) == reason


def test_uptime_is_counted_from_the_start():
    now = [10.0]
    state = NodeState(clock=lambda: now[0])
    now[0] = 12.5
    assert state.uptime_s == 2.5


async def test_it_serves_once_messages_can_be_stored():
    node = Node()
    await node.life.start()
    ready = asyncio.create_task(node.life.ready())
    await asyncio.sleep(0)
    assert node.state.phase is Phase.STARTING
    node.storage.set()
    await within(ready)
    assert node.state.phase is Phase.SERVING
    assert node.seen == ["start", "serving"]
    await node.life.stop()


async def test_a_stop_drains_a_node_that_serves():
    node = Node()
    await node.serve()
    await within(node.life.stop())
    assert node.drain.seen == ["refuse", "drain", "drained"]
    assert node.seen == ["start", "serving", "stop"]
    assert node.state.phase is Phase.STOPPED


async def test_a_stop_does_not_drain_a_node_that_still_starts():
    node = Node()
    await node.life.start()
    await within(node.life.stop())
    assert (node.drain.seen, node.seen) == ([], ["start", "stop"])


async def test_a_stop_that_goes_on_is_waited_for_not_repeated():
    node = Node()
    await node.serve()
    await within(asyncio.gather(node.life.stop(), node.life.stop()))
    assert node.seen.count("stop") == 1


async def test_a_second_order_cuts_the_drain_short():
    node = Node(Drain(hangs=True))
    await node.serve()
    stopping = asyncio.create_task(node.life.stop())
    await eventually(lambda: node.drain.seen == ["refuse", "drain"])
    node.orders.drain()  # without `now` it changes nothing
    await asyncio.sleep(0)
    assert not stopping.done()
    node.orders.drain(now=True)
    await within(stopping)
    assert node.seen[-1] == "stop"


async def test_the_second_signal_stops_at_once_whatever_operators_asked_for():
    orders = StopOrders(Ending())
    orders.drain()
    orders.on_signal()
    now = asyncio.create_task(orders.wait_now())
    await asyncio.sleep(0)
    assert not now.done()
    orders.on_signal()
    await within(now)


async def test_a_drain_that_fails_is_raised_after_the_stop():
    node = Node(Drain(fails=True))
    await node.serve()
    await within(node.life.stop())
    assert node.seen[-1] == "stop"
    assert [str(failure) for failure in node.ending.failures] == ["drain"]


async def test_a_failure_while_it_waits_for_storage_is_raised():
    node = Node()
    await node.life.start()
    ready = asyncio.create_task(node.life.ready())
    node.ending.fail(ValueError("no stream"))
    with pytest.raises(ValueError, match="no stream"):
        await within(ready)
    assert node.state.phase is Phase.STARTING
    await node.life.stop()


async def test_a_whole_run_from_signal_to_end():
    node, running = Node(), asyncio.Event()
    node.storage.set()
    run = asyncio.create_task(node.life.run(running.set))
    await within(running.wait())
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: "reload" in node.seen)
    os.kill(os.getpid(), signal.SIGTERM)
    await within(run)
    assert node.seen == ["start", "serving", "reload", "stop"]


async def test_a_run_raises_the_failure_that_ended_it():
    node = Node()
    run = asyncio.create_task(node.life.run(lambda: node.seen.append("running")))
    node.ending.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await within(run)
    assert "running" not in node.seen
