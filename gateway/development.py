"""The development key, which signs credentials until an operator configures a JWKS.

The key is random, is made on first use, and is kept in the data directory, where only its owner can
read it. `tidegate token` signs with it. A gateway that accepts the key says so when it starts.
"""

import secrets
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

import jwt
import orjson

from gateway import durable_file

KEY_ID: Final = "development"
ALGORITHM: Final = "HS256"


def key_file(data_dir: Path) -> Path:
    return data_dir / "development-jwks.json"


def ensure_key(data_dir: Path) -> Path:
    """The file of the development JWKS in `data_dir`. It is made if it does not exist."""
    path = key_file(data_dir)
    if not path.exists():
        secret = urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        key = {"kty": "oct", "kid": KEY_ID, "alg": ALGORITHM, "use": "sig", "k": secret}
        durable_file.create(path, orjson.dumps({"keys": [key]}).decode())
    return path


def mint(data_dir: Path, device: str, *, lifetime_s: int, claims: dict[str, Any]) -> str:
    """A credential for `device`, signed with the development key.

    Args:
        data_dir: where the key is.
        device: the `sub` claim.
        lifetime_s: seconds until it expires.
        claims: further claims (tenant, group, class, aud, iss).
    """
    jwks = orjson.loads(ensure_key(data_dir).read_bytes())
    now = int(time.time())
    payload = {
        "sub": device,
        "iat": now,
        "exp": now + lifetime_s,
        "jti": secrets.token_hex(8),
        **claims,
    }
    key = jwt.PyJWK(jwks["keys"][0])
    return jwt.encode(payload, key, algorithm=ALGORITHM, headers={"kid": KEY_ID})
