"""What operators revoke and let in again: enforced and kept here, and given to the other nodes."""

from gateway.admission.revocation import Revocation
from gateway.node.cluster.membership import Membership, Reach
from gateway.node.cluster.revocations import Revocations
from gateway.ops.orders import Subject


class OperatorRevocations:
    """`gateway.ops.gateway_orders.Revocations`, over the revocations of this node and its fleet."""

    def __init__(self, revocations: Revocations, membership: Membership) -> None:
        """
        Args:
            revocations: of this node.
            membership: tells the other nodes, now or as soon as Redis answers.
        """
        self._revocations = revocations
        self._membership = membership

    async def revoke(self, subject: Subject, until: float) -> str:
        """Revoke until then (Unix time in seconds), on all nodes. Says how far it went."""
        return await self.spread(
            Revocation(until, jti=subject.jti, tenant=subject.tenant, device=subject.device)
        )

    async def unrevoke(self, subject: Subject) -> str:
        """Let a subject in again, on all nodes. Says how far it went."""
        return await self.spread(
            Revocation(
                0.0, jti=subject.jti, tenant=subject.tenant, device=subject.device, lifted=True
            )
        )

    async def spread(self, revocation: Revocation) -> Reach:
        """Enforce a revocation, or lift one, on all nodes.

        Raises:
            ValueError: it names neither a jti nor a tenant and device, or both.
        """
        fact = self._revocations.state(revocation)
        kept = await self._revocations.keep()
        reach = await self._membership.share([fact])
        return reach if kept or reach is Reach.FLEET else Reach.MEMORY

    def in_force(self) -> list[tuple[Subject, float]]:
        """All there are, each with its end (Unix time in seconds)."""
        return [
            (Subject(fact.jti, fact.tenant, fact.device), fact.until)
            for fact in self._revocations.in_force()
        ]
