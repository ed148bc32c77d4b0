"""The live page over real sockets, with snapshots of the test."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from functools import partial
from importlib.resources import files

import pytest
from structlog.testing import capture_logs

from gateway.ops import live_page
from gateway.ops.access import Access, parse_tokens
from gateway.ops.guard import ConnectionGuard
from gateway.ops.listener import OpsListener, Pages
from gateway.ops.live_files import CHARTS_PATH
from gateway.ops.live_page import HISTORY_MAX, WATCHERS_MAX, LivePage
from gateway.ops.protection import Protection
from support.waiting import eventually, within

TOKEN = "read-" + "y" * 24
FILES = ("/", CHARTS_PATH)


class Rig:
    """A page whose snapshots are numbered."""

    def __init__(self, tokens=None):
        self.number = 0
        self.fails = False
        self.page = LivePage(self.take)
        access = Access(tokens, wall=time.time, clock=time.monotonic)
        pages = Pages(metrics=lambda: (b"", "text/plain"), not_ready=lambda: None, status=dict)
        self.listener = OpsListener(pages, protection=Protection(access), routes=self.page.routes())
        self.port = 0

    def take(self):
        self.number += 1
        if self.fails:
            raise ZeroDivisionError
        return {"series": {"n": self.number}, "status": {"name": "<img src=x onerror=alert(1)>"}}

    async def get(self, path, *headers):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await within(reader.readuntil(b"\r\n\r\n"))).decode()
        return head, reader, writer

    async def answer(self, path, *headers):
        head, reader, writer = await self.get(path, "Connection: close", *headers)
        body = await within(reader.read())
        writer.close()
        return head, body

    @contextlib.asynccontextmanager
    async def watching(self):
        head, reader, writer = await self.get("/events")
        assert head.startswith("HTTP/1.1 200 ")
        try:
            yield reader
        finally:
            writer.close()


async def history_of(reader):
    """The first event: the names, and the values of each snapshot."""
    history = (await event(reader))["history"]
    return history["names"], history["rows"]


async def event(reader):
    text = await within(reader.readuntil(b"\n\n"))
    return json.loads(text.partition(b"data: ")[2])


@contextlib.asynccontextmanager
async def served(rig):
    rig.port = await rig.listener.start("127.0.0.1", 0)
    try:
        yield rig
    finally:
        await rig.listener.stop()


@contextlib.asynccontextmanager
async def served_page(rig):
    """The port of a listener that serves the page that `rig` has now."""
    access = Access(None, wall=time.time, clock=time.monotonic)
    pages = Pages(metrics=lambda: (b"", "text/plain"), not_ready=lambda: None, status=dict)
    listener = OpsListener(pages, protection=Protection(access), routes=rig.page.routes())
    port = await listener.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await listener.stop()


@pytest.fixture
async def rig():
    async with served(Rig()) as made:
        yield made


async def test_the_page_is_small_and_its_policy_allows_nothing_from_elsewhere(rig):
    size = 0
    for path in FILES:
        head, body = await rig.answer(path)
        assert head.startswith("HTTP/1.1 200 ")
        policy = re.search(r"Content-Security-Policy: (.*)\r\n", head)[1]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        size += len(head) + len(body)
    assert size < 150 * 1024


@pytest.mark.parametrize("tag", ["style", "script"])
async def test_the_document_holds_what_the_first_snapshot_needs_and_its_policy_names_it(rig, tag):
    head, body = await rig.answer("/")
    inline = re.findall(rf"<{tag}>(.*?)</{tag}>", body.decode(), re.DOTALL)
    assert [len(text) > 1_000 for text in inline] == [True]
    assert not re.search(r"<link rel=.stylesheet|<script src", body.decode())
    digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
    assert re.search(rf"; {tag}-src [^;]*'sha256-{re.escape(digest)}'", head)


def test_no_file_of_the_page_names_another_site_or_makes_markup_of_text():
    folder = files("gateway.ops") / "live"
    for name in ("index.html", "app.js", "app.css"):
        text = (folder / name).read_text()
        assert "//" not in re.sub(r"// .*", "", text), name
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in text
        assert not re.search(r"\son\w+=|style=", text), "the policy forbids it"
    assert "MIT" in (folder / "uplot-LICENSE.txt").read_text()


async def test_a_watcher_gets_the_history_and_then_each_snapshot(rig):
    for _ in range(3):
        await rig.page.step()
    async with rig.watching() as reader:
        assert await history_of(reader) == (["n"], [[1], [2], [3]])
        assert (await event(reader))["series"] == {"n": 3}
        await rig.page.step()
        assert (await event(reader))["series"] == {"n": 4}


async def test_one_snapshot_is_taken_however_many_watch(rig):
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(rig.watching())
        await eventually(lambda: rig.page.watchers == 20)
        await rig.page.step()
        assert rig.number == 1


async def test_the_history_is_bounded(rig):
    for _ in range(HISTORY_MAX + 5):
        await rig.page.step()
    async with rig.watching() as reader:
        _names, rows = await history_of(reader)
    assert (len(rows), rows[0]) == (HISTORY_MAX, [6])


async def test_one_watcher_too_many_is_told_so_and_a_place_comes_free_again(rig):
    await rig.page.step()
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(rig.watching()) for _ in range(WATCHERS_MAX)]
        head, body = await rig.answer("/events")
        assert head.startswith("HTTP/1.1 503 ")
        assert "Retry-After: 5\r\n" in head
        assert json.loads(body)["error"] == "watchers"
        assert (await rig.answer("/healthz"))[0].startswith("HTTP/1.1 200 "), "others get in"
        assert len(readers) == WATCHERS_MAX

    async def gone():
        await rig.page.step()  # a watcher that has gone is noticed by what is sent to it
        return rig.page.watchers == 0

    await eventually(gone)
    async with rig.watching():
        pass


async def test_a_thousand_streams_are_bounded_and_each_is_told_why(rig):
    await rig.page.step()
    open_, refused, most = [], 0, 0
    try:
        for _ in range(1_000):
            head, reader, writer = await rig.get("/events")
            open_.append(writer)
            if head.startswith("HTTP/1.1 503 "):
                refused += 1
                assert "Retry-After: 5\r\n" in head
                length = int(re.search(r"Content-Length: (\d+)", head)[1])
                assert json.loads(await within(reader.readexactly(length)))["error"] == "watchers"
            else:
                assert head.startswith("HTTP/1.1 200 ")
            most = max(most, rig.page.watchers)
        assert most == WATCHERS_MAX
        assert refused > 0
        assert (await rig.answer("/healthz"))[0].startswith("HTTP/1.1 200 ")
    finally:
        for writer in open_:
            writer.close()


@pytest.mark.parametrize("path", [*FILES, "/events"])
async def test_a_foreign_name_reaches_no_file_and_no_stream(rig, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
    head = await within(reader.readuntil(b"\r\n\r\n"))
    assert head.startswith(b"HTTP/1.1 421 "), "DNS rebinding"
    writer.close()


@pytest.mark.parametrize(
    "mark", ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Origin: null"]
)
async def test_a_page_of_another_site_gets_no_stream(rig, mark):
    head, _body = await rig.answer("/events", mark)
    assert head.startswith("HTTP/1.1 403 ")


async def test_a_snapshot_that_fails_is_said_and_the_page_goes_on(rig):
    await rig.page.step()
    rig.fails = True
    async with rig.watching() as reader:
        await event(reader)
        await event(reader)
        with capture_logs() as logs:
            for _ in range(3):
                await rig.page.step()
        assert [line["event"] for line in logs] == ["snapshot_failed"], "once a minute"
        assert (await event(reader)) == {"failed": True}
        rig.fails = False
        await rig.page.step()
        while (await event(reader)) == {"failed": True}:
            pass


@pytest.mark.parametrize(
    "half",
    [{"status": {}}, {"series": {"n": 1}, "status": object()}, {"series": {"n": object()}}],
    ids=["no series", "a status that is no JSON", "a series that is no JSON"],
)
async def test_a_snapshot_that_fails_half_way_leaves_nothing_behind(rig, half):
    await rig.page.step()
    whole = rig.take
    rig.page = LivePage(lambda: half if rig.fails else whole())
    async with served_page(rig) as port:
        rig.port = port
        await rig.page.step()
        rig.fails = True
        await rig.page.step()
        async with rig.watching() as reader:
            assert await history_of(reader) == (["n"], [[2]])
            assert await event(reader) == {"failed": True}
            rig.fails = False
            await rig.page.step()
            assert (await event(reader))["series"] == {"n": 3}


async def test_a_browser_that_never_reads_is_ended_and_holds_nobody_up(rig, monkeypatch):
    impatient = partial(ConnectionGuard, write_timeout_s=0.05)
    monkeypatch.setattr("gateway.ops.listener.ConnectionGuard", impatient)
    large = "x" * 1_000_000
    rig.page = LivePage(lambda: {"series": {"n": 0}, "status": large})
    async with served_page(rig) as port:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: rig.page.watchers == 1)

        async def until_it_is_ended():
            while rig.page.watchers:
                await rig.page.step()
                await asyncio.sleep(0)

        await within(until_it_is_ended())
        writer.close()


async def test_the_stream_needs_the_role_read_and_the_page_does_not():
    async with served(Rig(parse_tokens(f"wall read {TOKEN}"))) as rig:
        assert (await rig.answer("/"))[0].startswith("HTTP/1.1 200 ")
        assert (await rig.answer("/events"))[0].startswith("HTTP/1.1 401 ")
        wrong = f"Authorization: Bearer {TOKEN}x"
        assert (await rig.answer("/events", wrong))[0].startswith("HTTP/1.1 401 ")
        head, _reader, writer = await rig.get("/events", f"Authorization: Bearer {TOKEN}")
        assert head.startswith("HTTP/1.1 200 ")
        assert "text/event-stream" in head
        writer.close()


async def test_an_expired_token_sees_nothing_and_is_told_so():
    tokens = parse_tokens(f"wall read {TOKEN} 2020-01-01T00:00:00Z")
    async with served(Rig(tokens)) as rig:
        head, body = await rig.answer("/events", f"Authorization: Bearer {TOKEN}")
        assert head.startswith("HTTP/1.1 401 ")
        assert json.loads(body)["error"] == "token_expired"


async def test_snapshots_are_taken_by_themselves(monkeypatch):
    monkeypatch.setattr(live_page, "INTERVAL_S", 0.001)
    rig = Rig()
    ((_name, work),) = rig.page.work()
    task = asyncio.create_task(work)
    await eventually(lambda: rig.number > 3)
    task.cancel()
