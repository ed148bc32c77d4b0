"""The states of devices on this node: followed, looked up, and told to sessions."""

from collections.abc import Callable, Iterable

from gateway.node.basis import Basis
from gateway.node.stream.backbone import Backbone
from gateway.process import Work
from gateway.session.desired import Version
from gateway.stream.states.follower import StateFollower
from gateway.stream.states.known import Key, KnownStates
from gateway.stream.states.lookups import StateLookups


class NodeStates:
    """What this node knows of states."""

    def __init__(self, basis: Basis, backbone: Backbone) -> None:
        """
        Args:
            basis: as everywhere.
            backbone: the connection to NATS.
        """
        self._backbone = backbone
        session = basis.settings.session
        self._fleet = basis.fleet
        self._known = KnownStates(session.state_cache_bytes)
        self._follower = StateFollower(
            backbone, self._known, on_set=self._on_set, on_anew=self._on_anew, rng=basis.rng
        )
        self._lookups = StateLookups(
            backbone,
            self._known,
            begun=self._follower.begun,
            devices_max=session.state_lookups,
            observer=basis.observers.stream,
            rng=basis.rng,
        )
        self._wait_s = session.state_wait_ms / 1000
        gauge = basis.metrics.gauge
        gauge("tidegate_states_known", "Devices whose state this node knows.", self._known.__len__)
        gauge(
            "tidegate_state_lookups_waiting",
            "Devices whose state is being looked up.",
            self._lookups.__len__,
        )

    def work(self) -> Iterable[Work]:
        yield "states", self._follow()
        yield "state-lookups", self._lookups.run()

    async def _follow(self) -> None:
        await self._backbone.wait_ready()  # before, there is no stream to follow
        await self._follower.run()

    # What sessions ask (`edge.device.state_talk.States`)

    @property
    def wait_s(self) -> float:
        return self._wait_s

    def known(self, key: Key) -> tuple[Version, bytes] | None:
        known = self._known.get(key)
        return None if known is None else (self._known.version(known), known.desired)

    def ask(
        self, key: Key, held: Version | None, answer: Callable[[Version, bytes, bool], None]
    ) -> None:
        self._lookups.ask(key, held, answer)

    def forget(self, key: Key, answer: Callable[[Version, bytes, bool], None]) -> None:
        self._lookups.forget(key, answer)

    # What the follower says

    def _on_set(self, key: Key, version: Version, desired: bytes) -> None:
        member = self._fleet.find(*key)
        talk = member.state_talk if member is not None else None
        if talk is not None:
            talk.tell(version, desired)

    def _on_anew(self) -> None:
        for member in self._fleet:
            if member.state_talk is not None:
                member.state_talk.enter(self._known.epoch)
