"""Where a device's credential comes from."""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable

from clients.errors import CredentialRefused

CredentialProvider = Callable[[str | None], Awaitable[str]]
"""Gives a JWT. Its argument is why the gateway refused the last one, or None.

It may take as long as it needs; the device does not connect meanwhile. Raise `CredentialRefused` to
give up. Called again before the credential expires, to renew it on the open connection.
"""


def static_credential(token: str) -> CredentialProvider:
    """A provider of one token. Once it is refused there is nothing left to try."""

    async def provide(refused: str | None) -> str:
        if refused is not None:
            raise CredentialRefused(refused)
        return token

    return provide


def expires_at(token: str) -> float | None:
    """The `exp` of a JWT (Unix time, seconds), unverified; None if it cannot be read.

    Only to know when to renew: whether it is believed is the gateway's business.
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, ValueError, TypeError, binascii.Error):
        return None
