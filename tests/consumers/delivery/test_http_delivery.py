"""Rules that post events to a receiver over HTTP."""

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from gateway.consumers.delivery.attempts import wait_s
from support.eventstream import letters, linked, publish_events
from support.rule_streams import make_target, payloads, rule
from support.rules import runner_of, running
from support.servers import free_port
from support.waiting import eventually


class Receiver:
    """A receiver of events that answers what the test says."""

    def __init__(self, answers):
        self.answers = answers
        self.requests = []

    async def handle(self, request):
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        answer = self.answers.pop(0) if self.answers else {}
        if answer.get("reset"):
            request.transport.abort()
        if answer.get("huge"):
            return await huge(request)
        return web.Response(**{"status": 204} | {k: v for k, v in answer.items() if k != "reset"})


async def huge(request):
    """More than anybody may read, as fast as it is taken."""
    response = web.StreamResponse(status=500)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(1_000):
            await response.write(b"x" * 65_536)
            await asyncio.sleep(0)
    return response


@asynccontextmanager
async def receiver(answers=()):
    found = Receiver(list(answers))
    application = web.Application()
    application.router.add_post("/events", found.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found.url = f"http://127.0.0.1:{port}/events"
    yield found
    await runner.cleanup()


def http_rule(url, **changes):
    return rule(to=url, retry_ms=10, retry_max_ms=20, **changes)


async def test_events_are_posted_as_cloudevents(stream):
    await publish_events(stream, [{"soc": 1}])
    async with receiver() as found, linked(stream) as link:
        async with running(runner_of(link, http_rule(found.url))):
            await eventually(lambda: found.requests)
    ((headers, body),) = found.requests
    assert body == b'{"soc": 1}'
    assert headers["Idempotency-Key"] == "default:veh-1:rule/low:1"
    assert headers["ce-type"] == "battery.low"
    assert headers["ce-id"] == "o1:1"
    assert headers["ce-source"] == "tidegate:default/veh-1"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500, "text": "not now"},
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 503, "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
        {"huge": True},
        {"reset": True},
    ],
)
async def test_a_failed_request_is_repeated_with_the_same_id(stream, answer):
    await publish_events(stream, [{"soc": 1}])
    async with receiver([answer]) as found, linked(stream) as link:
        runner = runner_of(link, http_rule(found.url))
        async with running(runner):
            await eventually(lambda: len(found.requests) > 1)
            await eventually(lambda: runner.position == 1)
    assert len({headers["Idempotency-Key"] for headers, _ in found.requests}) == 1
    assert await letters(stream) == []


async def test_what_fails_each_time_is_a_letter_and_holds_nothing_up(stream):
    await publish_events(stream, [{"soc": 1}])
    answers = [{"status": 500, "text": "no room"}] * 3
    async with receiver(answers) as found, linked(stream) as link:
        async with running(runner_of(link, http_rule(found.url, attempts=3))):
            ((_, headers, _),) = await eventually(lambda: letters(stream))
            assert len(found.requests) == 3
            await publish_events(stream, [{"soc": 2}], first=2)
            await eventually(lambda: len(found.requests) == 4)
    assert (headers["Tidegate-Error"], headers["Tidegate-Detail"]) == ("http_500", "no room")


def test_waits_double_up_to_a_cap_and_what_is_asked_for_is_a_floor():
    wanted = rule(retry_ms=100, retry_max_ms=1_000)
    rng = random.Random(1)
    for failures, ceiling in ((1, 0.1), (2, 0.2), (4, 0.8), (9, 1.0), (10_000, 1.0)):
        waits = [wait_s(wanted, failures, 0.0, rng) for _ in range(200)]
        assert min(waits) < ceiling / 5
        assert ceiling * 0.8 < max(waits) <= ceiling
    assert 0.5 < wait_s(wanted, 1, 0.5, rng) <= 0.6
    assert 1.0 < wait_s(wanted, 1, timedelta(days=1).total_seconds(), rng) <= 1.1


async def test_a_slow_receiver_does_not_hold_another_rule_up(stream):
    await make_target(stream)
    await publish_events(stream, [{"soc": soc} for soc in range(10)])
    async with receiver([{"status": 500}] * 10_000) as found, linked(stream) as link:
        slow = http_rule(found.url, name="slow", attempts=1_000)
        async with running(runner_of(link, slow)), running(runner_of(link, rule())):
            assert await payloads(stream, 10) == list(range(10))
