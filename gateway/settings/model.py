"""All settings in one model, and what must hold between sections."""

import os
from itertools import combinations
from typing import Final, Self

from pydantic import model_validator

from gateway.settings.devices import (
    Admission,
    Compression,
    Credentials,
    Keepalive,
    Limits,
    Server,
    Session,
    Tls,
)
from gateway.settings.kinds import Section, at_most
from gateway.settings.services import (
    Cluster,
    Commands,
    Drain,
    Events,
    Log,
    Nats,
    Ops,
    Presence,
    Publish,
    Stream,
    Trace,
)

BATCHES_OPEN_MAX: Final = 50
"""Atomic batches that nats-server 2.12 and later keeps open for one stream."""
_BATCHES_A_LANE: Final = 2
"""Open at once: the batch in flight, and the batch of a lane's predecessor that is in doubt."""


class Settings(Section):
    """All settings of a gateway."""

    server: Server = Server()
    tls: Tls = Tls()
    ops: Ops = Ops()
    limits: Limits = Limits()
    compression: Compression = Compression()
    keepalive: Keepalive = Keepalive()
    session: Session = Session()
    credentials: Credentials = Credentials()
    admission: Admission = Admission()
    cluster: Cluster = Cluster()
    nats: Nats = Nats()
    stream: Stream = Stream()
    publish: Publish = Publish()
    presence: Presence = Presence()
    commands: Commands = Commands()
    drain: Drain = Drain()
    log: Log = Log()
    trace: Trace = Trace()
    events: Events = Events()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream.replicas > 1 and not self.nats.urls:
            raise ValueError(
                f"stream.replicas is {self.stream.replicas}, but without nats.urls there is one"
                " nats-server, the embedded one: set nats.urls, or stream.replicas = 1"
            )
        return self

    @model_validator(mode="after")
    def _bounds_of_publish_hold(self) -> Self:
        limits, publish, credit_max = self.limits, self.publish, self.session.credit_max
        pending_bytes, pending = publish.pending_bytes, publish.pending_messages
        at_most("limits.frame_bytes", limits.frame_bytes, "publish.pending_bytes", pending_bytes)
        at_most(
            "limits.message_bytes", limits.message_bytes, "publish.batch_bytes", publish.batch_bytes
        )
        at_most("session.credit_max", credit_max, "publish.pending_messages", pending)
        return self

    @model_validator(mode="after")
    def _each_port_has_one_listener(self) -> Self:
        listeners = {
            "server.port": (self.server.host, self.server.port),
            "ops.port": (self.ops.host, self.ops.port),
        }
        if not self.nats.urls:
            listeners["nats.embedded_port"] = ("127.0.0.1", self.nats.embedded_port)
        for (name, (host, port)), (later, address) in combinations(listeners.items(), 2):
            if port and port == address[1] and _overlap(host, address[0]):
                raise ValueError(f"{later}: {port} is the port of {name} already")
        return self

    @model_validator(mode="after")
    def _workers_fit_the_stream(self) -> Self:
        workers, lanes = self.server.workers, self.publish.lanes
        if isinstance(workers, int) and workers * lanes * _BATCHES_A_LANE > BATCHES_OPEN_MAX:
            raise ValueError(
                f"server.workers is {workers} and publish.lanes is {lanes}: a stream takes"
                f" {BATCHES_OPEN_MAX} open batches and each lane may have {_BATCHES_A_LANE}, so"
                f" workers x lanes must be at most {BATCHES_OPEN_MAX // _BATCHES_A_LANE}"
            )
        return self

    @property
    def worker_count(self) -> int:
        """The worker processes that `server.workers` asks for.

        `auto` is one a core that this process may use, and no more than the stream has batches for.
        """
        workers = self.server.workers
        if isinstance(workers, int):
            return workers
        most = BATCHES_OPEN_MAX // (self.publish.lanes * _BATCHES_A_LANE)
        return max(1, min(most, len(os.sched_getaffinity(0))))


def _overlap(one: str, other: str) -> bool:
    anywhere = {"", "0.0.0.0", "::"}  # noqa: S104  # recognised, not bound
    return one == other or one in anywhere or other in anywhere
