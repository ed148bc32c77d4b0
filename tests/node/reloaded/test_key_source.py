"""Verification keys from a file and from a URL, and their rotation."""

import asyncio
import itertools
import json
import random

import pytest
from aiohttp import web

from gateway.admission.errors import KeySetError
from gateway.errors import KeyFetchError
from gateway.node.reloaded import key_source
from gateway.node.reloaded.key_source import KeySource
from support.waiting import eventually

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
    short = jwks("x").replace(K, "c2hvcnQ").encode()
    for broken in (b"{", b"{}", short, *NO_JSON):
        path.write_bytes(broken)
        await keys.refresh(changes.append)
    path.unlink()
    await keys.refresh(changes.append)
    assert len(changes) == 1


NO_JSON = (
    b'{"keys":[{"kty":"oct","kid":"\xff","k":"' + K.encode() + b'"}]}',
    b"\xff\xfe{",
    b'{"keys":' + b"[" * 100_000,
)
"""Not UTF-8, UTF-16, and nested too deep to parse."""


@pytest.mark.parametrize("document", NO_JSON)
async def test_a_document_that_no_parser_takes_is_an_error_of_the_key_set(tmp_path, document):
    (tmp_path / "jwks.json").write_bytes(document)
    with pytest.raises(KeySetError, match="not JSON"):
        await source(file=tmp_path / "jwks.json").load()


async def test_a_missing_or_broken_file_at_start_is_named(tmp_path):
    with pytest.raises(KeyFetchError, match=r"JWKS .*/missing\.json: No such file"):
        await source(file=tmp_path / "missing.json").load()
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(KeySetError, match=r"JWKS .*/broken\.json: not JSON"):
        await source(file=tmp_path / "broken.json").load()
    (tmp_path / "empty.json").write_text('{"keys":[]}')
    with pytest.raises(KeySetError, match=r"JWKS .*/empty\.json: no key for any of HS256"):
        await source(file=tmp_path / "empty.json").load()


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


@pytest.fixture
def quick(monkeypatch):
    """Looks that are wanted wait a moment only."""
    monkeypatch.setattr(key_source, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(key_source, "_LOOK_JITTER_S", 0.01)


class Looking:
    """A source that keeps fresh, and the changes it told."""

    def __init__(self, keys):
        self.changes = []
        self.task = asyncio.create_task(keys.keep_fresh(self.changes.append))


@pytest.mark.parametrize("kind", ["file", "url"])
async def test_an_unknown_key_is_looked_for(quick, tmp_path, issuer, kind):
    path = tmp_path / "jwks.json"
    path.write_text(jwks("one"))
    keys = source(file=path) if kind == "file" else source(url=issuer.url)
    await keys.load()
    looking = Looking(keys)
    path.write_text(jwks("two"))
    issuer.answer = lambda: web.Response(text=jwks("two"))
    keys.look_soon()
    await eventually(lambda: looking.changes)
    assert looking.changes[0].find("two", "HS256")
    looking.task.cancel()


async def test_however_many_unknown_keys_come_one_look_serves_them_all(quick, issuer):
    keys = source(url=issuer.url)
    await keys.load()
    looks, read = [], keys._read

    async def look():
        looks.append(keys._looked_at)
        return await read()

    keys._read = look
    looking = Looking(keys)
    while len(looks) < 6:
        keys.look_soon()
        await asyncio.sleep(0.001)
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert min(gaps) > 0.045, "asked for each millisecond, looked for each 50"
    looking.task.cancel()


async def test_a_key_that_comes_after_the_look_is_found_by_the_next(quick, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(jwks("one"))
    keys = source(file=path)
    await keys.load()
    looking = Looking(keys)
    path.unlink()  # and a look that fails is followed by another as well
    keys.look_soon()
    await eventually(lambda: not keys._wanted.is_set())
    path.write_text(jwks("two"))
    keys.look_soon()
    await eventually(lambda: looking.changes)
    looking.task.cancel()


async def test_the_wait_of_a_look_is_its_turn_and_jitter():
    clock = [100.0]
    keys = KeySource(
        file=None,
        url="http://127.0.0.1:1/",
        algorithms=["HS256"],
        refresh_s=300,
        rng=random.Random(1),
        clock=lambda: clock[0],
    )
    with pytest.raises(KeyFetchError):
        await keys.load()
    waits = [keys.wait_s() for _ in range(200)]
    assert 10.0 <= min(waits) < max(waits) <= 11.0
    assert max(waits) - min(waits) > 0.8
    clock[0] += 4.0
    assert 6.0 <= keys.wait_s() <= 7.0
    clock[0] += 400.0
    assert 0.0 <= keys.wait_s() <= 1.0
