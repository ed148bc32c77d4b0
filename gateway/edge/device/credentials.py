"""The credential of a session: its renewal, and when to look whether it has expired."""

from typing import Final

from gateway.admission.credential import Identity
from gateway.admission.errors import CredentialError
from gateway.edge.device.context import DeviceContext
from gateway.session.errors import CredentialExpired, PolicyViolation, Revoked

LOOK_MAX_S: Final = 86_400.0
"""Look at least once a day, because the wall clock may be set."""


def renewed(context: DeviceContext, identity: Identity, token: str) -> Identity:
    """Verify a fresh credential of a connected device.

    Raises:
        CredentialExpired: the credential cannot be used.
        PolicyViolation: it is for another device.
        Revoked: the device or the credential is revoked.
    """
    try:
        fresh = context.verifier.verify(token)
    except CredentialError as exc:
        raise CredentialExpired(str(exc)) from None
    if fresh.key != identity.key:
        raise PolicyViolation("credential", "the credential is for another device")
    if context.revocations.revoked(fresh):
        raise Revoked
    return fresh


def expiry_look_s(context: DeviceContext, identity: Identity) -> float:
    """Seconds until the next look whether the credential has expired.

    The moment is random within the leeway, so that credentials issued together do not end
    together.
    """
    left_s = min(max(identity.expires_at - context.wall_clock(), 0.0), LOOK_MAX_S)
    return left_s + context.rng.uniform(0, context.credential_leeway_s)
