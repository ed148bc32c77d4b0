"""A device's session on a connection in memory, with the parts around it played."""

import asyncio
import json
import random

from gateway.admission.credential import Identity
from gateway.admission.errors import CredentialError
from gateway.admission.revocation import RevocationList
from gateway.edge.device.context import DeviceContext
from gateway.edge.device.device import DeviceHandler
from gateway.edge.fleet import Fleet
from gateway.edge.memory import DeviceMemory
from gateway.edge.observer import EdgeObserver
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.session.limits import SessionLimits


class Line:
    """Stands for the connection: what was sent, whether it is read, how it ended."""

    congested = False

    def __init__(self):
        self.sent = []
        self.paused = 0
        self.spent = []
        self.ended = None
        self.touched = 0

    @property
    def is_open(self):
        return self.ended is None

    def send_text(self, text):
        self.sent.append(json.loads(text))

    def fail(self, code, reason, _cause):
        self.ended = code, json.loads(reason)

    def close(self, code, reason, _cause):
        self.ended = code, json.loads(reason)

    def spend(self, frames, _size):
        self.spent.append(frames)
        return self.is_open

    def pause_reading(self, reason):
        self.paused |= reason

    def resume_reading(self, reason):
        self.paused &= ~reason

    def touch(self):
        self.touched += 1


class Stream:
    """Stands for the stream: `points` are known at once, others when they are `found`."""

    def __init__(self):
        self.points = {}
        self.asked = []
        self.found = asyncio.get_running_loop().create_future()

    def known(self, _tenant, _device, hello):
        return self.points.get(hello.outbox)

    async def look_up(self, _tenant, _device, hello):
        self.asked.append(hello.outbox)
        return await self.found


class Outlet:
    def __init__(self):
        self.full = False
        self.stored, self.waiting = [], []

    def store(self, messages, received_at):
        self.stored += messages

    def when_drained(self, callback):
        self.waiting.append(callback)


class Verifier:
    """Credentials are the identities that it was given by name."""

    def __init__(self):
        self.known = {}

    def verify(self, token):
        if token not in self.known:
            raise CredentialError("signature", "wrong")
        return self.known[token]


def identity(device="veh-1", expires_at=2**40):
    return Identity(device, "default", "", urgent=False, jti="", expires_at=expires_at)


class Watch:
    def __init__(self):
        self.fences = iter(range(1, 100))
        self.sessions, self.ends = [], []

    def next_fence(self):
        return next(self.fences)

    def established(self, member):
        self.sessions.append((member.key, member.fence))

    def ended(self, key, fence, cause):
        self.ends.append((key, fence, cause))


class States:
    """Stands for what the node knows of states: `found` by device, others are asked for."""

    wait_s = 60.0

    def __init__(self):
        self.found = {}
        self.asked = {}

    def known(self, key):
        return self.found.get(key)

    def ask(self, key, held, answer):
        self.asked[key] = (held, answer)

    def forget(self, key, _answer):
        self.asked.pop(key, None)


class Rig:
    def __init__(self):
        self.held = ""
        self.wall = 0.0
        self.results = []
        self.outlet = Outlet()
        self.verifier = Verifier()
        self.stream = Stream()
        self.states = States()
        self.watch = Watch()
        self.outboxes = []
        self.line = Line()
        self.fleet = Fleet(first_retry_ms_min=2_000, refusals_per_s=1, clock=lambda: 0.0)
        self.revocations = RevocationList(lambda: 0.0)
        self.context = DeviceContext(
            limits=SessionLimits(credit_initial=4),
            verifier=self.verifier,
            fleet=self.fleet,
            memory=DeviceMemory(),
            open_outlet=self.open_outlet,
            on_answer=self.on_answer,
            observer=EdgeObserver(),
            rng=random.Random(1),
            loop=asyncio.get_running_loop(),
            hello_timeout_s=10,
            credential_leeway_s=1,
            keepalive_ms=30_000,
            revocations=self.revocations,
            watch=self.watch,
            pool=CreditPool(maximum=256, budget_bytes=2**30),
            fairness=FairShare(),
            credit_greedy=1,
            backlog=lambda: 0.0,
            held=lambda: self.held,
            resume_points=self.stream,
            states=self.states,
            wall_clock=lambda: self.wall,
        )
        self.handler = self.open(self.line)

    def open(self, line):
        """The handler of another connection of the device."""
        handler = DeviceHandler(self.context, identity(expires_at=100.0))
        handler.opened(line)
        return handler

    def open_outlet(self, _tenant, _device, outbox, _owner):
        self.outboxes.append(outbox)
        return self.outlet

    def on_answer(self, _tenant, _device, result):
        self.results.append(result.id)
        return result.id == "known"

    def enter(self):
        """The device says hello, and one message that is not settled."""
        self.stream.points = {"a": 0}
        self.say(hello("a"))
        self.say({"seq": 1, "type": "t", "data": 1})
        self.hear()

    def say(self, frame):
        self.handler.received_text(json.dumps(frame).encode())

    def hear(self):
        heard, self.line.sent = self.line.sent, []
        return heard


def hello(outbox, oldest=1, **more):
    return {"hello": {"outbox": outbox, "oldest": oldest, **more}}
