"""The keys of a node: the development key without a JWKS, and no credential good before a start."""

import random

import pytest

from gateway import development
from gateway.admission.errors import CredentialError
from gateway.errors import KeyFetchError
from gateway.node.reloaded.credential_keys import CredentialKeys
from gateway.settings import Credentials


def keys_of(directory, clock=lambda: 1.0, **credentials):
    return CredentialKeys(
        Credentials(**credentials),
        data_dir=directory,
        wall=lambda: 1.0,
        clock=clock,
        rng=random.Random(1),
    )


async def test_without_a_jwks_the_development_key_is_made_and_believed(tmp_path):
    keys = keys_of(tmp_path)
    assert keys.development
    assert not development.key_file(tmp_path).exists()  # nothing is written before the start
    await keys.start()
    token = development.mint(tmp_path, "veh-1", lifetime_s=60, claims={})
    assert keys.verifier.verify(token).device == "veh-1"


async def test_no_credential_is_good_before_the_keys_are_read(tmp_path):
    token = development.mint(tmp_path, "veh-1", lifetime_s=60, claims={})
    with pytest.raises(CredentialError) as caught:
        keys_of(tmp_path).verifier.verify(token)
    assert caught.value.reason == "key"


async def test_a_jwks_that_is_missing_keeps_the_node_from_starting(tmp_path):
    keys = keys_of(tmp_path, jwks_file=tmp_path / "missing")
    assert not keys.development
    with pytest.raises(KeyFetchError):
        await keys.start()


async def test_new_keys_come_into_force_when_they_are_looked_for(tmp_path):
    keys = keys_of(tmp_path)
    await keys.start()
    before = development.mint(tmp_path, "veh-1", lifetime_s=60, claims={})
    development.key_file(tmp_path).unlink()
    after = development.mint(tmp_path, "veh-1", lifetime_s=60, claims={})
    await keys.refresh()
    keys.verifier.verify(after)
    with pytest.raises(CredentialError):
        keys.verifier.verify(before)


async def test_the_age_of_the_keys_grows_until_they_are_read_again(tmp_path):
    now = [100.0]
    keys = keys_of(tmp_path, clock=lambda: now[0])
    await keys.start()
    now[0] = 160.0
    assert keys.age_s == 60.0
    await keys.refresh()
    assert keys.age_s == 0.0
    now[0] = 170.0
    development.key_file(tmp_path).write_text("{")
    await keys.refresh()
    assert keys.age_s == 10.0
