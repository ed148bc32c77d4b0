"""Exactly once, checked against a model of everything that can come between.

Several nodes, each with its lane and what it knows; a JetStream that forgets ids after its window;
batches that arrive late, answers that get lost, look-ups whose answers take time; devices with
several outboxes, which lose acks, stay away, come back to any node, are taken over without the node
they left hearing of it, and whose clocks say anything.

In some worlds a schema comes and goes, so that one message is an event now and a dead letter then.
JetStream compares ids within one stream only. There, the node that a device left hears of it, and
what it published has arrived or is lost.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from msgspec import Raw

from gateway.stream.lanes.batch import (
    CUT_SHORT,
    Answer,
    Batch,
    Kind,
    Strategy,
    Verdict,
    split_all,
)
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.outlet import SessionOutlet
from gateway.stream.lanes.standing import Resume, Standings
from tidegate.wire.frames import Message, Unusable

WINDOW_S = 20.0
CREDIT = 6
TIMEOUT = Answer(Verdict.AMBIGUOUS, "timeout")


def identity(item):
    return (*item.standing.key[1:], item.seq)


class JetStream:
    def __init__(self, rng):
        self.rng = rng
        self.now = 0.0
        self.stored = []
        self.known_until = {}
        self.last_in = {}

    def knows(self, item):
        key = item.envelope.stream, identity(item)
        return self.known_until.get(key, -1.0) > self.now

    def put(self, item):
        if self.knows(item):
            return Verdict.DUPLICATE
        stream = item.envelope.stream
        self.stored.append(identity(item))
        self.known_until[stream, identity(item)] = self.now + WINDOW_S
        self.last_in[stream] = identity(item)
        return Verdict.STORED

    def put_linked(self, items):
        """Store each if the last message of its stream is the one before it."""
        batch, before = Batch(1, Kind.LINKED, items, 0.0), None
        for place, item in enumerate(items):
            lost = self.rng.random() < 0.02
            linked = before in (None, self.last_in.get(item.envelope.stream))
            if self.knows(item) or lost or not linked:
                answer = CUT_SHORT
            else:
                answer = Answer(self.put(item), stored_at=len(self.stored))
            before = identity(item)
            if place in (0, len(items) - 1):
                said = batch.whole(place, answer)
        return said

    def last(self, device, outbox):
        return max((n for d, o, n in self.stored if (d, o) == (device, outbox)), default=0)

    def carry_out(self, batch):
        """The answers to a batch, by place; or one for all."""
        items = split_all(batch.items)
        if batch.kind is Kind.ATOMIC and any(self.knows(item) for item in items):
            return Answer(Verdict.PARTIAL, "partial")
        if batch.kind is Kind.LINKED:
            return self.put_linked(items)
        assert items == batch.items, "runs go into linked batches only"
        verdicts = [self.put(item) for item in items]
        if batch.kind is Kind.ROUND:
            return verdicts
        return Answer(verdicts[0] if batch.kind is Kind.SINGLE else Verdict.STORED, stored_at=1)


class Node:
    """A node, and the publisher of its sessions."""

    pending = None

    def __init__(self, jetstream, rng, strategy):
        self.jetstream, self.rng = jetstream, rng
        self.standings = Standings(WINDOW_S)
        self.lane = Lane(
            batch_messages_max=5,
            batch_bytes_max=10_000,
            duplicate_window_s=WINDOW_S,
            dispose=lambda item, _reason: item,
        )
        self.lane.strategy = strategy
        self.questions = []
        self.late = []

    def lane_of(self, _device):
        return self

    @property
    def takes_runs(self):
        return self.lane.strategy is Strategy.LINKED

    def submit(self, items, _size):
        self.lane.submit(items)

    def submit_run(self, run):
        self.lane.submit_run(run)

    def distrust(self, standing):
        self.lane.distrust(standing)

    def step(self):
        rng, now, lane = self.rng, self.jetstream.now, self.lane
        self.arrive_late()
        if lane.in_flight is None and rng.random() < 0.8:
            lane.next_batch(now)
            self.publish_some_of(lane.in_flight)
        elif lane.in_flight is not None:
            self.tell(lane.resolve(TIMEOUT) if not self.is_round else lane.finish_round(TIMEOUT))
        for question in lane.take_questions():
            device, outbox = question.items[0].standing.key[1:]
            self.questions.append((question, self.jetstream.last(device, outbox), now))
        if self.questions and rng.random() < 0.5:
            question, last, asked_at = self.questions.pop(0)
            if question.stored_at is not None:
                self.tell(lane.compared(question, same=True))
            else:
                self.tell(lane.found(question, last, asked_at))

    @property
    def is_round(self):
        return self.lane.in_flight.kind is Kind.ROUND

    def publish_some_of(self, batch):
        """At once and answered, or late, or never."""
        if batch is None:
            return
        fate = self.rng.random()
        if fate < 0.5:
            answer = self.jetstream.carry_out(batch)
            if self.rng.random() < 0.7:
                self.answer(answer)
        elif fate < 0.8:
            self.late.append((self.jetstream.now + WINDOW_S * 0.49, batch))

    def answer(self, answer):
        lane = self.lane
        if not isinstance(answer, list):
            self.tell(lane.resolve(answer))
            return
        for place, verdict in enumerate(answer):
            settled = lane.resolve_one(place, Answer(verdict, stored_at=1))
        self.tell(settled)

    def arrive_late(self):
        for latest, batch in list(self.late):
            if self.jetstream.now > latest or self.rng.random() < 0.3:
                self.late.remove((latest, batch))
                if self.jetstream.now <= latest:
                    self.jetstream.carry_out(batch)

    def land(self):
        """What was published has arrived, or is lost."""
        for latest, batch in self.late:
            if self.jetstream.now <= latest and self.rng.random() < 0.5:
                self.jetstream.carry_out(batch)
        self.late = []

    def tell(self, settled):
        for item in settled:
            item.standing.stored = item.seq
            item.owner.stored(item.seq)


@dataclass(eq=False)
class Session:
    device: "Device"
    node: Node
    outbox: str
    outlet: SessionOutlet | None = None
    superseded: bool = False
    deaf: bool = False
    next_seq: int = 1

    def rejected(self, seq, error, detail):
        raise NotImplementedError

    def stored(self, seq):
        device = self.device
        device.claimed[self.outbox] = max(device.claimed[self.outbox], seq)
        if device.session is self and not self.deaf:
            device.acked[self.outbox] = max(device.acked[self.outbox], seq)


@dataclass(eq=False)
class Device:
    name: str
    rng: random.Random
    says_sent: bool
    session: Session | None = None
    produced: Counter = field(default_factory=Counter)
    acked: Counter = field(default_factory=Counter)
    sent: Counter = field(default_factory=Counter)
    claimed: Counter = field(default_factory=Counter)
    """What any node believes to be settled."""

    def connect(self, node, others, now, *, rejecting):
        outbox = self.rng.choice("ab")
        sent = self.sent[outbox] if self.says_sent else None
        told = Resume(self.acked[outbox] + 1, self.rng.choice([0, 0, 10**9]), sent)
        for session in others:
            session.superseded = session.superseded or session.node is node or rejecting
        standing = node.standings.of("t", self.name, outbox, now)
        seq = None if rejecting and told.in_doubt else standing.resume(told, now)
        unanswered = seq is None and self.rng.random() < 0.3
        if unanswered:
            seq = told.oldest - 1
        elif seq is None:
            found = node.jetstream.last(self.name, outbox)
            standing.found(found, now)
            seq = max(told.oldest - 1, found)
            seq = seq if sent is None else min(seq, sent)
        if unanswered:
            standing.doubt_all(forget=rejecting)
        else:
            standing.doubt(told, seq, CREDIT)
        self.acked[outbox] = self.claimed[outbox] = max(self.acked[outbox], seq)
        self.session = session = Session(self, node, outbox, next_seq=seq + 1)
        session.outlet = SessionOutlet(
            node,
            tenant="t",
            device=self.name,
            outbox=outbox,
            owner=session,
            clock=lambda: node.jetstream.now,
        )
        return session

    def send(self, schema):
        session = self.session
        if session is None:
            return
        outbox = session.outbox
        if self.rng.random() < 0.5 and session.next_seq > self.produced[outbox]:
            self.produced[outbox] += 1
        limit = min(self.produced[outbox], self.acked[outbox] + CREDIT)
        messages = []
        while session.next_seq <= limit and self.rng.random() < 0.8:
            seq = session.next_seq
            if seq % 2 and schema:
                messages.append(Unusable(seq, "schema", "", b"1"))
            else:
                messages.append(Message(seq, "a", Raw(b"1")))
            session.next_seq += 1
            self.sent[outbox] = max(self.sent[outbox], seq)
        if messages:
            session.outlet.store(messages, "")


class World:
    def __init__(self, seed, strategy, nodes, says_sent, *, schemas=False):
        self.rng = rng = random.Random(seed)
        self.jetstream = JetStream(rng)
        self.nodes = [Node(self.jetstream, rng, strategy) for _ in range(nodes)]
        self.devices = [Device(name, rng, says_sent) for name in ("d", "e")]
        self.sessions = defaultdict(list)
        self.schemas = schemas
        self.schema = False

    def step(self, jumps=True):
        rng = self.rng
        jump = jumps and rng.random() < 0.05
        self.jetstream.now += rng.uniform(0, 3 * WINDOW_S) if jump else rng.uniform(0, 0.5)
        if self.schemas and rng.random() < 0.2:
            self.schema = not self.schema
        for device in self.devices:
            if device.session is None or rng.random() < 0.05:
                mine, now = self.sessions[device.name], self.jetstream.now
                if self.schemas:
                    for node in self.nodes:
                        node.land()
                node = rng.choice(self.nodes)
                mine.append(device.connect(node, mine, now, rejecting=self.schemas))
            device.session.deaf = rng.random() < 0.3
            device.send(self.schema)
        for node in rng.sample(self.nodes, len(self.nodes)):
            if rng.random() < 0.8:
                node.step()

    def check(self):
        stored = self.jetstream.stored
        assert max(Counter(stored).values(), default=1) == 1, "stored once"
        for device in self.devices:
            for outbox in "ab":
                seqs = [n for d, o, n in stored if (d, o) == (device.name, outbox)]
                assert seqs == list(range(1, len(seqs) + 1)), "in order, and none missing"
                assert device.claimed[outbox] <= len(seqs), "nothing is settled that is not stored"
