"""Rules whose receiver is slow, hangs, talks without end, or cannot be trusted."""

import asyncio
import json
import ssl
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway.events.rules import Rule
from loadtest.servers.certificates import make_certificate
from support.eventstream import letters, linked, make_streams, publish_events
from support.rules import runner_of, running
from support.servers import free_port, nats_server
from support.waiting import eventually


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


def rule(url, **changes):
    base = {"name": "low", "when": {"type": ["battery.low"]}, "to": url, "from": "start"}
    return Rule.model_validate(base | {"retry_ms": 10, "retry_max_ms": 20} | changes)


@asynccontextmanager
async def served(handle, context=None):
    """The URL of a receiver."""
    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    yield f"http{'s' if context else ''}://127.0.0.1:{port}/"
    await runner.cleanup()


async def publish_of_devices(stream, devices, each=1):
    for device in range(devices):
        await publish_events(
            stream, [{"n": n} for n in range(each)], device=f"veh-{device}", outbox=f"o{device}"
        )


async def test_requests_under_way_are_bounded_and_of_one_device_there_is_one(stream):
    await publish_of_devices(stream, 10, each=5)
    under_way, most, heard = Counter(), Counter(), {}

    async def handle(request):
        device = request.headers["ce-source"]
        for name in ("all", device):
            under_way[name] += 1
            most[name] = max(most[name], under_way[name])
        heard.setdefault(device, []).append(json.loads(await request.read())["n"])
        await asyncio.sleep(0)  # the others get their turn
        for name in ("all", device):
            under_way[name] -= 1
        return web.Response()

    async with served(handle) as url, linked(stream) as link:
        runner = runner_of(link, rule(url, concurrency=3))
        async with running(runner):
            await eventually(lambda: runner.position == 50)
    assert most.pop("all") <= 3
    assert set(most.values()) == {1}
    assert list(heard.values()) == [[0, 1, 2, 3, 4]] * 10


async def test_a_request_that_hangs_is_a_failed_attempt_and_loses_no_other(stream):
    await publish_of_devices(stream, 10)
    heard, hung, forever = [], [], asyncio.Event()

    async def handle(request):
        device = request.headers["ce-source"]
        if device.endswith("veh-3"):
            hung.append(request.headers["Idempotency-Key"])
            await forever.wait()
        else:
            heard.append(device)
        return web.Response()

    async with served(handle) as url, linked(stream) as link:
        runner = runner_of(link, rule(url, timeout_ms=1_500, attempts=2))
        async with running(runner):
            ((subject, headers, _),) = await eventually(lambda: letters(stream))
            await eventually(lambda: runner.position == 10)
        forever.set()
    assert len(heard) == 9
    assert (subject, headers["Tidegate-Error"]) == ("deadletters.default.veh-3.rule.low", "timeout")
    assert len(hung) == 2
    assert len(set(hung)) == 1


async def test_a_batch_of_requests_is_small_enough_to_be_repeated():
    assert rule("http://127.0.0.1/", concurrency=4).batch == 32
    assert rule("nats:alerts.x").batch == 2_000


@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_response_is_not_read_to_its_end(stream, status):
    await publish_of_devices(stream, 1)
    requests = []

    async def handle(request):
        requests.append(request)
        if len(requests) > 1:
            return web.Response()
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        with pytest.raises(ConnectionError):
            while True:
                await response.write(b"x" * 65_536)
                await asyncio.sleep(0)
        return response

    async with served(handle) as url, linked(stream) as link:
        runner = runner_of(link, rule(url))
        async with running(runner):
            await eventually(lambda: runner.position == 1)
    assert len(requests) == (1 if status == 200 else 2)
    assert await letters(stream) == []


async def test_a_redirect_is_not_followed(stream):
    await publish_of_devices(stream, 1)
    elsewhere = []

    async def trap(request):
        elsewhere.append(request)
        return web.Response()

    async with served(trap) as trap_url:

        async def handle(_request):
            raise web.HTTPTemporaryRedirect(trap_url)

        async with served(handle) as url, linked(stream) as link:
            async with running(runner_of(link, rule(url, attempts=2))):
                ((_, headers, _),) = await eventually(lambda: letters(stream))
    assert headers["Tidegate-Error"] == "redirect"
    assert elsewhere == []


async def test_a_receiver_with_a_certificate_of_its_own_is_not_trusted(stream, tmp_path):
    await publish_of_devices(stream, 1)
    files = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    heard = []

    async def handle(request):
        heard.append(request)
        return web.Response()

    async with served(handle, context) as url, linked(stream) as link:
        async with running(runner_of(link, rule(url, attempts=2))):
            ((_, headers, _),) = await eventually(lambda: letters(stream))
    assert headers["Tidegate-Error"] == "tls"
    assert heard == []


@pytest.mark.parametrize("answer", [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " * 9])
async def test_what_is_no_http_is_a_failed_attempt(stream, answer):
    await publish_of_devices(stream, 1)

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with linked(stream) as link:
        async with running(runner_of(link, rule(url, attempts=2))):
            ((_, headers, _),) = await eventually(lambda: letters(stream))
    server.close()
    assert headers["Tidegate-Error"] == "connection"
