"""Nodes and devices with queued commands, over a stream in memory that loses what is said."""

import asyncio
import random

from msgspec import Raw

from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.queue.dispatch import Dispatch, Pace
from gateway.stream.queue.facts import LEGAL, Entry, Fact, Stored, rfc3339, unix_time
from gateway.stream.queue.index import QueueIndex, Waiting
from gateway.stream.queue.line import QueueLimits, QueueObserver
from gateway.stream.queue.queue import Expiry
from gateway.stream.queue.status import Status
from gateway.stream.queue.turns import Turns
from tidegate.wire import frames

RESULT_WAIT_S = 50.0


class World:
    """The stream, the time, and the nodes that live."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.now = 1_000_000.0
        self.sequence = 0
        self.entries = {}
        self.histories = {}
        self.placed = {}
        self.expires = {}
        self.loss = 0.1
        self.fences = iter(range(1, 10**9))
        self.nodes = []
        self.failures = []

    def next_seq(self):
        self.sequence += 1
        return self.sequence

    def last(self, key, command_id):
        history = self.histories.get((key, command_id))
        return history[-1] if history else None

    def write(self, key, command_id, fact, after):
        history = self.histories.setdefault((key, command_id), [])
        if (history[-1].seq if history else 0) != after:
            raise FactConflict
        before = history[-1].fact.status if history else None
        assert fact.status in LEGAL[before], (before, fact.status)
        if fact.status is Status.SENT:
            assert unix_time(fact.time) < self.expires[command_id] + 0.002  # milliseconds
        history.append(Stored(self.next_seq(), fact))
        return history[-1].seq

    def enqueue(self, key, ttl_s):
        seq = self.next_seq()
        command_id = f"c-{seq}"
        self.entries[seq] = key, Entry(command_id, "t", rfc3339(self.now + ttl_s), Raw(b"1"))
        self.placed[command_id] = key, seq
        self.expires[command_id] = self.now + ttl_s
        for node in self.nodes:
            node.read(seq)

    def cancel(self, command_id):
        key, _seq = self.placed[command_id]
        stored = self.last(key, command_id)
        if stored is None or stored.fact.status is Status.QUEUED:
            fact = Fact(Status.FAILED, rfc3339(self.now), reason="cancelled")
            self.write(key, command_id, fact, stored.seq if stored else 0)


class Store:
    """One node's way to the stream."""

    def __init__(self, world, node):
        self.world = world
        self.node = node

    async def entry(self, seq):
        found = await self._do(lambda: self.world.entries.get(seq))
        return None if found is None else found[1]

    async def last(self, key, command_id):
        return await self._do(lambda: self.world.last(key, command_id))

    async def write(self, key, command_id, fact, after):
        # A copy: what is stored does not change with the writer's object.
        stored = Fact(**{name: getattr(fact, name) for name in Fact.__struct_fields__})
        return await self._do(lambda: self.world.write(key, command_id, stored, after))

    async def delete(self, seq):
        await self._do(lambda: self.world.entries.pop(seq, None))

    async def _do(self, action):
        rng = self.world.rng
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if not self.node.alive or rng.random() < self.world.loss:
            raise StoreAway("the request was lost")
        answer = action()
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if rng.random() < self.world.loss:
            raise StoreAway("the answer was lost")
        return answer


class Node:
    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.alive = True
        self.seats = {}
        self.index = QueueIndex()
        rng, wall = world.rng, lambda: world.now
        limits = QueueLimits(in_flight_max=world.rng.choice((1, 2)), result_wait_s=RESULT_WAIT_S)
        self.turns = Turns(
            Store(world, self), self.index, limits, node=name, wall=wall, observer=QueueObserver()
        )
        self.dispatch = Dispatch(
            self.turns,
            self.index,
            self,
            Pace(lambda: 1e9, lambda: True),
            observer=QueueObserver(),
            rng=rng,
            on_failure=world.failures.append,
        )
        expiry = Expiry(
            self.index,
            self.turns,
            self.dispatch,
            result_wait_s=RESULT_WAIT_S,
            leads=lambda: rng.random() < 0.5,
            wall=wall,
            rng=rng,
        )
        self.tasks = [asyncio.create_task(self.dispatch.run()), asyncio.create_task(expiry.run())]
        for seq in sorted(world.entries):
            self.read(seq)

    def read(self, seq):
        key, entry = self.world.entries[seq]
        self.index.add(key, Waiting(seq, entry.id, entry.expires_at))
        self.dispatch.arrived(key)

    def seat(self, key):
        return self.seats.get(key)

    def established(self, seat):
        older = self.seats.get(seat.key)
        self.seats[seat.key] = seat
        if older is not None:
            older.open = False
        self.dispatch.established(seat.key, seat.fence)
        if older is not None:
            self.dispatch.ended(seat.key, older.fence)

    def ended(self, seat):
        if self.seats.get(seat.key) is seat:
            del self.seats[seat.key]
        self.dispatch.ended(seat.key, seat.fence)

    async def kill(self):
        self.alive = False
        for seat in list(self.seats.values()):
            seat.open = False
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Seat:
    """A session, from both ends."""

    def __init__(self, device, node, fence):
        self.device = device
        self.node = node
        self.key = device.key
        self.fence = fence
        self.receipts = device.receipts
        self.open = True
        """Whether the node believes in it."""
        self.cut = False
        """Whether what is sent gets lost, although nobody knows yet."""

    @property
    def takes_commands(self):
        return self.open

    def command(self, command):
        assert command.queued
        if not self.open:
            return False
        if not self.cut and self.device.seat is self:  # a client reads its newest connection only
            expires_at = self.device.world.now + command.ttl_ms / 1000
            self.device.inbox.append((self, command.id, expires_at))
        return True

    def settled(self, command_id):
        if self.open and not self.cut:
            self.device.settled(command_id)

    def say(self, answer):
        if self.open and not self.cut and self.node.alive:
            self.node.dispatch.answered(self.key, answer)

    def end(self):
        """The node notices that it is gone."""
        if self.open and self.node.alive:
            self.open = False
            self.node.ended(self)


class Device:
    """A client and its application. What it keeps on its disk survives a kill."""

    def __init__(self, world, number):
        self.world = world
        self.key = ("default", f"veh-{number}")
        self.receipts = number % 3 != 0
        self.inbox = []
        self.seat = None
        self.given = []
        self.disk = {}
        self.waiting = []
        """Commands on the disk that the application does not have, and their times."""
        self.unsettled = {}

    def connect(self, node):
        if self.seat is not None and self.world.rng.random() < 0.5:
            self.seat.cut = True  # the old connection is dead; its node may not know
        self.seat = Seat(self, node, next(self.world.fences))
        self.inbox.clear()
        node.established(self.seat)
        for result in list(self.unsettled.values()):
            self.seat.say(result)

    def cut(self):
        seat, self.seat = self.seat, None
        self.inbox.clear()
        if seat is not None:
            seat.cut = True
            if self.world.rng.random() < 0.5:
                seat.end()

    def kill(self):
        self.cut()
        for command_id in self.working():
            self.finish(command_id, ok=False, data=b'{"error":"unknown"}')

    def settled(self, command_id):
        self.unsettled.pop(command_id, None)

    def working(self):
        """The commands that the application has and has not answered."""
        waiting = {command_id for command_id, _expires_at in self.waiting}
        return [
            command_id
            for command_id, result in self.disk.items()
            if result is None and command_id not in waiting
        ]

    def work(self):
        """Take the next command, hand one over, or finish one that the application has."""
        rng = self.world.rng
        if self.inbox and rng.random() < 0.7:
            self.take(*self.inbox.pop(0))
        if self.waiting and rng.random() < 0.5:
            self.hand_over(*self.waiting.pop(0))
        for command_id in self.working():
            if rng.random() < 0.5:
                self.finish(command_id, ok=rng.random() < 0.8)

    def hand_over(self, command_id, expires_at):
        if expires_at <= self.world.now:
            self.finish(command_id, ok=False, data=b'{"error":"expired"}')
            return
        self.given.append(command_id)
        assert self.world.now <= self.world.expires[command_id], "its time had passed"

    def take(self, seat, command_id, expires_at):
        if not self.receipts:
            self.given.append(command_id)
            self.disk[command_id] = None
            return
        if command_id not in self.disk:
            self.disk[command_id] = None
            self.waiting.append((command_id, expires_at))
        if (result := self.disk[command_id]) is None:
            seat.say(frames.Received(command_id))
        else:
            seat.say(result)

    def finish(self, command_id, *, ok, data=b"7"):
        result = self.disk[command_id] = frames.Result(command_id, ok, Raw(data))
        if self.receipts:
            self.unsettled[command_id] = result
        if self.seat is not None:
            self.seat.say(result)
