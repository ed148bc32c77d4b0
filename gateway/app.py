"""The composition root: builds a gateway from the settings, and says in which order it starts.

Each part is handed over whole, so a part is built after all that it needs. Parts stop in the
reverse order of their start: whatever was taken from a device is stored and acknowledged before
NATS goes. This module decides nothing; `gateway/node/` and the rooms do.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from gateway.collector import CalmCollector, measures
from gateway.data_directory import DataDirectoryLock
from gateway.node.admission import build_admission
from gateway.node.announcements import Announcements
from gateway.node.basis import build_basis
from gateway.node.devices import build_devices
from gateway.node.drain import NodeDrain, SlotsElsewhere
from gateway.node.flow import HoldLoop, LoopLag, RateLoop
from gateway.node.lifecycle import Lifecycle
from gateway.node.operators import build_operators
from gateway.node.place import WorkerPlace
from gateway.node.reloaded.reload import Reload
from gateway.node.storage import build_storage
from gateway.process import Assembly, Background, LogSummaries, Part, nothing
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics

_BACKBONE_STOP_S: Final = 60.0
"""More than the steps of its stop together, each of which has its own bound."""


class Gateway:
    """One gateway process."""

    def __init__(
        self,
        settings: Settings,
        *,
        wall: Callable[[], float] = time.time,
        read_settings: Callable[[], Settings] | None = None,
        place: WorkerPlace | None = None,
    ) -> None:
        """Build every part. Call it in the event loop that will run them.

        Args:
            settings: of the gateway.
            wall: Unix time as this machine has it, seconds. Credentials are judged by it.
            read_settings: reads them again at SIGHUP.
            place: of a worker; None for a gateway of one process.

        Raises:
            EdgeError: the certificate cannot be used.
            EventsError: the events file, or a schema, cannot be used.
            OpsError, OSError: tokens of operators, or ticket secrets, cannot be read.
            TelemetryError: the spans cannot be exported.
        """
        basis = self.basis = build_basis(settings, wall, place)
        storage = self.storage = build_storage(basis)
        admission = self.admission = build_admission(basis)
        devices = self.devices = build_devices(basis, storage, admission)
        operators = self.operators = build_operators(
            basis, storage, admission, devices, read_settings
        )
        lag = LoopLag()
        lag.register_gauges(basis.metrics)
        rate = RateLoop(
            admission.controller,
            signals=storage.publisher.signals,
            lag=lag,
            membership=admission.membership,
            desk=admission.desk,
            gate=devices.gate,
            follower=storage.commands.observe,
            clock=basis.local,
        )
        admission.slots_changed.add(rate.calendar_changed)
        self.hold = HoldLoop(
            storage.backbone,
            hold=storage.hold,
            desk=admission.desk,
            gate=devices.gate,
            pending=lambda: storage.publisher.pending_messages,
        )
        node = (admission.revocations, admission.membership, admission.steering)
        own = (rate, lag, self.hold, LogSummaries())
        workers = (*devices.workers, *storage.workers, *own, *node, *operators.pages)
        self.background = Background(workers, on_failure=basis.ending.fail)
        self.collector = CalmCollector(
            measures(tls=settings.tls.cert_file is not None), connections=devices.gate.__len__
        )
        self.announcements = self._announcements()
        self.lifecycle = self._lifecycle()

    def _announcements(self) -> Announcements:
        return Announcements(
            node=self.basis.node,
            devices=self.devices.port,
            ops=self.operators.port,
            backbone=self.storage.backbone,
            publisher=self.storage.publisher,
            place=self.basis.place,
        )

    def _lifecycle(self) -> Lifecycle:
        basis, devices, operators = self.basis, self.devices, self.operators
        return Lifecycle(
            Assembly(self._parts()),
            state=operators.state,
            ending=basis.ending,
            orders=operators.orders,
            storage_ready=self.storage.backbone.wait_ready,
            on_serving=self._on_serving,
            draining=self._drain(),
            reload=Reload(
                (operators.live, devices.transport, operators.access, devices.schemas),
                keys=devices.keys,
                background=self.background,
            ).run,
        )

    def _drain(self) -> NodeDrain:
        basis, admission = self.basis, self.admission
        slots = SlotsElsewhere(
            basis.settings,
            admission.membership,
            admission.office,
            fleet=basis.fleet,
            clock=basis.local,
            rng=basis.rng,
        )
        return NodeDrain(
            basis.settings,
            slots,
            fleet=basis.fleet,
            membership=admission.membership,
            gate=self.devices.gate,
            publisher=self.storage.publisher,
            rng=basis.rng,
            **({} if basis.place is None else {"leaving": basis.place.leaving}),
        )

    def _parts(self) -> Iterator[Part]:
        """In the order in which they start. They stop in the reverse order."""
        storage, admission, devices = self.storage, self.admission, self.devices
        yield Part("log", nothing, self.announcements.stopped)
        yield self.basis.traces.part()
        if self.basis.place is None:  # else the supervisor holds the lock
            lock = DataDirectoryLock(self.data_dir)
            yield Part("data-directory", lock.acquire, lock.release)
        yield Part("reloads", nothing, self.background.stop)  # SIGHUP may come before its start
        yield Part("ops", self.operators.port.start, self.operators.port.stop)
        yield Part("keys", devices.keys.start, nothing)
        yield Part("backbone", nothing, storage.backbone.stop, _BACKBONE_STOP_S)
        yield Part("publisher", storage.backbone.start, storage.publisher.close)
        yield Part("revocations", admission.revocations.load, admission.revocations.stop)
        yield Part("membership", admission.membership.open, admission.membership.close)
        yield Part("presence", devices.presence.start, devices.presence.stop)
        yield Part("hold", self.hold.begin, self.hold.stop)
        yield Part("background", self.background.start, self.background.stop)
        yield Part("devices", devices.port.start, devices.port.stop)
        yield Part("collector", nothing, self.collector.stop)
        yield Part("listening", self.announcements.listening, nothing)

    def _on_serving(self) -> None:
        self.hold.look()
        self.announcements.serving()

    # Running

    async def run(self, *, on_ready: Callable[["Gateway"], None] | None = None) -> None:
        """Serve until a signal, then stop in order.

        Args:
            on_ready: called once devices are admitted.

        Raises:
            Exception: whatever kept the gateway from starting or running.
        """

        def running() -> None:
            self.collector.start()
            self.background.add(self.collector.run(), "collector")
            if on_ready is not None:
                on_ready(self)

        await self.lifecycle.run(running)

    async def start(self) -> None:
        """Start every part. Devices are refused with a time until `ready` returns.

        Raises:
            GatewayError: another gateway holds the data directory.
            EdgeError: an address that cannot be bound.
            AdmissionError: keys that cannot be used.
            ClusterError: Redis refuses this node.
        """
        await self.lifecycle.start()

    async def ready(self) -> None:
        """Wait until devices are admitted.

        Raises:
            Exception: the failure that will keep the gateway from it.
        """
        await self.lifecycle.ready()

    async def stop(self) -> None:
        """Stop in order; see `Lifecycle.stop`."""
        await self.lifecycle.stop()

    def drain(self, now: bool = False) -> None:
        """Give every device a slot elsewhere, then stop; see `StopOrders.drain`."""
        self.operators.orders.drain(now)

    @property
    def data_dir(self) -> Path:
        return self.basis.settings.nats.data_dir

    @property
    def metrics(self) -> Metrics:
        return self.basis.metrics

    @property
    def port(self) -> int:
        """Where devices connect."""
        return self.devices.port.port

    @property
    def ops_port(self) -> int:
        """Where operators connect."""
        return self.operators.port.port

    def not_ready(self) -> str | None:
        """Why no device should be sent here, or None."""
        return self.operators.status.not_ready()

    def status(self) -> dict[str, Any]:
        """The state of the node in a page."""
        return self.operators.status.page()
