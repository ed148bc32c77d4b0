"""Composition: the operators' page of revocations, filled by this node's admission."""

import time

from gateway.admission.revocation import Revocation
from gateway.ops.orders import Subject
from gateway.reception import Reception


class OperatorRevocations:
    """`gateway.ops.listener.Revocations` over the reception of this node."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def revoke(self, subject: Subject, until: float) -> str:
        return await self._reception.revoke(_entry(subject, until))

    async def unrevoke(self, subject: Subject) -> str:
        return await self._reception.unrevoke(_entry(subject, 0.0))

    def in_force(self) -> list[tuple[Subject, float]]:
        return [
            (Subject(each.jti, each.tenant, each.device), each.until)
            for each in self._reception.revocations.entries(time.time())
        ]


def _entry(subject: Subject, until: float) -> Revocation:
    return Revocation(until, jti=subject.jti, tenant=subject.tenant, device=subject.device)
