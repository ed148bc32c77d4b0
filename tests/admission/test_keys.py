import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.admission.errors import KeySetError
from gateway.admission.keys import KeySet
from support.credentials import ALGORITHMS

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"


def jwk(algorithm, private_key, **more):
    return {**json.loads(algorithm.to_jwk(private_key.public_key())), **more}


@pytest.fixture(scope="module")
def document():
    return {
        "keys": [
            {"kty": "oct", "kid": "h", "k": SECRET},
            jwk(RSAAlgorithm, rsa.generate_private_key(65537, 2048), kid="r"),
            jwk(ECAlgorithm, ec.generate_private_key(ec.SECP256R1()), kid="e"),
            jwk(OKPAlgorithm, ed25519.Ed25519PrivateKey.generate(), kid="o"),
        ]
    }


def test_each_key_serves_the_algorithm_it_is_made_for_and_no_other(document):
    keys = KeySet.from_jwks(document, ALGORITHMS)
    made_for = {"h": "HS256", "r": "RS256", "e": "ES256", "o": "EdDSA"}
    for kid, natural in made_for.items():
        for algorithm in ALGORITHMS:
            assert (keys.find(kid, algorithm) is not None) == (algorithm == natural)
    assert keys.find(None, "RS256") is keys.find("r", "RS256")
    assert keys.find("nobody", "RS256") is None


def test_the_allow_list_filters_keys(document):
    keys = KeySet.from_jwks(document, ["EdDSA"])
    assert len(keys) == 1
    assert keys.find("h", "HS256") is None


def test_without_a_kid_there_must_be_exactly_one_key(document):
    twice = {"keys": [*document["keys"], {"kty": "oct", "kid": "h2", "k": SECRET}]}
    assert KeySet.from_jwks(twice, ALGORITHMS).find(None, "HS256") is None


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2hvcnQ"},
        {"kty": "oct", "k": 5},
        {"kty": "oct"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "oct", "k": SECRET, "kid": 7},
    ],
)
def test_a_broken_or_weak_key_is_named_by_its_place(document, entry):
    with pytest.raises(KeySetError, match=r"key 4|no key"):
        KeySet.from_jwks({"keys": [*document["keys"], entry]}, ALGORITHMS)


def test_a_short_rsa_key_is_refused():
    short = jwk(RSAAlgorithm, rsa.generate_private_key(65537, 1024), kid="r")
    with pytest.raises(KeySetError, match="2048 bits"):
        KeySet.from_jwks({"keys": [short]}, ["RS256"])


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": []}, {"keys": ["x"]}])
def test_what_is_no_usable_jwks(document):
    with pytest.raises(KeySetError):
        KeySet.from_jwks(document, ALGORITHMS)


@pytest.mark.parametrize(
    "more", [{"use": "enc"}, {"alg": "HS512"}, {"crv": "P-256"}, {"kty": "unknown"}]
)
def test_keys_for_other_purposes_are_passed_over(document, more):
    odd = {"kty": "oct", "kid": "x", "k": SECRET, **more}
    keys = KeySet.from_jwks({"keys": [*document["keys"], odd]}, ALGORITHMS)
    assert len(keys) == 4


def test_a_key_without_an_id_is_found_by_its_algorithm_only_if_it_is_the_only_one():
    one = {"kty": "oct", "k": SECRET}
    keys = KeySet.from_jwks({"keys": [one]}, ["HS256"])
    assert keys.find(None, "HS256") is not None
    assert keys.find("h", "HS256") is None
    two = KeySet.from_jwks({"keys": [one, {**one, "kid": "h"}]}, ["HS256"])
    assert two.find(None, "HS256") is None
    assert two.find("h", "HS256") is not None
