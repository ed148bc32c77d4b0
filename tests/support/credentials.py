"""Keys of an operator, and the credentials that are signed with them."""

import base64
import hashlib
import hmac
import json
from typing import get_args

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.admission.credential import CredentialPolicy, CredentialVerifier
from gateway.admission.keys import KeySet
from gateway.settings.devices import Algorithm
from tidegate.wire.grammar import is_token

ALGORITHMS = get_args(Algorithm)
"""The signatures of credentials that an operator can allow."""
NOW = 1_800_000_000
SECRET = b"0123456789abcdef0123456789abcdef"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
OTHER_RSA = rsa.generate_private_key(65537, 2048)
CLAIMS = {"sub": "veh-1", "exp": NOW + 600, "aud": "fleet", "iss": "https://issuer"}
PRIVATE = {"HS256": SECRET, "RS256": RSA, "ES256": EC, "EdDSA": ED}
KID = {"HS256": "hs", "RS256": "rs", "ES256": "es", "EdDSA": "ed"}


def b64(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(algorithm, key, kid):
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid}


JWKS = {
    "keys": [
        {"kty": "oct", "kid": "hs", "k": b64(SECRET)},
        public(RSAAlgorithm, RSA, "rs"),
        public(ECAlgorithm, EC, "es"),
        public(OKPAlgorithm, ED, "ed"),
    ]
}


class Clock:
    def __init__(self):
        self.now = float(NOW)

    def __call__(self):
        return self.now


def make(cache=100, algorithms=ALGORITHMS, clock=None, **policy):
    rules = {"audience": "fleet", "issuer": "https://issuer", "leeway_s": 10.0, **policy}
    return CredentialVerifier(
        KeySet.from_jwks(JWKS, algorithms),
        CredentialPolicy(algorithms=tuple(algorithms), **rules),
        clock=clock or Clock(),
        is_token=is_token,
        cache_entries_max=cache,
    )


def signed(algorithm="HS256", key=None, headers=None, **claims):
    payload = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ...}
    return jwt.encode(
        payload,
        key if key is not None else PRIVATE[algorithm],
        algorithm=algorithm,
        headers={"kid": KID[algorithm], **(headers or {})},
    )


def assembled(header, payload=CLAIMS, secret=SECRET):
    """A token signed with HMAC whatever its header says."""
    text = f"{b64(header)}.{b64(payload)}"
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{b64(signature)}"


GOOD = signed("ES256")
