"""A NATS operator with one account and one user (decentralised JWT authentication), made by hand.

https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt
"""

import base64
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys


@dataclass(frozen=True)
class Operator:
    config: dict[str, Any]
    """What the server's configuration must say."""
    credentials: Path
    """The user's credentials file."""


def _pair(prefix: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _jwt(issuer: Any, subject: Any, kind: str, **claims: Any) -> str:
    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    body = {
        "jti": kind,
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": kind,
        "nats": {"type": kind, "version": 2, **claims},
    }
    text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    signature = base64.urlsafe_b64encode(issuer.sign(text.encode())).rstrip(b"=").decode()
    return f"{text}.{signature}"


def make_operator(directory: Path) -> Operator:
    operator = _pair(nkeys.PREFIX_BYTE_OPERATOR)
    account = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user = _pair(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": -1, "data": -1, "payload": -1}
    file = directory / "user.creds"
    file.write_text(
        "-----BEGIN NATS USER JWT-----\n"
        f"{_jwt(account, user, 'user', **limits)}\n"
        "------END NATS USER JWT------\n\n"
        "-----BEGIN USER NKEY SEED-----\n"
        f"{user.seed.decode()}\n"
        "------END USER NKEY SEED------\n"
    )
    return Operator(
        config={
            "operator": _jwt(operator, operator, "operator"),
            "resolver": "MEMORY",
            "resolver_preload": {
                account.public_key.decode(): _jwt(
                    operator, account, "account", limits={**limits, "conn": -1, "leaf": -1}
                )
            },
        },
        credentials=file,
    )
