"""`tidegate command` as its user types it, with a gateway and a device."""

import asyncio
import contextlib
import json

import pytest

from support import commands
from support.gateways import running_gateway
from support.waiting import within
from support.wire import raw_device


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path, stream__durability="stream") as gateway:
        yield gateway


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def tidegate(gateway, *arguments, **environment):
    """The exit status, and the lines on standard output and error."""
    place = ("--data-dir", gateway.data_dir)
    environment = {"NO_COLOR": "1", **environment}
    done = await asyncio.to_thread(commands.tidegate, "command", *place, *arguments, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@contextlib.asynccontextmanager
async def answering(gateway, *answers, receipts=False):
    """A device that gives these answers to its commands; yields the commands."""
    heard = []
    async with raw_device(gateway, greet=False) as device:
        await device.say({"hello": {"outbox": "box", "oldest": 1, "receipts": receipts}})
        await device.hear_named("welcome")

        async def answer():
            for each in answers:
                heard.append(await device.hear_named("command"))
                if receipts:
                    await device.say({"received": heard[-1]["id"]})
                await device.say({"result": {"id": heard[-1]["id"], **each}})

        task = asyncio.create_task(answer())
        try:
            yield heard
            await within(task)
        finally:
            task.cancel()


BOTH_WAYS = [(), ("--",)]
"""The short way, and the tree: the short way does not take a line with `--`."""


async def test_an_offline_device_is_known_at_once(gateway):
    for way in BOTH_WAYS:
        status, lines, _ = await tidegate(gateway, *way, "veh-1", "door.lock", '{"doors":4}')
        assert (status, lines) == (
            3,
            [{"outcome": "offline", "detail": "no node holds the device"}],
        )


@pytest.mark.parametrize(
    ("answer", "status", "outcome"),
    [
        ({"ok": True, "data": {"locked": 4}}, 0, "done"),
        ({"ok": False, "data": {"error": "jammed"}}, 6, "failed"),
        ({"ok": False, "data": {"error": "not_understood"}}, 5, "not_understood"),
    ],
)
async def test_the_answer_of_a_device_is_printed(gateway, answer, status, outcome):
    async with answering(gateway, answer) as heard:
        arguments = ("veh-1", "door.lock", '{"doors":4}')
        done, [line], _ = await tidegate(gateway, *arguments, TRACEPARENT=TRACE)
    assert (heard[0]["type"], heard[0]["data"]) == ("door.lock", {"doors": 4})
    assert heard[0]["trace"] == TRACE
    assert (done, line["outcome"], line["data"]) == (status, outcome, answer["data"])


async def test_silence_ends_after_the_wait(gateway):
    async with answering(gateway):
        status, [line], _ = await tidegate(gateway, "veh-1", "door.lock", "--wait", "1s")
    assert (status, line["outcome"]) == (4, "no_answer")


async def test_a_queued_command_is_followed_to_its_end(gateway):
    arguments = ("veh-1", "door.lock", "7", "--queue")
    status, [line], _ = await tidegate(gateway, *arguments, TRACEPARENT=TRACE)
    assert (status, line["status"]) == (0, "queued")
    first = line["id"]
    status, [line], _ = await tidegate(gateway, "veh-1", "--list")
    assert (status, line["id"], line["data"], line["status"]) == (0, first, 7, "queued")
    answers = ({"ok": True, "data": 1}, {"ok": False})
    async with answering(gateway, *answers, receipts=True) as heard:
        status, lines, _ = await tidegate(gateway, "veh-1", "a.b", "--ttl", "1h", "--wait", "30s")
    assert [each["id"] for each in heard] == [first, lines[0]["id"]]
    assert [each.get("trace") for each in heard] == [TRACE, None]
    assert status == 6
    steps = [line["status"] for line in lines]
    assert steps == ["queued", "sent", "delivered", "failed"]
    status, lines, _ = await tidegate(gateway, "veh-1", "--status", first)
    steps = [line["status"] for line in lines]
    assert (status, steps) == (0, ["queued", "sent", "delivered", "done"])
    assert lines[-1]["data"] == 1
    assert (await tidegate(gateway, "veh-1", "--list"))[1] == []


async def test_a_queued_command_can_be_cancelled_until_it_is_sent(gateway):
    _, [line], _ = await tidegate(gateway, "veh-1", "door.lock", "--queue")
    status, [said], _ = await tidegate(gateway, "veh-1", "--cancel", line["id"])
    assert (status, said["reason"]) == (0, "cancelled")
    status, lines, error = await tidegate(gateway, "veh-1", "--cancel", line["id"])
    assert (status, lines) == (1, [])
    assert "it is failed" in error
    status, lines, _ = await tidegate(gateway, "veh-1", "--status", line["id"])
    assert (status, [each["status"] for each in lines]) == (6, ["queued", "failed"])


async def test_a_command_that_expires_says_so(gateway):
    status, lines, _ = await tidegate(gateway, "veh-1", "a", "--ttl", "1s", "--wait", "30s")
    assert (status, [line["status"] for line in lines]) == (7, ["queued", "expired"])


async def test_an_outcome_that_is_not_there_yet_is_no_answer(gateway):
    status, [line], error = await tidegate(gateway, "veh-1", "a", "--queue", "--wait", "1s")
    assert (status, line["status"]) == (4, "queued")
    assert "no outcome yet" in error
    assert (await tidegate(gateway, "veh-1", "--status", line["id"]))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("veh-1",), "give a TYPE"),
        (("veh-1", "a", "--list"), "give a TYPE"),
        (("veh 1", "a"), "--device must match"),
        (("veh-1", "no good"), "--type is"),
        (("veh-1", "a", "{"), "JSON '{'"),
        (("veh-1", "a", "NaN"), "NaN is no JSON"),
        (("veh-1", "a", "--wait", "soon"), "--wait 'soon'"),
        (("veh-1", "a", "--ttl", "0s"), "--ttl '0s'"),
        (("veh-1", "--cancel", "a.b"), "an id must match"),
        (("veh-1", "--cancel", "no-such"), "no command no-such"),
        (("veh-1", "--status", "no-such"), "no fact of command no-such"),
        (("veh-1", "a", '"' + "x" * 65_536 + '"', "--queue"), "larger than 65536 bytes"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_the_reason(gateway, arguments, says):
    status, lines, error = await tidegate(gateway, *arguments)
    assert (status, lines) == (1, [])
    assert says in error
