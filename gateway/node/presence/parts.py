"""Composition of presence: facts of the sessions of this node, their writer, and dead nodes."""

import asyncio
from typing import Final

import structlog

from gateway import tasks
from gateway.node.admission import Admission
from gateway.node.basis import Basis
from gateway.node.cluster.earlier_lives import EarlierLives
from gateway.node.ops.observers import PresenceMetrics
from gateway.node.presence.dead_nodes import DeadNodes
from gateway.node.presence.facts import SessionPresence
from gateway.node.sessions import SessionFollower
from gateway.node.storage import Storage
from gateway.stream.presence.buffer import FactBuffer
from gateway.stream.presence.writer import PresenceWriter

_log = structlog.get_logger(__name__)

_FLUSH_S: Final = 8.0
"""A stop waits so long for the last facts: 10,000 devices at the default pace, and then some."""


class Presence:
    """The presence of devices, as a part of a gateway."""

    def __init__(self, basis: Basis, storage: Storage, admission: Admission) -> None:
        settings, clock, link = basis.settings.presence, admission.clock, storage.backbone
        self._enabled = settings.enabled
        counts = PresenceMetrics(basis.metrics)
        self._buffer = buffer = FactBuffer(
            linger_s=settings.linger_ms / 1000, facts_max=settings.pending_facts
        )
        self._writer = writer = PresenceWriter(
            link,
            buffer,
            node=basis.node,
            facts_per_s=settings.facts_per_s,
            on_stored=counts.stored,
            rng=basis.rng,
            clock=basis.local,
            now=clock,
        )
        self._sessions = SessionPresence(writer, node=basis.node, clock=clock)
        self._lives = EarlierLives(
            basis.settings.nats.data_dir if basis.place is None else None,
            basis.node,
            admission.fences,
            alone=basis.settings.cluster.redis_url is None,
        )
        self._dead = DeadNodes(
            link,
            writer,
            admission.membership,
            self._lives,
            node=basis.node,
            ready=storage.backbone.wait_ready,
            on_ended=counts.node_lost,
            clock=clock,
            rng=basis.rng,
        )
        self._writing = tasks.Crew(basis.ending.fail)
        self._watching = tasks.Crew(basis.ending.fail)
        if self._enabled:
            admission.roll.doubted.add(self._sessions.announce_again)
            admission.sessions.on_raised.add(self._sessions.raised)
            self._register_gauges(basis)

    @property
    def followers(self) -> tuple[SessionFollower, ...]:
        """What must be told of sessions."""
        return (self._sessions,) if self._enabled else ()

    def start(self) -> None:
        """Begin, before the first session. The data directory is locked."""
        self._lives.begin()
        for name, work in self._lives.work():
            self._watching.start(work, name)
        if self._enabled:
            self._writing.start(self._writer.run(), "presence")
            for name, work in self._dead.work():
                self._watching.start(work, name)

    async def stop(self) -> None:
        """Store the facts that wait, if that is possible: all sessions have ended by now."""
        await self._watching.close()
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._writer.flush()
        except TimeoutError:
            _log.warning("presence_not_stored", facts=self._writer.waiting)
        await self._writing.close()

    def _register_gauges(self, basis: Basis) -> None:
        metrics, buffer = basis.metrics, self._buffer
        metrics.gauge(
            "tidegate_presence_pending_facts", "Presence facts that wait.", buffer.__len__
        )
        metrics.counted(
            "tidegate_presence_coalesced_total",
            "Presence facts left out because a newer one of their device waited.",
            lambda: buffer.coalesced,
        )
        metrics.counted(
            "tidegate_presence_dropped_total",
            "Presence facts left out although they were the newest of their device.",
            lambda: buffer.dropped,
        )
