"""Credentials for fleets of simulated devices: an issuer with one HMAC key."""

import json
import secrets
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

import jwt

_KEY_ID: Final = "loadtest"


class Issuer:
    """Mints credentials and writes the JWKS a gateway verifies them with."""

    def __init__(self, jwks_file: Path) -> None:
        self._secret = secrets.token_bytes(32)
        self.jwks_file = jwks_file
        key = urlsafe_b64encode(self._secret).rstrip(b"=").decode()
        entry = {"kty": "oct", "kid": _KEY_ID, "alg": "HS256", "k": key}
        jwks_file.write_text(json.dumps({"keys": [entry]}))

    def token(self, device: str, *, lifetime_s: int = 3_600, **claims: Any) -> str:
        """A credential for `device`."""
        payload = {"sub": device, "exp": int(time.time()) + lifetime_s, **claims}
        return jwt.encode(payload, self._secret, algorithm="HS256", headers={"kid": _KEY_ID})
