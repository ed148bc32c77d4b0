"""All settings in one model, and what must hold between sections."""

from typing import Self

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
    Drain,
    Events,
    Log,
    Nats,
    Ops,
    Publish,
    Stream,
    Trace,
)


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
