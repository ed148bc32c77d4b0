"""Composition: the operators' page of revocations, filled by this node's revocations."""

from gateway.admission.revocation import Revocation
from gateway.ops.orders import Subject
from gateway.revocations import Revocations


class OperatorRevocations:
    """`gateway.ops.listener.Revocations` over the revocations of this node."""

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations

    async def revoke(self, subject: Subject, until: float) -> str:
        return await self._revocations.revoke(
            Revocation(until, jti=subject.jti, tenant=subject.tenant, device=subject.device)
        )

    async def unrevoke(self, subject: Subject) -> str:
        return await self._revocations.lift(
            jti=subject.jti, tenant=subject.tenant, device=subject.device
        )

    def in_force(self) -> list[tuple[Subject, float]]:
        return [
            (Subject(fact.jti, fact.tenant, fact.device), fact.until)
            for fact in self._revocations.in_force()
        ]
