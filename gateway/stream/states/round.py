"""One round of look-ups of states: whom to ask, and what the answers prove. Pure.

First one direct get asks any replica about all devices that are not known. Then the stream's leader
is asked, device by device, about what that did not settle: the replica lagged, the answer was cut
at its bound, or a device says it has a higher version than was found. In a healthy stream nothing
is left for the leader.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.session.desired import Version
from gateway.stream.states.known import NO_STATE, Key, Known, KnownStates


class Answer(NamedTuple):
    """What is known of a device now."""

    known: Known
    verified: bool
    """Whether the leader says so."""


class StateRound:
    """The devices of one round."""

    def __init__(self, known: KnownStates, asked: Mapping[Key, Version | None]) -> None:
        """
        Args:
            known: what the node knows.
            asked: the devices, each with the highest version that its sessions claim.
        """
        self._known = known
        self._asked = asked
        self.answers: dict[Key, Answer] = {}
        self.direct: list[Key] = []
        """To be asked by direct get."""
        self.leader: list[Key] = []
        """To be asked of the leader, once the direct get is answered."""
        for key in asked:
            found = known.get(key)
            if found is None:
                self.direct.append(key)
            else:
                self._settle(key, found)

    @property
    def epoch_in_doubt(self) -> bool:
        """Whether a device claims a version of a stream later than the one this node follows."""
        return any(held is not None and held.epoch > self._known.epoch for held in self._claims())

    def _claims(self) -> Iterable[Version | None]:
        return self._asked.values()

    def found(self, found: Mapping[Key, Known], up_to: int, *, whole: bool) -> None:
        """The answer to the direct get.

        Args:
            found: the states in it.
            up_to: the last sequence that the replica has, as far as the answer shows.
            whole: whether a device that is not in it has no state there.
        """
        proven = self._known.proves(up_to)
        for key in self.direct:
            if proven and (whole or key in found):
                self._settle(key, self._known.learn(key, found.get(key, NO_STATE)))
            else:
                self.leader.append(key)

    def told_by_leader(self, key: Key, found: Known) -> None:
        """The leader's answer about one device."""
        self.answers[key] = Answer(self._known.learn(key, found), verified=True)

    def _settle(self, key: Key, known: Known) -> None:
        held = self._asked[key]
        if held is not None and held > self._known.version(known):
            self.leader.append(key)
        else:
            self.answers[key] = Answer(known, verified=False)
