"""A publisher over a link to a real nats-server, and the devices that submit through it."""

import random
from time import perf_counter

from msgspec import Raw

from gateway.stream.lanes.batch import Pending, Run
from gateway.stream.lanes.encoding import SourceHeaders
from gateway.stream.lanes.limits import PublishLimits
from gateway.stream.lanes.publisher import Publisher
from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.link import NatsLink
from gateway.stream.observer import StreamObserver
from gateway.stream.provisioning.provision import (
    StreamSettings,
    provision,
    server_version,
    stream_configs,
)
from support.waiting import eventually, within
from tidegate.wire.frames import Message


def wanted(duplicate_window_s):
    return StreamSettings(1, 0, 0, duplicate_window_s, deny_delete=False, deny_purge=False)


def messages(first, last, larger=0):
    return [
        Message(seq, "a", Raw(b"1" * (200_000 if seq == larger else 1)))
        for seq in range(first, last + 1)
    ]


class Owner:
    def __init__(self):
        self.superseded = False
        self.acked = 0
        self.rejects = []

    def stored(self, seq):
        assert seq > self.acked, "settled out of order"
        self.acked = seq

    def rejected(self, seq, error, detail):
        self.rejects.append((seq, error))


class Counting(StreamObserver):
    def __init__(self):
        self.duplicates = 0
        self.retries = []
        self.kinds = set()

    def batch_settled(self, kind, messages, duplicates, seconds):
        self.kinds.add(kind)
        self.duplicates += duplicates

    def batch_retried(self, reason, messages):
        self.retries.append(reason)


class Rig:
    """A publisher over a link to one server, and devices that submit through it."""

    def __init__(self, url, strategy, **limits):
        self.observer = Counting()
        self.failures = []
        self.publisher = Publisher(
            PublishLimits(**{"ack_timeout_s": 10.0, "retry_s": 0.01, "retry_max_s": 0.1, **limits}),
            node="abcd",
            observer=self.observer,
            on_failure=self.failures.append,
            rng=random.Random(1),
        )
        self.publisher.strategy = strategy
        self.deaf = False
        self.streams = dict.fromkeys(
            ("EVENTS", "DEADLETTERS"), wanted(limits.get("duplicate_window_s", 120))
        )
        self.link = NatsLink(
            NatsAddress((url,), reconnect_wait_s=0.01, reconnect_wait_max_s=0.1),
            name="test",
            on_up=self.on_up,
            on_ready=self.publisher.on_ready,
            on_down=self.publisher.on_down,
            on_failure=self.failures.append,
            rng=random.Random(2),
        )
        self.owners = {}

    async def on_up(self, client):
        """Answers are lost while the rig is deaf."""
        hear = client.subscribe_raw

        async def subscribe_raw(subject, handler):
            await hear(subject, lambda *reply: None if self.deaf else handler(*reply))

        client.subscribe_raw = subscribe_raw
        await self.publisher.on_up(client)

    async def __aenter__(self):
        self.link.start()
        client = await within(self.link.wait_up())
        configs = stream_configs(self.streams, server_version(client))
        for config in configs:
            config.max_msg_size = 100_000
        await provision(client, configs)
        return self

    async def __aexit__(self, *_):
        await self.publisher.close()
        assert self.failures == []
        await self.link.stop()

    def submit(self, device, seq, data=b"{}"):
        owner = self.owners.setdefault(device, Owner())
        event = SourceHeaders("t", device, "box").event(seq, "a", "2026-11-23T10:00:00Z", data)
        standing = self.publisher.standings.of("t", device, "box", perf_counter())
        item = Pending(owner, standing, seq, event, event.size, perf_counter())
        self.publisher.lane_of(device).submit([item], item.size)

    def submit_run(self, device, messages):
        owner = self.owners.setdefault(device, Owner())
        standing = self.publisher.standings.of("t", device, "box", perf_counter())
        headers = SourceHeaders("t", device, "box")
        run = Run(owner, standing, messages, headers, "2026-11-23T10:00:00Z", 100, perf_counter())
        self.publisher.lane_of(device).submit_run(run)

    @property
    def asking(self):
        return self.publisher.asking

    async def settled(self, device, seq):
        await eventually(lambda: self.owners[device].acked >= seq, f"{device} settled {seq}")
