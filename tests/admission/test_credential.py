"""Which credentials are believed, for how long, and what is remembered of them."""

import base64
import json

import pytest
from jwt.algorithms import ECAlgorithm

from gateway.admission.credential import claimed_holder
from gateway.admission.errors import CredentialError
from gateway.admission.keys import KeySet
from gateway.admission.ticket import device_hash
from support.credentials import ALGORITHMS, NOW, OTHER_EC, Clock, make, public, signed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_allowed_algorithm_is_believed(algorithm):
    identity = make().verify(
        signed(algorithm, tenant="acme", group="depot-7", jti="j", **{"class": "urgent"})
    )
    assert identity.device == "veh-1"
    assert identity.tenant == "acme"
    assert identity.key == ("acme", "veh-1")
    assert identity.group == "depot-7"
    assert identity.urgent
    assert identity.jti == "j"
    assert identity.expires_at == NOW + 600


def test_defaults_of_the_contract():
    identity = make().verify(signed())
    assert (identity.tenant, identity.group, identity.urgent, identity.jti) == (
        "default", "default", False, "",
    )  # fmt: skip


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


@pytest.mark.parametrize(("chars", "said"), [(256, "no such key"), (257, "no short string")])
def test_a_kid_is_a_short_string(chars, said):
    with pytest.raises(CredentialError, match=said):
        make().verify(signed(headers={"kid": "k" * chars}))


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
