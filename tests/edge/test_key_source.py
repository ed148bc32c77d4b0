"""Verification keys from a file and from a URL, and their rotation."""

import json
import random

import pytest
from aiohttp import web

from gateway.admission.errors import KeySetError
from gateway.edge.errors import KeyFetchError
from gateway.edge.key_source import KeySource

K = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"


def jwks(kid):
    return json.dumps({"keys": [{"kty": "oct", "kid": kid, "k": K}]})


def source(file=None, url=None):
    return KeySource(file=file, url=url, algorithms=["HS256"], refresh_s=60, rng=random.Random(1))


async def test_a_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(jwks("one"))
    keys = source(file=path)
    assert (await keys.load()).find("one", "HS256")
    changes = []
    await keys.refresh(changes.append)
    assert changes == []
    path.write_text(jwks("two"))
    await keys.refresh(changes.append)
    assert changes[0].find("two", "HS256")
    for broken in ("{", "{}", jwks("x").replace(K, "c2hvcnQ")):
        path.write_text(broken)
        await keys.refresh(changes.append)
    path.unlink()
    await keys.refresh(changes.append)
    assert len(changes) == 1


async def test_a_missing_or_broken_file_at_start_is_named(tmp_path):
    with pytest.raises(KeyFetchError, match=r"missing\.json"):
        await source(file=tmp_path / "missing.json").load()
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(KeySetError, match="not JSON"):
        await source(file=tmp_path / "broken.json").load()


class Issuer:
    """An HTTP server of an issuer; `answer` is what it says."""

    def __init__(self):
        self.answer = lambda: web.Response(text=jwks("one"))
        self.url = ""

    async def handle(self, _request):
        return self.answer()


@pytest.fixture
async def issuer():
    issuer = Issuer()
    application = web.Application()
    application.router.add_get("/jwks", issuer.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    yield issuer
    await runner.cleanup()


async def test_a_url_is_fetched_and_what_is_no_answer_is_refused(issuer):
    keys = source(url=issuer.url)
    assert (await keys.load()).find("one", "HS256")
    answers = [
        lambda: web.Response(status=500),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(body=b" " * 1_100_000),
    ]
    for each in answers:
        issuer.answer = each
        with pytest.raises(KeyFetchError):
            await keys.load()


async def test_an_issuer_that_is_down_is_named():
    with pytest.raises(KeyFetchError, match=r"127\.0\.0\.1:1"):
        await source(url="http://127.0.0.1:1/jwks").load()
