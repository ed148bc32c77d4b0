"""The composition root: builds every part from the settings, starts and stops them in order.

Start: data directory, ops page, keys, NATS in the background, and the devices' listener, which
refuses with a time until the streams are there. Stop is the reverse: whatever was taken from a
device is stored and acknowledged before NATS goes. Each part owns and ends its own tasks; each step
of a stop is bounded, so that the whole is.
"""

import asyncio
import contextlib
import platform
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Final

import structlog
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway import development, tasks
from gateway.admission.credential import CredentialPolicy, CredentialVerifier
from gateway.backbone import Backbone
from gateway.collector import CalmCollector, measures
from gateway.data_directory import DataDirectoryLock
from gateway.drain import send_away
from gateway.edge import descriptors
from gateway.edge.anteroom import Anteroom
from gateway.edge.connection import WebSocketConnection
from gateway.edge.context import ConnectionContext, ConnectionLimits, partings
from gateway.edge.descriptors import Room
from gateway.edge.device import DeviceContext, DeviceHandler
from gateway.edge.errors import TlsError
from gateway.edge.fleet import Fleet
from gateway.edge.gate import DeviceGate
from gateway.edge.hold import StreamHold
from gateway.edge.key_source import KeySource
from gateway.edge.knock import Granted, KnockContext
from gateway.edge.listener import Listener
from gateway.edge.outlet import Outlet, OutletOwner
from gateway.edge.side_traffic import SideBudget
from gateway.edge.tls import Certificate
from gateway.edge.wheel import TimingWheel
from gateway.events.document import read_events_file
from gateway.ops.gateway_orders import GatewayOrders
from gateway.ops.listener import OpsListener, Pages
from gateway.reception import Reception
from gateway.revoking import OperatorRevocations
from gateway.schemas_in_force import SchemasInForce
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.session.machine import SessionLimits
from gateway.settings import Settings
from gateway.stream.commands import CommandInlet
from gateway.stream.outlet import SessionOutlet
from gateway.stream.publisher import Publisher, PublishLimits
from gateway.stream.watermark import ResumePoints
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import make_sampler
from tidegate.wire import frames
from tidegate.wire.grammar import is_token

_log = structlog.get_logger(__name__)

_CLOSING_S: Final = 1.0
_STEP_S: Final = 10.0
"""The most one step of a stop may take, beside the drain and the embedded nats-server's own."""
_TURN_S: Final = 0.5


class Gateway:
    """One gateway process."""

    def __init__(self, settings: Settings, *, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            settings: of the gateway.
            wall: Unix time as this machine has it, seconds. Credentials are judged by it.
        """
        self._settings = settings
        self._rng = random.Random()
        self._node = secrets.token_hex(4)
        self._wall = wall
        self._started_at = time.monotonic()
        self._state = "starting"
        self._certificate: Certificate | None = None
        self._verifier: CredentialVerifier | None = None
        self._lock = DataDirectoryLock(settings.nats.data_dir)
        self._crew = tasks.Crew(self._fail)
        self._parts = contextlib.AsyncExitStack()
        self._failures: list[BaseException] = []
        self._stop_signals = 0
        self._stopping: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._gate: DeviceGate | None = None
        self._wheel: TimingWheel | None = None
        self._schemas: SchemasInForce | None = None
        self._ending = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._room = Room(settings.server.connections_max, settings.server.anonymous_max)
        self.port = 0
        self.ops_port = 0
        self.metrics = Metrics()
        session = settings.session
        self._fleet: Fleet[DeviceHandler] = Fleet(
            first_retry_ms_min=session.first_retry_min_ms,
            refusals_per_s=max(session.refusals_per_s, int(2 * settings.admission.rate_per_s)),
            clock=time.monotonic,
        )
        self._commands = CommandInlet(self._deliver)
        self._sample = make_sampler(settings.trace.sample_ratio, self._rng)
        publish = settings.publish
        self._publisher = Publisher(
            PublishLimits(
                lanes=publish.lanes,
                batch_messages_max=publish.batch_messages,
                batch_bytes_max=publish.batch_bytes,
                pending_messages_max=publish.pending_messages,
                pending_bytes_max=publish.pending_bytes,
                ack_timeout_s=publish.ack_timeout_ms / 1000,
                retry_s=publish.retry_ms / 1000,
                retry_max_s=publish.retry_max_ms / 1000,
                hold_after_s=publish.hold_after_ms / 1000,
                duplicate_window_s=settings.stream.duplicate_window_s,
                linger_s=publish.linger_ms / 1000,
                lookups=session.resume_lookups,
            ),
            node=self._node,
            observer=self.metrics,
            on_failure=self._fail,
            rng=self._rng,
        )
        self._backbone = Backbone(
            settings,
            node=self._node,
            publisher=self._publisher,
            metrics=self.metrics,
            hear=self._commands.on_up,
            on_failure=self._fail,
            rng=self._rng,
        )
        self._hold = StreamHold(
            lambda: list(self._fleet), release_per_s=session.release_per_s, rng=self._rng
        )
        self._fairness = FairShare()
        self._pool = CreditPool(
            maximum=session.credit_max, budget_bytes=session.credit_budget_bytes
        )
        self._reception = Reception(
            settings,
            node=self._node,
            fleet=self._fleet,
            metrics=self.metrics,
            rng=self._rng,
            downstream=self._publisher.signals,
            trouble=lambda: self._backbone.trouble,
            hold=self._hold,
            wall=wall,
        )
        self._ops = OpsListener(
            Pages(metrics=self.metrics.exposition, not_ready=self.not_ready, status=self.status),
            routes=GatewayOrders(
                drain=self.drain,
                revocations=OperatorRevocations(self._reception.revocations),
                is_token=is_token,
            ).routes(),
            hosts=settings.ops.hosts,
        )
        self._register_gauges()

    # Running

    @property
    def data_dir(self) -> Path:
        return self._settings.nats.data_dir

    async def run(self, *, on_ready: Any = None) -> None:
        """Serve until a signal, then stop in order.

        Args:
            on_ready: called once devices are admitted.

        Raises:
            Exception: whatever kept the gateway from starting or running.
        """
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._on_stop_signal,
            signal.SIGINT: self._on_stop_signal,
            signal.SIGHUP: self._reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            await self._serve(on_ready)
        finally:
            await self.stop()
            for number in handlers:
                loop.remove_signal_handler(number)
        for failure in self._failures:
            raise failure

    def drain(self, now: bool = False) -> None:
        """Give every device a slot elsewhere, then stop. May be called again.

        Args:
            now: stop at once, also if a drain goes on already.
        """
        if now and not self._stop_now.is_set():
            _log.warning("stopping_now")
            self._stop_now.set()
        self._ending.set()

    def _on_stop_signal(self) -> None:
        """SIGTERM or SIGINT: the first drains, the second stops at once.

        A drain that was asked for on the ops port does not count: a service manager sends its
        SIGTERM after the drain of a hook that runs before the stop.
        """
        self._stop_signals += 1
        self.drain(now=self._stop_signals > 1)

    async def _serve(self, on_ready: Any) -> None:
        """Start and go on until a stop is asked for or a part fails."""
        if await self._unless_ending(self.start()) and await self._unless_ending(self.ready()):
            collector = CalmCollector(
                measures(tls=self._settings.tls.cert_file is not None),
                connections=lambda: len(self._gate) if self._gate is not None else 0,
            )
            self._parts.callback(collector.stop)
            collector.start()
            self._crew.start(collector.run(), "collector")
            if on_ready is not None:
                on_ready(self)
        await self._ending.wait()

    async def _unless_ending(self, step: Coroutine[Any, Any, None]) -> bool:
        """Whether `step` finished before a stop was asked for; if not, it is cut short."""
        ending = asyncio.create_task(self._ending.wait(), name="ending")
        stepping = asyncio.create_task(step, name="starting")
        try:
            await asyncio.wait({stepping, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = stepping.done()
            await tasks.end(stepping, ending)
        if finished:
            await stepping
        return finished

    def _fail(self, failure: BaseException) -> None:
        """A part has failed for good: the gateway ends with its error."""
        self._failures.append(failure)
        self.drain()

    async def start(self) -> None:
        """Start every part; returns when devices are listened to.

        They are refused with a time until `ready` returns.

        Raises:
            GatewayError: another gateway holds the data directory.
            EdgeError: an address that cannot be bound, or a certificate that cannot be used.
            AdmissionError: keys that cannot be used.
            ClusterError: Redis refuses this node.
        """
        settings, parts = self._settings, self._parts
        self._lock.acquire()
        parts.callback(self._lock.release)
        parts.push_async_callback(self._bounded, self._ops.stop, "ops-stop")
        self.ops_port = await self._ops.start(settings.ops.host, settings.ops.port)
        if settings.tls.cert_file is not None and settings.tls.key_file is not None:
            self._use_certificate(settings.tls.cert_file, settings.tls.key_file)
        await self._start_verifier()
        parts.push_async_callback(self._backbone.stop)
        parts.push_async_callback(self._publisher.close)
        self._room = self._find_room()
        self._backbone.start()
        parts.push_async_callback(self._bounded, self._reception.close, "reception-close")
        parts.push_async_callback(self._crew.close)
        await self._reception.open()
        await self._start_listener()
        _log.info("listening", node=self._node, port=self.port, ops_port=self.ops_port)

    async def ready(self) -> None:
        """Wait until devices are admitted.

        Raises:
            Exception: the failure that will keep the gateway from it.
        """
        failing = asyncio.create_task(self._ending.wait(), name="failing")
        waiting = asyncio.create_task(self._backbone.wait_ready(), name="waiting")
        try:
            await asyncio.wait({failing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready = waiting.done()
            await tasks.end(failing, waiting)
        for failure in self._failures:
            raise failure
        if not ready or self._state != "starting":
            return
        self._state = "serving"
        self._reception.hold_or_release()
        _log.info(
            "serving",
            node=self._node,
            port=self.port,
            ops_port=self.ops_port,
            nats_server=self._backbone.version,
            strategy=self._publisher.strategy.value,
            durability=self._backbone.durability,
        )

    async def stop(self) -> None:
        """Stop in order: no new devices, lanes flushed, devices told, NATS last.

        Every step has an upper bound. Called again, it waits for the stop that goes on.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stop")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._ending.set()
        if self._state == "serving":
            self._state = "draining"
            if self._gate is not None:
                self._gate.draining = True
            drain = asyncio.create_task(self._drain(), name="drain")
            now = asyncio.create_task(self._stop_now.wait(), name="stop-now")
            await asyncio.wait({drain, now}, return_when=asyncio.FIRST_COMPLETED)
            if not drain.done():
                _log.warning("drain_cut_short", unsettled=self._publisher.pending_messages)
            await tasks.end(drain, now)
            if not drain.cancelled() and drain.done() and (failure := drain.exception()):
                _log.error("drain_failed", error=repr(failure))
                self._failures.append(failure)
        self._state = "stopped"
        try:
            await self._parts.aclose()
        finally:
            _log.info("stopped", node=self._node)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            await self._listener.stop()
        if self._gate is not None:
            self._gate.abort_all()
        if self._wheel is not None:
            self._wheel.close()

    async def _bounded(self, step: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        await tasks.bounded(step(), name, _STEP_S)

    # What the ops page says

    def not_ready(self) -> str | None:
        """Why no device should be sent here, or None."""
        if self._state in {"draining", "stopped"}:
            return self._state
        return self._backbone.trouble or (self._state if self._state != "serving" else None)

    def status(self) -> dict[str, Any]:
        """The state of the node in a page."""
        publisher = self._publisher
        return {
            "version": package_version("tidegate-gateway"),
            "node": self._node,
            "state": self._state,
            "not_ready": self.not_ready(),
            "uptime_s": round(time.monotonic() - self._started_at, 1),
            "devices": len(self._fleet),
            "connections": len(self._gate) if self._gate is not None else 0,
            "connections_max": self._room.devices,
            "first_retry_ms": self._fleet.first_retry_ms,
            "admission": self._reception.status(),
            "pending": {
                "messages": publisher.pending_messages,
                "bytes": publisher.pending_bytes,
            },
            "stream": self._backbone.status(),
            "credentials": {
                "cached": len(self._verifier) if self._verifier is not None else 0,
                "development_key": self._uses_development_key,
            },
        }

    def _register_gauges(self) -> None:
        publisher, gauge = self._publisher, self.metrics.gauge
        self.metrics.info(
            "tidegate_build_info",
            "1, with the version of the gateway and of Python in the labels.",
            {"version": package_version("tidegate-gateway"), "python": platform.python_version()},
        )
        gauge("tidegate_devices", "Devices with a session.", lambda: len(self._fleet))
        gauge(
            "tidegate_connections",
            "Connections, admitted or on their way.",
            lambda: len(self._gate) if self._gate is not None else 0,
        )
        gauge(
            "tidegate_pending_messages",
            "Messages received and not yet settled.",
            lambda: publisher.pending_messages,
        )
        gauge("tidegate_pending_bytes", "Bytes of those messages.", lambda: publisher.pending_bytes)
        gauge(
            "tidegate_ready",
            "1 if devices should be sent here.",
            lambda: int(self.not_ready() is None),
        )
        self.metrics.counted(
            "tidegate_credential_verifications_total",
            "Signatures checked.",
            lambda: self._verifier.verifications if self._verifier is not None else 0,
        )
        self.metrics.counted(
            "tidegate_credential_cache_hits_total",
            "Credentials recognised without checking their signature.",
            lambda: self._verifier.cache_hits if self._verifier is not None else 0,
        )
        gauge(
            "tidegate_credit_ceiling",
            "Messages one device may have outstanding now.",
            lambda: self._pool.ceiling(len(self._fleet), publisher.backlog),
        )
        gauge(
            "tidegate_greedy_devices",
            "Devices that send far more than the others and have a small window for it.",
            lambda: self._fairness.greedy,
        )
        gauge(
            "tidegate_held",
            "1 while devices have no credit because the stream stores nothing.",
            lambda: int(bool(self._hold.reason)),
        )
        gauge(
            "tidegate_first_retry_seconds",
            "Over how long the fleet spreads its first knock.",
            lambda: self._fleet.first_retry_ms / 1000,
        )

    # Starting

    @property
    def _uses_development_key(self) -> bool:
        credentials = self._settings.credentials
        return credentials.jwks_file is None and credentials.jwks_url is None

    async def _start_verifier(self) -> None:
        credentials = self._settings.credentials
        file = credentials.jwks_file
        if self._uses_development_key:
            file = development.ensure_key(self._settings.nats.data_dir)
            _log.warning(
                "development_key", file=str(file), hint="set credentials.jwks_file or _url"
            )
        self._key_source = KeySource(
            file=file,
            url=credentials.jwks_url,
            algorithms=credentials.algorithms,
            refresh_s=credentials.jwks_refresh_ms / 1000,
            rng=self._rng,
        )
        keys = await self._key_source.load()
        verifier = CredentialVerifier(
            keys,
            CredentialPolicy(
                algorithms=credentials.algorithms,
                audience=credentials.audience,
                issuer=credentials.issuer,
                leeway_s=credentials.leeway_ms / 1000,
            ),
            clock=self._wall,
            is_token=is_token,
            cache_entries_max=credentials.cache_entries,
            on_unknown_key=self._key_source.look_soon,
        )
        self._verifier = verifier
        self._crew.start(self._key_source.keep_fresh(verifier.rotate), "jwks")

    def _use_certificate(self, cert_file: Path, key_file: Path) -> None:
        certificate = self._certificate = Certificate(cert_file, key_file, wall_clock=time.time)
        self.metrics.gauge(
            "tidegate_certificate_expires_seconds",
            "Seconds until the certificate in force expires; negative if it has.",
            lambda: certificate.expires_in_s,
        )
        if certificate.trouble:
            _log.error(
                "certificate_not_valid",
                file=str(cert_file),
                problem=certificate.trouble,
                hint="clients refuse it: put a new one in its place and send SIGHUP",
            )

    def _find_room(self) -> Room:
        """How many connections there are descriptors for; says so if it is fewer than are set."""
        server = self._settings.server
        wanted = descriptors.needed(server.connections_max, server.anonymous_max)
        limit = descriptors.raise_limit(wanted)
        room = descriptors.room_within(limit, server.connections_max, server.anonymous_max)
        if limit < wanted:
            _log.warning(
                "descriptors_short",
                needed=wanted,
                allowed=limit,
                connections_max=room.devices,
                anonymous_max=room.anonymous,
                hint=f"ulimit -Hn {wanted} (LimitNOFILE= of systemd), or set less in [server]",
            )
        return room

    async def _start_listener(self) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        limits, keepalive = settings.limits, settings.keepalive
        assert self._verifier is not None
        self._wheel = TimingWheel(loop)
        schemas = self._schemas = self._schemas_in_force()
        device_context = DeviceContext(
            limits=SessionLimits(
                message_bytes_max=limits.message_bytes,
                frame_bytes_max=limits.frame_bytes,
                json_depth_max=limits.json_depth,
                messages_per_frame_max=limits.messages_per_frame,
                credit_initial=settings.session.credit_initial,
                credit_max=settings.session.credit_max,
            ),
            verifier=self._verifier,
            fleet=self._fleet,
            open_outlet=self._open_outlet,
            on_result=self._commands.on_result,
            observer=self.metrics,
            rng=self._rng,
            loop=loop,
            hello_timeout_s=limits.hello_timeout_ms / 1000,
            credential_leeway_s=settings.credentials.leeway_ms / 1000,
            keepalive_ms=keepalive.interval_ms,
            revocations=self._reception.revocations.facts,
            wall_clock=self._wall,
            watch=self._reception,
            pool=self._pool,
            fairness=self._fairness,
            credit_greedy=settings.session.credit_greedy,
            backlog=lambda: self._publisher.backlog,
            held=lambda: self._hold.reason,
            schema_problem=schemas.problem if schemas is not None and schemas.rejects else None,
            resume_points=ResumePoints(
                self._publisher.standings,
                self._publisher.stored,
                credit_max=settings.session.credit_max,
                clock=time.perf_counter,
                on_lookup=self.metrics.looked_up,
            ),
        )
        anteroom = Anteroom(places=self._room.anonymous, observer=self.metrics)
        gate = self._gate = self._reception.open_gate(
            device_context, connections_max=self._room.devices, anteroom=anteroom
        )
        trouble = self._backbone.trouble
        if trouble is not None:
            gate.hold(trouble)  # until the streams are there
        self._crew.start(self._take_turns(), "fairness")
        for name, work in self._reception.work():
            self._crew.start(work, name)
        slice_s = settings.server.accept_slice_us / 1e6
        connection_context = ConnectionContext(
            limits=ConnectionLimits(
                head_bytes_max=limits.head_bytes,
                head_timeout_s=limits.head_timeout_ms / 1000,
                frame_bytes_max=limits.frame_bytes,
                fragments_max=limits.fragments,
                write_buffer_bytes_max=limits.write_buffer_bytes,
                slow_reader_timeout_s=limits.slow_reader_timeout_ms / 1000,
                close_timeout_s=limits.close_timeout_ms / 1000,
                keepalive_interval_s=keepalive.interval_ms / 1000,
                keepalive_timeout_s=keepalive.timeout_ms / 1000,
                side=SideBudget(
                    frames_per_s=limits.side_frames_per_s,
                    frames_burst=limits.side_frames_burst,
                    bytes_per_s=limits.side_bytes_per_s,
                    bytes_burst=limits.side_bytes_burst,
                    patience_s=limits.side_patience_ms / 1000,
                ),
            ),
            wheel=self._wheel,
            observer=self.metrics,
            rng=self._rng,
            loop=loop,
            partings=partings(loop, slice_s),
            path=frames.PATH,
            subprotocols=[frames.SUBPROTOCOL],
            extensions=self._extensions(),
        )
        listener: Listener

        def upgrade(accepted: socket.SocketType, head: bytes, granted: Granted | None) -> None:
            listener.connect(
                accepted, lambda: WebSocketConnection(connection_context, gate, head, granted)
            )

        knock_context = KnockContext(
            door=gate,
            wheel=self._wheel,
            observer=self.metrics,
            loop=loop,
            head_bytes_max=limits.head_bytes,
            head_timeout_s=limits.head_timeout_ms / 1000,
            upgrade=upgrade,
        )
        listener = self._listener = Listener(
            lambda: WebSocketConnection(connection_context, gate),
            accept_budget=settings.server.accept_budget,
            accept_slice_s=slice_s,
            backlog=settings.server.backlog,
            tls=lambda: self._certificate.context if self._certificate is not None else None,
            tls_handshake_timeout_s=settings.tls.handshake_timeout_ms / 1000,
            anteroom=anteroom,
            observer=self.metrics,
            knock=knock_context.knock,
        )
        self._parts.push_async_callback(self._bounded, self._stop_listening, "listener-stop")
        self.port = await self._listener.start(settings.server.host, settings.server.port)

    async def _take_turns(self) -> None:
        while True:
            await asyncio.sleep(_TURN_S)
            self._fairness.end_turn()

    def _extensions(self) -> list[ServerPerMessageDeflateFactory] | None:
        compression = self._settings.compression
        if not compression.enabled:
            return None
        # Both windows bounded: what a connection may cost is the operator's choice, not the peer's.
        return [
            ServerPerMessageDeflateFactory(
                server_max_window_bits=compression.window_bits,
                client_max_window_bits=compression.window_bits,
                require_client_max_window_bits=True,
                compress_settings={"memLevel": compression.memory_level},
            )
        ]

    def _schemas_in_force(self) -> SchemasInForce | None:
        file = self._settings.events.file
        section = read_events_file(file).schemas if file is not None else None
        return SchemasInForce(section, self.metrics.off_schema) if section is not None else None

    def _open_outlet(self, tenant: str, device: str, outbox: str, owner: OutletOwner) -> Outlet:
        schemas = self._schemas
        return SessionOutlet(
            self._publisher,
            self._sample,
            schemas.mark if schemas is not None and not schemas.rejects else None,
            tenant=tenant,
            device=device,
            outbox=outbox,
            owner=owner,
        )

    def _deliver(self, tenant: str, device: str, command: frames.Command) -> bool:
        handler = self._fleet.find(tenant, device)
        return handler is not None and handler.command(command)

    # Reloading and stopping

    def _reload(self) -> None:
        """SIGHUP: certificate, keys and schemas again; broken ones leave the old in force."""
        if self._certificate is not None:
            try:
                self._certificate.reload()
            except TlsError as exc:
                _log.error("certificate_reload_failed", error=str(exc))  # whole
            else:
                expires_in_days = round(self._certificate.expires_in_s / 86_400, 1)
                _log.info("certificate_reloaded", expires_in_days=expires_in_days)
        if self._schemas is not None:
            self._schemas.reload()
        if self._verifier is not None:
            self._crew.start(self._key_source.refresh(self._verifier.rotate), "jwks-reload")

    async def _drain(self) -> None:
        """Each device in its turn: a slot elsewhere, settle what it sent, close."""
        settings, gate = self._settings.drain, self._gate
        assert gate is not None
        await send_away(
            list(self._fleet),
            self._reception.slot_elsewhere,
            rate_per_s=settings.rate_per_s,
            # With nobody to take them, waiting for them to go by themselves is idle.
            linger_s=settings.linger_ms / 1000 if self._reception.peers else -1,
            empty=gate.empty,
            rng=self._rng,
        )
        try:
            await asyncio.wait_for(self._publisher.drain(), settings.flush_timeout_ms / 1000)
        except TimeoutError:
            _log.error("flush_timeout", unsettled=self._publisher.pending_messages)
        # Let the closing handshakes finish; whoever does not answer is dropped by `stop`.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gate.empty.wait(), _CLOSING_S)
