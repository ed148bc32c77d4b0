"""Composition of the way to the stream: lanes, commands, the connection, the hold of devices."""

from dataclasses import dataclass
from typing import Final

from gateway.edge.device.hold import StreamHold
from gateway.node import limits
from gateway.node.basis import Basis
from gateway.node.stream.backbone import Backbone
from gateway.node.stream.commands import NodeCommands, QueueWork
from gateway.node.stream.states import NodeStates
from gateway.process import Worker
from gateway.stream.commands.chains import Chains
from gateway.stream.lanes.publisher import Publisher

_COMMANDS_BELOW: Final = 0.25
"""Queued commands are delivered while less than this share of the publish bounds is in use: the
messages of devices go before."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The way to the stream."""

    publisher: Publisher
    commands: NodeCommands
    chains: Chains
    queue: QueueWork
    backbone: Backbone
    hold: StreamHold
    states: NodeStates

    @property
    def workers(self) -> tuple[Worker, ...]:
        """What runs in the background."""
        return (self.states, self.queue)


def build_storage(basis: Basis) -> Storage:
    settings, rng = basis.settings, basis.rng
    publisher = Publisher(
        limits.publish_limits(settings),
        node=basis.node,
        observer=basis.observers.stream,
        on_failure=basis.ending.fail,
        rng=rng,
        traces=basis.traces.batches,
    )
    hold = StreamHold(basis.fleet, release_per_s=settings.session.release_per_s, rng=rng)

    def room() -> bool:
        return not hold.reason and publisher.backlog < _COMMANDS_BELOW

    chains = Chains(settings.session.command_chain_ms / 1000)
    commands = NodeCommands(basis, room, chains)
    backbone = Backbone(basis, publisher=publisher, hear=commands.on_up)
    queue = QueueWork(commands, backbone.wait_ready)
    states = NodeStates(basis, backbone)
    return Storage(publisher, commands, chains, queue, backbone, hold, states)
