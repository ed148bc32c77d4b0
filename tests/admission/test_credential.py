"""Credentials: which are accepted, and a matrix of forgeries, of which none is (RFC 8725)."""

import base64
import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.admission.credential import CredentialPolicy, CredentialVerifier, claimed_holder
from gateway.admission.errors import CredentialError
from gateway.admission.keys import KeySet
from gateway.admission.ticket import device_hash
from support.values import ALGORITHMS
from tidegate.wire.grammar import is_token

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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_allowed_algorithm_is_believed(algorithm):
    identity = make().verify(
        signed(algorithm, tenant="acme", group="depot-7", jti="j", **{"class": "urgent"})
    )
    assert identity.device == "veh-1"
    assert identity.tenant == "acme"
    assert identity.group == "depot-7"
    assert identity.urgent
    assert identity.jti == "j"
    assert identity.expires_at == NOW + 600


def test_defaults_of_the_contract():
    identity = make().verify(signed())
    assert (identity.tenant, identity.group, identity.urgent, identity.jti) == (
        "default", "default", False, "",
    )  # fmt: skip


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


GOOD = signed("ES256")
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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_not_on_the_allow_list_is_refused_though_its_key_is_known(algorithm):
    others = [name for name in ALGORITHMS if name != algorithm]
    with pytest.raises(CredentialError, match="algorithm"):
        make(algorithms=others).verify(signed(algorithm))


def test_leeway_covers_clocks_that_differ():
    clock = Clock()
    verifier = make(clock=clock)
    assert verifier.verify(signed(exp=NOW - 9))
    assert verifier.verify(signed(nbf=NOW + 9))


def test_a_remembered_credential_costs_no_signature_and_ends_with_its_exp():
    clock = Clock()
    verifier = make(clock=clock)
    token = signed()
    first = verifier.verify(token)
    assert verifier.verify(token) is first
    assert (verifier.verifications, verifier.cache_hits) == (1, 1)
    clock.now += 610
    with pytest.raises(CredentialError, match="expired"):
        verifier.verify(token)
    assert len(verifier) == 0


def test_the_cache_is_bounded_and_keeps_what_is_used():
    verifier = make(cache=2)
    one, two, three = (signed(sub=f"veh-{n}") for n in range(3))
    for token in (one, two, one, three):
        verifier.verify(token)
    assert len(verifier) == 2
    verifier.verify(one)
    assert verifier.verifications == 3
    verifier.verify(two)
    assert verifier.verifications == 4


def test_rotation_forgets_what_the_old_keys_proved():
    verifier = make()
    token = signed("ES256")
    verifier.verify(token)
    rotated = {"keys": [public(ECAlgorithm, OTHER_EC, "es")]}
    verifier.rotate(KeySet.from_jwks(rotated, ["ES256"]))
    with pytest.raises(CredentialError, match="signature"):
        verifier.verify(token)
    assert verifier.verify(signed("ES256", key=OTHER_EC)).device == "veh-1"


def test_audience_and_issuer_are_optional_for_the_operator():
    verifier = make(audience=None, issuer=None)
    assert verifier.verify(signed(aud="any", iss=...)).device == "veh-1"


def test_no_error_quotes_the_credential():
    for forgery in FORGERIES.values():
        with pytest.raises(CredentialError) as caught:
            make().verify(forgery)
        for part in forgery.split("."):
            assert len(part) < 12 or part not in str(caught.value)


PADDED = ["{}=", "{}==", "{}====", "={}", "{} ", "{}\n", "{}.", "{}+", "{}/"]


@pytest.mark.parametrize("form", PADDED)
def test_a_credential_has_one_text(form):
    """A credential with `=` appended was accepted, and remembered a second time."""
    verifier = make()
    good = signed()
    verifier.verify(good)
    with pytest.raises(CredentialError) as caught:
        verifier.verify(form.format(good))
    assert caught.value.reason == "malformed"
    assert len(verifier) == 1


def test_spare_bits_of_the_signature_are_zero():
    verifier = make()
    good = signed()  # 32 bytes: the last character has two spare bits
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(good[-1])
    assert last % 4 == 0
    for spare in (1, 2, 3):
        with pytest.raises(CredentialError) as caught:
            verifier.verify(good[:-1] + alphabet[last + spare])
        assert caught.value.reason == "malformed"
    assert verifier.verify(good).device


def test_a_padded_header_or_payload_is_malformed_too():
    header, payload, signature = signed().split(".")
    for form in (f"{header}=.{payload}.{signature}", f"{header}.{payload}=.{signature}"):
        with pytest.raises(CredentialError) as caught:
            make().verify(form)
        assert caught.value.reason == "malformed"


def test_every_token_of_an_unknown_key_asks_for_a_look():
    asked = []
    verifier = make()
    verifier._on_unknown_key = lambda: asked.append(1)
    token = signed(headers={"kid": "not-there-yet"})
    for times in (1, 2, 3):  # the first is verified, the others are known to be worth nothing
        with pytest.raises(CredentialError) as caught:
            (verifier.verify if times < 3 else verifier.recall)(token)
        assert caught.value.reason == "key"
        assert len(asked) == times
    for other in (signed(key=b"x" * 32), signed(exp=1), "a.b.c"):
        with pytest.raises(CredentialError):
            verifier.verify(other)
    assert len(asked) == 3


@pytest.mark.parametrize(("chars", "believed"), [(256, True), (257, False)])
def test_a_jti_is_a_short_string(chars, believed):
    token = signed(jti="j" * chars)
    if believed:
        assert len(make().verify(token).jti) == chars
    else:
        with pytest.raises(CredentialError) as caught:
            make().verify(token)
        assert caught.value.reason == "claims"


def claim(claims):
    """A token whose claims were never signed."""
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{part}.AAAA"


def test_the_holder_that_a_token_claims_is_read_without_its_signature():
    assert claimed_holder(claim({"sub": "veh-1"})) == device_hash("default", "veh-1")
    assert claimed_holder(claim({"sub": "a", "tenant": "t"})) == device_hash("t", "a")


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.!!.c", claim([]), claim({}), claim({"tenant": "t"}), "a." + "W1tb" * 4_000],
)
def test_a_token_that_claims_no_device_has_no_holder(token):
    assert claimed_holder(token) is None
