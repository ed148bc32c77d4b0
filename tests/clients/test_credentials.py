import jwt
import pytest

from clients.credentials import expires_at, static_credential
from clients.errors import CredentialRefused


def test_expiry_is_read_without_a_key():
    assert expires_at(jwt.encode({"exp": 12345}, "k" * 32)) == 12345.0


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "a.e30.c", "..", "a.Ww.c", "a.!!.c"])
def test_an_unreadable_token_has_no_expiry(token):
    assert expires_at(token) is None


async def test_a_static_credential_is_given_until_it_is_refused():
    provide = static_credential("token")
    assert await provide(None) == "token"
    with pytest.raises(CredentialRefused, match="expired"):
        await provide("expired")
