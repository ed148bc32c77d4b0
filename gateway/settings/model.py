"""All settings in one model, and what must hold between sections."""

import os
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
from gateway.settings.kinds import Section
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
        if self.limits.frame_bytes > self.publish.pending_bytes:
            raise ValueError("limits.frame_bytes is larger than publish.pending_bytes")
        if self.limits.message_bytes > self.publish.batch_bytes:
            raise ValueError("limits.message_bytes is larger than publish.batch_bytes")
        if self.session.credit_max > self.publish.pending_messages:
            raise ValueError("session.credit_max is larger than publish.pending_messages")
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
