"""What a gateway says of itself in the log when it starts, serves and has stopped."""

import structlog

from gateway.node.device_port import DevicePort
from gateway.node.place import WorkerPlace
from gateway.node.stream.backbone import Backbone
from gateway.process import OpsPort, nothing
from gateway.stream.lanes.publisher import Publisher

_log = structlog.get_logger(__name__)


class Announcements:
    """Log lines that operators and tools wait for."""

    def __init__(
        self,
        *,
        node: str,
        devices: DevicePort,
        ops: OpsPort,
        backbone: Backbone,
        publisher: Publisher,
        place: WorkerPlace | None,
    ) -> None:
        """
        Args:
            node: name of this process.
            devices: the port of the devices.
            ops: the port of the operators.
            backbone: knows the NATS server.
            publisher: knows how messages are published.
            place: of a worker, whose supervisor says of the gateway what a process of its own says.
        """
        self._prefix = "" if place is None else "worker_"
        self._on_listening = nothing if place is None else place.on_listening
        self._node = node
        self._devices = devices
        self._ops = ops
        self._backbone = backbone
        self._publisher = publisher

    def listening(self) -> None:
        _log.info(
            f"{self._prefix}listening",
            node=self._node,
            port=self._devices.port,
            **self._ops.where,
        )
        self._on_listening()

    def serving(self) -> None:
        _log.info(
            f"{self._prefix}serving",
            node=self._node,
            port=self._devices.port,
            **self._ops.where,
            nats_server=self._backbone.facts.version,
            strategy=self._publisher.strategy.value,
            durability=self._backbone.facts.durability,
        )

    def stopped(self) -> None:
        _log.info(f"{self._prefix}stopped", node=self._node)
