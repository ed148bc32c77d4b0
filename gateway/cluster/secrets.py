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
        self._met = False
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
        used = [secret_id(keyring.issuing), keyring.issuing.decode()] if self._met else []
        reply: list[str] = await self._link.script(
            "secrets", [self.key], [secret_id(keyring.own), keyring.own.decode(), *used]
        )
        shared = dict(zip(reply[::2], reply[1::2], strict=True))
        shared.pop("#", None)
        self._met = True
        if keyring.learn(secret.encode() for secret in shared.values()):
            self._on_change()

    def heard(self, others: dict[str, frozenset[str]]) -> bool:
        """Learn which secrets the other nodes accept. Called with every heartbeat.

        Returns:
            Whether one of them accepts a secret that this node does not know, and should ask for.
        """
        keyring = self._keyring
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
        known = set(keyring.ids)
        return not keyring.configured and any(not ids <= known for ids in others.values())
