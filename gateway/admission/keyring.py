"""Which ticket secrets a node accepts, and which one it signs with. Pure.

Every node must honour a ticket, so a node signs only with a secret that all living nodes accept.
That makes rotation safe in any order: one node after the other accepts a new secret, and no node
signs with it until the last node accepts it. Then all nodes sign with it.

Secrets come from the settings, or else from the fleet: nodes without the setting share theirs in
Redis. Nodes name a secret by its id, a hash that does not disclose it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_ID_BYTES: Final = 8


def secret_id(secret: bytes) -> str:
    """The public name of a secret."""
    digest = hashlib.blake2s(secret, digest_size=_ID_BYTES, person=b"tg-secid")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether living nodes agree. Anything but the defaults is a mistake in the settings."""

    odd: bool = False
    """Whether this node lacks the secret that most nodes accept."""
    unheard: int = 0
    """How many nodes do not accept the tickets of this node."""


class Keyring:
    """The secrets of a node."""

    def __init__(self, configured: Sequence[bytes], kept: Sequence[bytes]) -> None:
        """
        Args:
            configured: secrets of the settings, newest first; may be empty.
            kept: secrets of the data directory: this node's own first, then those of its fleet.

        Raises:
            ValueError: there is no secret at all.
        """
        if not configured and not kept:
            raise ValueError("there is no ticket secret")
        self.configured = bool(configured)
        self._by_id = {secret_id(secret): secret for secret in (*configured, *kept)}
        self._preferred = [secret_id(secret) for secret in configured]
        self._own = secret_id(kept[0]) if kept else self._preferred[0]
        # After a restart without Redis: the secret that the fleet used last, if it is known.
        self._issuing = self._preferred[0] if configured else secret_id(kept[-1])
        self.agreement = Agreement()

    @property
    def ids(self) -> list[str]:
        """The ids of the secrets that this node accepts."""
        return list(self._by_id)

    @property
    def issuing(self) -> bytes:
        return self._by_id[self._issuing]

    @property
    def own(self) -> bytes:
        """The secret that this node offers to a fleet that has none yet."""
        return self._by_id[self._own]

    @property
    def secrets(self) -> list[bytes]:
        """All accepted secrets; the first one signs."""
        others = [secret for name, secret in self._by_id.items() if name != self._issuing]
        return [self.issuing, *others]

    def learn(self, shared: Iterable[bytes]) -> bool:
        """Accept the secrets that the fleet shares, unless the settings name the secrets.

        Returns:
            Whether there was a new one.
        """
        if self.configured:
            return False
        before = len(self._by_id)
        for secret in shared:
            self._by_id.setdefault(secret_id(secret), secret)
        return len(self._by_id) > before

    def ask_nobody(self) -> None:
        """The other nodes cannot be asked: sign with the oldest secret, which all should have."""
        if self.configured:
            self._issuing = self._preferred[-1]

    def choose(self, others: Mapping[str, frozenset[str]]) -> bool:
        """Choose the secret to sign with.

        Args:
            others: the ids that each of the other living nodes accepts.

        Returns:
            Whether it is another secret than before.
        """
        accepted_by: dict[str, int] = dict.fromkeys(self._by_id, 1)
        for ids in others.values():
            for name in ids:
                accepted_by[name] = accepted_by.get(name, 0) + 1
        before = self._issuing
        most = max(accepted_by[name] for name in self._by_id)
        best = [name for name in self._by_id if accepted_by[name] == most]
        # The order of the settings, newest first. Of shared secrets, all nodes must choose the
        # same.
        self._issuing = min(best, key=self._rank)
        top = max(accepted_by.values())
        odd = min(name for name, count in accepted_by.items() if count == top)
        self.agreement = Agreement(
            odd=top > most or (top < len(others) + 1 and odd not in self._by_id),
            unheard=sum(self._issuing not in ids for ids in others.values()),
        )
        return self._issuing != before

    def _rank(self, name: str) -> tuple[int, str]:
        known = name in self._preferred
        return (self._preferred.index(name) if known else len(self._preferred), name)
