"""A matrix of forged and damaged credentials, of which none is believed (RFC 8725)."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm

from gateway.admission.errors import CredentialError
from support.credentials import (
    CLAIMS,
    EC,
    GOOD,
    NOW,
    OTHER_EC,
    OTHER_RSA,
    RSA,
    assembled,
    b64,
    make,
    signed,
)


def _pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _der(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _jwk_text(algorithm, key):
    return json.dumps(json.loads(algorithm.to_jwk(key.public_key()))).encode()


HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
ED_GOOD = signed("EdDSA")
DEEP = json.loads("[" * 500 + "]" * 500)
ANOTHERS_SIGNATURE = signed("ES256", sub="veh-2").rsplit(".", 1)[1]
EXP_INFINITE = (
    json.dumps({"sub": "veh-1", "aud": "fleet", "iss": "https://issuer", "exp": 0})[:-2] + "1e999}"
).encode()
FOREIGN_DER = b64(OTHER_EC.sign(b"x", ec.ECDSA(SHA256())))
FORGERIES = {
    "nothing": "",
    "no dots": "abc",
    "one dot": "abc.def",
    "four parts": GOOD + ".x",
    "five parts, a JWE": f"{HEADER}....",
    "empty parts": "..",
    "spaces": f" {GOOD} ",
    "a newline": GOOD + "\n",
    "not ASCII": GOOD + "é",
    "over 4 KiB": signed(pad="x" * 5000),
    "alg none": f"{b64({'alg': 'none', 'typ': 'JWT'})}.{b64(CLAIMS)}.",
    "alg None": f"{b64({'alg': 'None'})}.{b64(CLAIMS)}.",
    "alg NONE": f"{b64({'alg': 'NONE'})}.{b64(CLAIMS)}.",
    "alg nOnE, with a signature": f"{b64({'alg': 'nOnE'})}.{b64(CLAIMS)}.{SIGNATURE}",
    "alg empty": assembled({"alg": ""}),
    "alg missing": assembled({"typ": "JWT", "kid": "hs"}),
    "alg null": assembled({"alg": None, "kid": "hs"}),
    "alg a list": assembled({"alg": ["HS256"], "kid": "hs"}),
    "alg a number": assembled({"alg": 256, "kid": "hs"}),
    "alg hs256": assembled({"alg": "hs256", "kid": "hs"}),
    "alg HS384": assembled({"alg": "HS384", "kid": "hs"}),
    "alg HS512": assembled({"alg": "HS512", "kid": "hs"}),
    "alg RS512": assembled({"alg": "RS512", "kid": "rs"}),
    "HMAC with the RSA key as PEM": assembled({"alg": "HS256", "kid": "rs"}, secret=_pem(RSA)),
    "HMAC with the RSA key as DER": assembled({"alg": "HS256", "kid": "rs"}, secret=_der(RSA)),
    "HMAC with the EC key as PEM": assembled({"alg": "HS256", "kid": "es"}, secret=_pem(EC)),
    "HMAC with the EC key as JWK": assembled(
        {"alg": "HS256", "kid": "es"}, secret=_jwk_text(ECAlgorithm, EC)
    ),
    "HMAC with the RSA key, no kid": assembled({"alg": "HS256"}, secret=_pem(RSA)),
    "HMAC with an empty secret": assembled({"alg": "HS256", "kid": "hs"}, secret=b""),
    "HMAC with the kid as secret": assembled({"alg": "HS256", "kid": "hs"}, secret=b"hs"),
    "an HMAC presented as RS256": assembled({"alg": "RS256", "kid": "hs"}),
    "an HMAC presented as EdDSA": assembled({"alg": "EdDSA", "kid": "ed"}),
    "ES256 with another key": signed("ES256", key=OTHER_EC),
    "RS256 with another key": signed("RS256", key=OTHER_RSA),
    "ES256, kid of the RSA key": signed("ES256", headers={"kid": "rs"}),
    "kid unknown": signed(headers={"kid": "nobody"}),
    "kid a path": signed(headers={"kid": "../../../../dev/null"}),
    "kid /dev/null and an empty secret": assembled(
        {"alg": "HS256", "kid": "/dev/null"}, secret=b""
    ),
    "kid an SQL injection": signed(headers={"kid": "' UNION SELECT 'secret' --"}),
    "kid a shell command": signed(headers={"kid": "|/bin/sleep 10"}),
    "kid with CR LF": signed(headers={"kid": "hs\r\nX: y"}),
    "kid with NUL": signed(headers={"kid": "hs\x00"}),
    "kid a number": assembled({"alg": "HS256", "kid": 1}),
    "kid a list": assembled({"alg": "HS256", "kid": ["hs"]}),
    "kid empty": assembled({"alg": "HS256", "kid": ""}),
    "kid of 10,000 characters": assembled({"alg": "HS256", "kid": "h" * 2_000}),
    "jku elsewhere": signed(headers={"jku": "https://evil.example/jwks.json"}),
    "x5u elsewhere": signed(headers={"x5u": "https://evil.example/cert.pem"}),
    "x5c of its own": signed(headers={"x5c": ["MIIB"]}),
    "jwk of its own": signed(
        "ES256",
        key=OTHER_EC,
        headers={"jwk": json.loads(ECAlgorithm.to_jwk(OTHER_EC.public_key()))},
    ),
    "crit exp": signed(headers={"crit": ["exp"]}),
    "crit unknown": signed(headers={"crit": ["x-critical"], "x-critical": True}),
    "crit empty": assembled({"alg": "HS256", "kid": "hs", "crit": []}),
    "b64 false": assembled({"alg": "HS256", "kid": "hs", "b64": False}),
    "zip": assembled({"alg": "HS256", "kid": "hs", "zip": "DEF"}),
    "a signature cut short": GOOD[:-4],
    "a signature of zeros (psychic signature)": f"{HEADER}.{PAYLOAD}.{b64(bytes(64))}",
    "a signature in DER": f"{HEADER}.{PAYLOAD}.{FOREIGN_DER}",
    "an empty signature": f"{HEADER}.{PAYLOAD}.",
    "an EdDSA signature of zeros": ".".join([*ED_GOOD.split(".")[:2], b64(bytes(64))]),
    "a payload changed": f"{HEADER}.{b64({**CLAIMS, 'sub': 'veh-2'})}.{SIGNATURE}",
    "a header changed": f"{b64({'alg': 'ES256', 'kid': 'es', 'typ': 'x'})}.{PAYLOAD}.{SIGNATURE}",
    "the signature of another token": f"{HEADER}.{PAYLOAD}.{ANOTHERS_SIGNATURE}",
    "a payload of no JSON": f"{HEADER}.{b64(b'{')}.{SIGNATURE}",
    "a header of no JSON": f"{b64(b'{')}.{PAYLOAD}.{SIGNATURE}",
    "a header that is a list": f"{b64(b'[]')}.{PAYLOAD}.{SIGNATURE}",
    "a payload that is a list": assembled({"alg": "HS256", "kid": "hs"}, payload=[CLAIMS]),
    "a deep header": f"{b64(b'[' * 2900)}.{PAYLOAD}.{SIGNATURE}",
    "a deep payload": assembled({"alg": "HS256", "kid": "hs"}, payload=DEEP),
    "expired": signed(exp=NOW - 11),
    "exp missing": signed(exp=...),
    "exp a string": signed(exp=str(NOW + 600)),
    "exp true": signed(exp=True),
    "exp null": signed(exp=None),
    "exp negative": signed(exp=-1),
    "exp infinite": assembled(
        {"alg": "HS256", "kid": "hs"}, payload=EXP_INFINITE
    ),
    "exp NaN": assembled(
        {"alg": "HS256", "kid": "hs"}, payload=json.dumps({**CLAIMS, "exp": float("nan")}).encode()
    ),
    "exp beyond the year 9999": signed(exp=10**15),
    "nbf in the future": signed(nbf=NOW + 11),
    "nbf a string": signed(nbf="0"),
    "aud wrong": signed(aud="other"),
    "aud missing": signed(aud=...),
    "aud a prefix": signed(aud="flee"),
    "aud a list of others": signed(aud=["other", "fleet2"]),
    "aud null": signed(aud=None),
    "iss wrong": signed(iss="https://evil"),
    "iss missing": signed(iss=...),
    "iss a suffix": signed(iss="https://issuer/"),
    "iss a list": assembled(
        {"alg": "HS256", "kid": "hs"}, payload={**CLAIMS, "iss": ["https://issuer"]}
    ),
    "sub missing": signed(sub=...),
    "sub empty": signed(sub=""),
    "sub with a dot": signed(sub="veh.1"),
    "sub a wildcard": signed(sub="*"),
    "sub all": signed(sub=">"),
    "sub with a space": signed(sub="veh 1"),
    "sub with CR LF": signed(sub="veh-1\r\nPUB events.x 0"),
    "sub with a newline at the end": signed(sub="veh-1\n"),
    "sub unicode": signed(sub="véh"),
    "sub of 65 characters": signed(sub="x" * 65),
    "sub a number": assembled({"alg": "HS256", "kid": "hs"}, payload={**CLAIMS, "sub": 1}),
    "sub a list": assembled({"alg": "HS256", "kid": "hs"}, payload={**CLAIMS, "sub": ["veh-1"]}),
    "tenant with a dot": signed(tenant="a.b"),
    "tenant null": signed(tenant=None),
    "group a wildcard": signed(group="*"),
    "class of its own": signed(**{"class": "royal"}),
    "jti of 1,000 characters": signed(jti="j" * 1_000),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_is_believed(name):
    verifier = make()
    for _ in range(2):  # nor remembered
        with pytest.raises(CredentialError) as caught:
            verifier.verify(FORGERIES[name])
        assert caught.value.reason in {
            "missing", "malformed", "algorithm", "header", "key", "signature", "expired",
            "not_yet", "audience", "issuer", "claims",
        }  # fmt: skip
    assert len(verifier) == 0


def test_the_matrix_is_large_enough():
    assert len(FORGERIES) >= 40


def test_no_error_quotes_the_credential():
    for forgery in FORGERIES.values():
        with pytest.raises(CredentialError) as caught:
            make().verify(forgery)
        for part in forgery.split("."):
            assert len(part) < 12 or part not in str(caught.value)
