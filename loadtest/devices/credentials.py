"""Credentials for fleets of simulated devices: an issuer with one HMAC key."""

import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

import jwt

from loadtest.errors import TargetError

_KEY_ID: Final = "loadtest"


class Issuer:
    """Mints credentials that a gateway verifies with `jwks_file`."""

    def __init__(self, jwks_file: Path, secret: bytes | None = None, key_id: str = _KEY_ID) -> None:
        """
        Args:
            jwks_file: written with a new key, unless there is one.
            secret: the key that is in the file already.
            key_id: its `kid`.
        """
        self.jwks_file = jwks_file
        self._key_id = key_id
        self._secret = secret if secret is not None else secrets.token_bytes(32)
        if secret is None:
            key = urlsafe_b64encode(self._secret).rstrip(b"=").decode()
            entry = {"kty": "oct", "kid": key_id, "alg": "HS256", "k": key}
            jwks_file.write_text(json.dumps({"keys": [entry]}))

    @classmethod
    def of(cls, jwks_file: Path) -> "Issuer":
        """The issuer whose HMAC key is in `jwks_file`, such as a gateway's development key.

        Raises:
            TargetError: there is no such key.
        """
        try:
            keys = json.loads(jwks_file.read_text())["keys"]
            key = next(key for key in keys if key["kty"] == "oct")
            secret = urlsafe_b64decode(key["k"] + "==")
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as exc:
            problem = exc.strerror if isinstance(exc, OSError) else repr(exc)
            raise TargetError(f"no HMAC key in {jwks_file}: {problem}") from None
        return cls(jwks_file, secret, key.get("kid", _KEY_ID))

    def forged(self, device: str) -> str:
        """A credential that is signed with an unknown key."""
        payload = {"sub": device, "exp": int(time.time()) + 3_600}
        secret = secrets.token_bytes(32)
        return jwt.encode(payload, secret, algorithm="HS256", headers={"kid": self._key_id})

    def token(self, device: str, *, lifetime_s: int = 3 * 3_600, **claims: Any) -> str:
        """A credential for `device`. It is also good on a node whose clock is an hour ahead."""
        payload = {"sub": device, "exp": int(time.time()) + lifetime_s, **claims}
        return jwt.encode(payload, self._secret, algorithm="HS256", headers={"kid": self._key_id})
