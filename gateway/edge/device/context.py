"""What all devices of a node share."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import UnsetType

from gateway.admission.credential import CredentialVerifier
from gateway.admission.revocation import RevocationList
from gateway.edge.device.outlet import OpenOutlet, ResumePoints
from gateway.edge.device.state_talk import States
from gateway.edge.fleet import Fleet, Member
from gateway.edge.memory import DeviceMemory
from gateway.edge.observer import EdgeObserver
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.session.intake import SchemaProblem
from gateway.session.limits import SessionLimits
from tidegate.wire import frames

CommandAnswer = Callable[[str, str, frames.Result | frames.Received], bool]
"""Takes the answer of (tenant, device) to a command; False if nothing waits for it."""


class SessionWatch(Protocol):
    """Follows the sessions of a node: the fleet's device registry."""

    def next_fence(self) -> int:
        """A number higher than that of any session before this one, on any node."""

    def established(self, member: Member) -> None:
        """This session speaks for its device from now on."""

    def ended(self, key: tuple[str, str], fence: int, cause: str) -> None:
        """The connection of an established session is gone; `cause` is that of a presence fact."""


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What all devices of a node share. Times in seconds unless named otherwise."""

    limits: SessionLimits
    verifier: CredentialVerifier
    fleet: Fleet
    memory: DeviceMemory
    open_outlet: OpenOutlet
    on_answer: CommandAnswer
    observer: EdgeObserver
    rng: random.Random
    loop: asyncio.AbstractEventLoop
    hello_timeout_s: float
    credential_leeway_s: float
    keepalive_ms: int
    revocations: RevocationList
    watch: SessionWatch
    pool: CreditPool
    fairness: FairShare
    credit_greedy: int
    """Messages that a greedy device may have outstanding."""
    backlog: Callable[[], float]
    """Share of the publish bounds in use."""
    held: Callable[[], str]
    """Why the stream stores nothing; empty if it stores."""
    resume_points: ResumePoints
    states: States
    wall_clock: Callable[[], float] = time.time
    known_types: set[str] = field(default_factory=set)
    features: tuple[str, ...] = frames.FEATURES
    """What this gateway understands beyond what every gateway does."""
    schema_problem: SchemaProblem | None = None
    """Judges each message, where there are schemas."""

    def ceiling(self, *, greedy: bool) -> int:
        """What one session may have outstanding now, in messages."""
        ceiling = self.pool.ceiling(len(self.fleet.members), self.backlog())
        return min(ceiling, self.credit_greedy) if greedy else ceiling

    def welcome(
        self, outbox: str, settled: int, credit: int, state: frames.State | UnsetType
    ) -> frames.Welcome:
        """The first frame to a device, with every limit that its client must keep.

        Args:
            outbox: that the hello named.
            settled: the last seq of that outbox which is in the stream.
            credit: messages the device may send beyond it.
            state: what the device should be like, if it asked and does not have it.
        """
        limits = self.limits
        return frames.Welcome(
            session=secrets.token_hex(8),
            credit=credit,
            max_message_bytes=limits.message_bytes_max,
            resume=frames.Resume(outbox, settled),
            first_retry_ms=self.fleet.first_retry_ms,
            keepalive_ms=self.keepalive_ms,
            max_frame_bytes=limits.frame_bytes_max,
            max_messages_per_frame=limits.messages_per_frame_max,
            max_depth=limits.json_depth_max,
            features=self.features,
            state=state,
        )
