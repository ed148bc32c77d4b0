"""`tidegate state` against a running gateway: what is set, what is refused, what is shown."""

import asyncio
import json
import re

import pytest

from gateway.session.desired import STATE_BYTES_MAX
from support.commands import spawned_tidegate, tidegate
from support.gateways import running_gateway
from support.wire import message, raw_device

VERSION = re.compile(r"[0-9a-f]{16}-\d+\n")


async def state(gateway, *arguments):
    return await asyncio.to_thread(tidegate, "state", *arguments, "--data-dir", gateway.data_dir)


async def test_a_state_is_set_shown_and_reaches_the_device(tmp_path):
    async with running_gateway(tmp_path) as gateway, raw_device(gateway, greet=False) as device:
        assert "state" not in await device.greet(state="")
        shown = await state(gateway, "get", "veh-1")
        assert shown.stdout == "default/veh-1 has no desired state\n"
        done = await state(gateway, "set", "veh-1", ' {"n": 1.50} ')
        assert VERSION.fullmatch(done.stdout), done.stderr
        told = await device.hear_named("state")
        assert told == {"version": done.stdout.strip(), "desired": {"n": 1.5}}
        events = [message(1, "a.b"), message(2, "a.c"), message(3, "a.b")]
        await device.say(events)
        await device.hear_ack(3)
        page = json.loads((await state(gateway, "get", "veh-1", "--json")).stdout)
        assert page["state"]["desired"] == {"n": 1.5}
        assert page["state"]["version"] == done.stdout.strip()
        assert [(event["type"], event["data"]) for event in page["events"]] == [
            ("a.b", {"n": 3}),
            ("a.c", {"n": 2}),
        ]
        shown = (await state(gateway, "get", "veh-1")).stdout
        assert shown.startswith('desired {"n": 1.5}\n  version ')
        assert 'a.c {"n": 2}' in shown


async def test_a_state_is_set_at_the_expected_version_only(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        first = await state(gateway, "set", "veh-1", "{}", "--if-version", "none")
        assert first.returncode == 0, first.stderr
        again = await state(gateway, "set", "veh-1", "{}", "--if-version", "none")
        assert again.returncode == 1
        present = first.stdout.strip()
        assert again.stderr == f"tidegate: not set: the present version is {present}, not none\n"
        second = await state(gateway, "set", "veh-1", '{"n":2}', "--if-version", present)
        assert second.returncode == 0, second.stderr
        for stale in (present, "0000000000000000-2", "x"):
            refused = await state(gateway, "set", "veh-1", "{}", "--if-version", stale)
            assert f"the present version is {second.stdout.strip()}, not {stale}" in refused.stderr
        other = await state(gateway, "set", "veh-1", "{}", "--tenant", "t", "--if-version", "none")
        assert other.returncode == 0, other.stderr


async def test_watch_prints_what_is_set_and_each_change(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        await state(gateway, "set", "veh-1", '{"n":1}')
        await state(gateway, "set", "veh-2", '{"n":9}')
        arguments = ("state", "watch", "veh-1", "--data-dir", gateway.data_dir)
        with spawned_tidegate(*arguments) as watching:
            first = json.loads(await asyncio.to_thread(watching.stdout.readline))
            assert first["desired"] == {"n": 1}
            done = await state(gateway, "set", "veh-1", '{"n":2}')
            second = json.loads(await asyncio.to_thread(watching.stdout.readline))
            assert second == {"version": done.stdout.strip(), "desired": {"n": 2}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("veh-1", "[1]"), "the state must be a JSON object"),
        (("veh-1", "null"), "the state must be a JSON object"),
        (("veh-1", "{"), "the state is no JSON"),
        (("veh-1", '{"a":NaN}'), "the state is no JSON"),
        (("veh-*", "{}"), "DEVICE 'veh-*': must match"),
        (("veh.>", "{}"), "DEVICE 'veh.>': must match"),
        (("veh-1", "{}", "--tenant", "*"), "--tenant '*': must match"),
        (("veh-1", '{"a":"%s"}' % ("x" * STATE_BYTES_MAX)), "a state has 65536 bytes at most"),
        (("veh-1", "{}"), "no embedded NATS runs on"),
    ],
)
def test_what_cannot_be_set_is_named(tmp_path, arguments, said):
    done = tidegate("state", "set", *arguments, "--data-dir", tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
