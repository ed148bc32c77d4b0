"""The ticket secrets of a fleet. Nodes whose settings name none share theirs in Redis."""

from collections.abc import Callable

import structlog

from gateway.admission.keyring import Agreement, Keyring, secret_id
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)


class SharedSecrets:
    """Keeps a `Keyring` in step with the fleet."""

    def __init__(self, link: RedisLink, keyring: Keyring, *, on_change: Callable[[], None]) -> None:
        """
        Args:
            link: to Redis.
            keyring: the secrets of this node.
            on_change: called when the secrets have changed, or which of them signs.
        """
        self._link = link
        self._keyring = keyring
        self._on_change = on_change
        self._signed = False
        """Whether tickets may be out that the present secret signed."""
        self._shared: frozenset[str] = frozenset()
        """Ids of the secrets that Redis has, as of the last exchange."""
        self._asked_for: set[tuple[str, str]] = set()
        """Nodes, and ids that each of them accepts, for which this node has asked."""
        self._said = Agreement()

    @property
    def key(self) -> str:
        return self._link.key("ticket-secrets")

    async def exchange(self) -> None:
        """Give the fleet the secret that this node signs with, and accept what the fleet shares.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        keyring = self._keyring
        if keyring.configured:
            return
        # A Redis that lost its memory gets the secret that signed tickets, not any node's own.
        used = [secret_id(keyring.issuing), keyring.issuing.decode()] if self._signed else []
        reply: list[str] = await self._link.script(
            "secrets", [self.key], [secret_id(keyring.own), keyring.own.decode(), *used]
        )
        shared = dict(zip(reply[::2], reply[1::2], strict=True))
        shared.pop("#", None)
        self._shared = frozenset(shared)
        if keyring.learn(secret.encode() for secret in shared.values()):
            self._on_change()

    def alone(self) -> None:
        """The node begins without Redis, and signs with the secret that it has."""
        self._signed = True
        self._keyring.ask_nobody()
        self._on_change()

    def heard(self, others: dict[str, frozenset[str]], *, complete: bool) -> bool:
        """Learn which secrets the other nodes accept. Called with every heartbeat.

        Args:
            others: the ids that each of the other nodes accepts, as far as Redis knows.
            complete: whether Redis knows all nodes. If it forgot some, the node goes on with the
                secret that it has: the missing nodes may not accept another one.

        Returns:
            Whether there should be an exchange: another node accepts a secret that this node does
            not know, or this node signs with one that the fleet does not have. A node asks once for
            what another one accepts: that may be the other's own secret, which it does not share.
        """
        if complete:
            self._choose(others)
        keyring = self._keyring
        if keyring.configured:
            return False
        known = set(keyring.ids)
        unknown = {(node, each) for node, ids in others.items() for each in ids - known}
        is_new = not unknown <= self._asked_for
        self._asked_for = unknown
        return is_new or (self._signed and secret_id(keyring.issuing) not in self._shared)

    def _choose(self, others: dict[str, frozenset[str]]) -> None:
        keyring = self._keyring
        self._signed = True
        if keyring.choose(others):
            self._on_change()
        agreement = keyring.agreement
        if agreement != self._said:
            self._said = agreement
            if agreement.odd:
                _log.error(
                    "ticket_secrets_differ",
                    hint="admission.ticket_secrets is not what the other nodes have",
                )
            elif agreement.unheard:
                _log.warning("ticket_secrets_not_accepted", nodes=agreement.unheard)
            else:
                _log.info("ticket_secrets_agree")
