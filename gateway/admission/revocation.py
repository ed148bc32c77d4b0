"""Revocations: credentials (by `jti`) and devices that are no longer let in, until a time."""

from dataclasses import dataclass

from gateway.admission.credential import Identity


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry: a `jti`, or a device of a tenant. `until` is Unix time in seconds."""

    until: float
    jti: str = ""
    tenant: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        if bool(self.jti) == bool(self.device) or bool(self.device) != bool(self.tenant):
            raise ValueError("a revocation names a jti, or a tenant and device")

    @property
    def key(self) -> tuple[str, ...]:
        return (self.jti,) if self.jti else (self.tenant, self.device)

    def concerns(self, identity: Identity) -> bool:
        if self.jti:
            return self.jti == identity.jti
        return (self.tenant, self.device) == (identity.tenant, identity.device)


class RevocationList:
    """What is revoked now."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, ...], float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, revocation: Revocation) -> None:
        self._until[revocation.key] = revocation.until

    def revoked(self, identity: Identity, now: float) -> bool:
        """Whether `identity` is refused. `now` is Unix time in seconds."""
        for key in ((identity.tenant, identity.device), (identity.jti,)):
            until = self._until.get(key)
            if until is not None:
                if until > now:
                    return True
                del self._until[key]
        return False

    def entries(self, now: float) -> list[Revocation]:
        """All that are in force."""
        self._until = {key: until for key, until in self._until.items() if until > now}
        return [
            Revocation(until, jti=key[0])
            if len(key) == 1
            else Revocation(until, tenant=key[0], device=key[1])
            for key, until in self._until.items()
        ]
