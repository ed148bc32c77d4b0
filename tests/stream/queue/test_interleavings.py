"""Queued commands through random connects, cuts, kills, cancels and expiries, by seed.

Two nodes share a stream in memory, whose requests and answers get lost. Devices connect to either
node, are cut with or without anybody noticing, and are killed. In the end everything works again.
Then every command has one final status, which is true, and no application had a command twice or
out of order.
"""

import asyncio

import pytest

from gateway.stream.queue import dispatch as dispatch_module
from gateway.stream.queue import queue as queue_module
from gateway.stream.queue.facts import FINAL
from gateway.stream.queue.status import Status
from support.command_world import Device, Node, World
from support.waiting import eventually
from tidegate.wire import frames

STEPS = 400


async def turns(world, most):
    for _ in range(world.rng.randrange(most)):
        await asyncio.sleep(0)


def enqueue(world, device):
    world.enqueue(device.key, world.rng.choice((5.0, 100.0, 10_000.0)))


def cancel(world, _device):
    if world.entries:
        world.cancel(world.rng.choice([entry.id for _key, entry in world.entries.values()]))


def connect(world, device):
    device.connect(world.rng.choice(world.nodes))


def pass_time(world, _device):
    world.now += world.rng.choice((0.1, 1.0, 10.0))


def lie(world, device):
    """Answer a command that is not there, or is another device's."""
    others = [each for each, (key, _seq) in world.placed.items() if key != device.key]
    command_id = world.rng.choice(["no-such", *others])
    if device.seat is not None:
        device.seat.say(frames.Result(command_id, True))
        device.seat.say(frames.Received(command_id))


ACTIONS = {
    enqueue: 8,
    cancel: 6,
    connect: 8,
    lambda _world, device: device.cut(): 6,
    lambda _world, device: device.kill(): 1,
    pass_time: 4,
    lie: 2,
    lambda _world, device: device.work(): 12,
}


async def act(world, devices):
    rng = world.rng
    if rng.random() < 0.02:
        place = rng.randrange(len(world.nodes))
        await world.nodes[place].kill()
        world.nodes[place] = Node(world, f"n{next(world.fences)}")
    action = rng.choices(list(ACTIONS), weights=list(ACTIONS.values()))[0]
    action(world, rng.choice(devices))
    await turns(world, 12)


async def calm(world, devices):
    """Everything works until every command is settled and every result too."""
    world.loss = 0.0
    for device in devices:
        if device.seat is not None:
            device.seat.end()
        device.connect(world.rng.choice(world.nodes))

    def quiet():
        for device in devices:
            device.work()
        world.now += 1.0
        return not world.entries and not any(device.unsettled for device in devices)

    await eventually(quiet)


def check(world, devices):
    by_key = {device.key: device for device in devices}
    for command_id, (key, _seq) in world.placed.items():
        history = [stored.fact for stored in world.histories[key, command_id]]
        status, device = history[-1].status, by_key[key]
        assert status in FINAL
        given = device.given.count(command_id)
        assert given <= 1
        if status is Status.EXPIRED or history[-1].reason == "cancelled":
            assert given == 0
        if status is Status.DONE:
            assert device.disk[command_id].ok
            assert bytes(history[-1].data) == b"7"
        if Status.DELIVERED in [fact.status for fact in history]:
            assert device.receipts
            assert command_id in device.disk
        if status is Status.FAILED and not history[-1].reason:
            assert not device.disk[command_id].ok
    for device in devices:
        places = [world.placed[command_id][1] for command_id in device.given]
        assert places == sorted(places)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dispatch_module, "_AGAIN_S", (0.0, 0.001))
    monkeypatch.setattr(queue_module, "_EXPIRY_S", 0.001)
    monkeypatch.setattr(queue_module, "_RETRY_S", (0.0, 0.001))


@pytest.mark.parametrize("seed", range(40))
async def test_no_application_has_a_command_twice_and_every_status_is_true(seed):
    world = World(seed)
    world.nodes = [Node(world, "a"), Node(world, "b")]
    devices = [Device(world, number) for number in range(5)]
    try:
        for _ in range(STEPS):
            await act(world, devices)
        await calm(world, devices)
    finally:
        for node in world.nodes:
            await node.kill()
    assert world.failures == []
    check(world, devices)
    assert len(world.placed) > STEPS / 20
