"""Composition of the way to the stream: lanes, commands, the connection, the hold of devices."""

from dataclasses import dataclass

from gateway.edge.hold import StreamHold
from gateway.node import limits
from gateway.node.backbone import Backbone
from gateway.node.basis import Basis
from gateway.node.sessions import SessionCommands
from gateway.node.states import NodeStates
from gateway.process import Worker
from gateway.stream.commands import CommandInlet
from gateway.stream.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Storage:
    """The way to the stream."""

    publisher: Publisher
    commands: CommandInlet
    backbone: Backbone
    hold: StreamHold
    states: NodeStates

    @property
    def workers(self) -> tuple[Worker, ...]:
        """What runs in the background."""
        return (self.states,)


def build_storage(basis: Basis) -> Storage:
    settings, rng = basis.settings, basis.rng
    commands = CommandInlet(SessionCommands(basis.fleet).deliver)
    publisher = Publisher(
        limits.publish_limits(settings),
        node=basis.node,
        observer=basis.observers.stream,
        on_failure=basis.ending.fail,
        rng=rng,
        traces=basis.traces.batches,
    )
    backbone = Backbone(basis, publisher=publisher, hear=commands.on_up)
    hold = StreamHold(basis.fleet, release_per_s=settings.session.release_per_s, rng=rng)
    return Storage(publisher, commands, backbone, hold, NodeStates(basis, backbone))
