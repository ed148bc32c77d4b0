"""The devices of this node: which session speaks for which device. The newest connection wins."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from gateway.admission.first_knock import spread_ms

_DEPARTED_MAX: Final = 100_000


class Member(Protocol):
    @property
    def key(self) -> tuple[str, str]:
        """Tenant and device."""

    @property
    def is_open(self) -> bool:
        """Whether it has a live connection."""


M = TypeVar("M", bound=Member)


class Fleet(Generic[M]):
    """Sessions by device, and what their number means for the next storm."""

    def __init__(
        self, *, first_retry_ms_min: int, refusals_per_s: int, clock: Callable[[], float]
    ) -> None:
        """
        Args:
            first_retry_ms_min: the least a device waits, at random, before its first reconnect.
            refusals_per_s: knocks this node can refuse: a storm's first knock is spread so that
                they can all be answered.
            clock: monotonic seconds.
        """
        self._members: dict[tuple[str, str], M] = {}
        self._first_retry_ms_min = first_retry_ms_min
        self._refusals_per_s = refusals_per_s
        self._clock = clock
        self._departed: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        return iter(list(self._members.values()))

    @property
    def first_retry_ms(self) -> int:
        """Over how long a storm of the whole fleet spreads its first knock."""
        return spread_ms(
            len(self._members), self._refusals_per_s, least_ms=self._first_retry_ms_min
        )

    def add(self, member: M) -> M | None:
        """Let `member` speak for its device from now on.

        Returns:
            Who spoke for it until now, if anybody.
        """
        older = self._members.get(member.key)
        self._members[member.key] = member
        return older

    def find(self, tenant: str, device: str) -> M | None:
        """Who speaks for a device on this node."""
        return self._members.get((tenant, device))

    def remove(self, member: M) -> None:
        """`member` speaks no more; nothing if somebody newer has taken its place."""
        if self._members.get(member.key) is member:
            del self._members[member.key]
            departed = self._departed
            departed[member.key] = self._clock()
            departed.move_to_end(member.key)
            if len(departed) > _DEPARTED_MAX:
                departed.popitem(last=False)

    def known(self, key: tuple[str, str], within_s: float) -> bool:
        """Whether a device is here, or was a moment ago: what it resumes costs downstream less."""
        if key in self._members:
            return True
        left_at = self._departed.get(key)
        return left_at is not None and self._clock() - left_at <= within_s
