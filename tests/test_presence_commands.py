"""`tidegate presence` and `tidegate device-log`, and the look-up, on a running gateway."""

import asyncio
import contextlib
import json

import aiohttp
import nats
import pytest
from websockets.exceptions import InvalidStatus

from gateway.commands.device_log import line, presence_entries
from gateway.session.presence import Fact
from gateway.stream.server.roles import Role, url_file
from support.commands import tidegate
from support.gateways import running_gateway, token_for
from support.presence import presence
from support.waiting import eventually
from support.wire import raw_device


async def run(gateway, *arguments, fails=False):
    done = await asyncio.to_thread(tidegate, *arguments, "--data-dir", gateway.data_dir)
    assert (done.returncode != 0) is fails, done.stderr
    return done


async def stored(gateway, count):
    url = url_file(gateway.data_dir, Role.OPERATORS).read_text().strip()

    async def there():
        return len(await presence(url)) >= count

    await eventually(there, f"{count} facts")
    return url


@pytest.fixture
async def lively(tmp_path):
    """A gateway with veh-1 and veh-2 of the depot online, and veh-3 of no depot offline."""
    async with running_gateway(tmp_path, presence__linger_ms=0) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            for name, group in (("veh-1", "depot"), ("veh-2", "depot"), ("veh-3", "yard")):
                token = token_for(gateway, name, group=group)
                connecting = raw_device(gateway, name, token=token)
                if name == "veh-3":
                    async with connecting:
                        pass
                else:
                    await stack.enter_async_context(connecting)
            await stored(gateway, 4)
            yield gateway


async def test_who_is_online_is_counted_by_tenant_and_group(lively):
    said = (await run(lively, "presence")).stdout
    assert [each.split() for each in said.splitlines()] == [
        ["tenant", "group", "online", "offline"],
        ["default", "depot", "2", "0"],
        ["default", "yard", "0", "1"],
        ["all", "2", "1"],
    ]
    names = (await run(lively, "presence", "--list", "--group", "depot")).stdout
    assert [each.split()[0] for each in names.splitlines()] == ["default/veh-1", "default/veh-2"]
    offline = (await run(lively, "presence", "--device", "veh-3")).stdout
    assert "default/veh-3 is offline since" in offline
    assert offline.endswith(": closed 1000\n")
    facts = [
        json.loads(each) for each in (await run(lively, "presence", "--json")).stdout.splitlines()
    ]
    assert [(fact["device"], fact["online"]) for fact in facts] == [
        ("veh-1", True),
        ("veh-2", True),
        ("veh-3", False),
    ]
    unknown = await run(lively, "presence", "--device", "nobody", fails=True)
    assert "nothing is known of default/nobody" in unknown.stderr
    assert (
        "--group must match" in (await run(lively, "presence", "--group", "a b", fails=True)).stderr
    )


async def test_a_device_s_life_is_shown_in_order(lively):
    ops = f"http://127.0.0.1:{lively.ops_port}"
    async with raw_device(lively, "veh-4") as device:
        await device.say({"seq": 1, "type": "t", "data": "x" * 70_000})
        await device.hear_named("reject")
    url = await stored(lively, 6)
    client = await nats.connect(url)
    status = {"status": "expired", "node": "n1", "reason": "\x1b[2J"}
    await client.jetstream().publish(
        "commands.status.default.veh-4.c-1", json.dumps(status).encode()
    )
    await client.close()
    with pytest.raises(InvalidStatus):
        async with raw_device(lively, "veh-4", token=token_for(lively, "veh-4", lifetime_s=-600)):
            pass
    done = await run(lively, "device-log", "veh-4", "--ops-url", ops)
    whats = [each.split("  ")[1] for each in done.stdout.splitlines()]
    assert whats == [
        "connected",
        "reject too_large",
        "closed 1000",
        "command expired",
        "refused credential/expired",
    ]
    assert "\x1b" not in done.stdout
    assert "(remembered by the node, not stored)" in done.stdout.splitlines()[-1]
    assert "default/veh-4 is offline" in done.stderr
    entries = [
        json.loads(each)
        for each in (
            await run(lively, "device-log", "veh-4", "--json", "--no-refusals")
        ).stdout.splitlines()
    ]
    assert [entry["from"] for entry in entries] == [
        "PRESENCE",
        "DEADLETTERS",
        "PRESENCE",
        "COMMANDS",
    ]


async def test_without_an_ops_port_the_stored_life_is_shown(lively):
    done = await run(lively, "device-log", "veh-3", "--ops-url", "http://127.0.0.1:1")
    assert len(done.stdout.splitlines()) == 2
    assert "refusals are not shown" in done.stderr


async def test_the_look_up_shows_presence(lively):
    url = f"http://127.0.0.1:{lively.ops_port}/devices/default/veh-3"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        found = (await response.json())["presence"]
    assert (found["online"], found["cause"], found["group"]) == (False, "closed 1000", "yard")


def test_a_session_that_was_announced_twice_is_shown_as_such():
    facts = [
        Fact("default", "veh-1", True, "s1", fence, "connected", "n1", 0.0) for fence in (7, 8)
    ]
    assert [entry["what"] for entry in presence_entries(facts)] == ["connected", "announced again"]


def test_a_line_holds_nothing_that_a_terminal_obeys():
    shown = line({"time": "t", "what": "command \x1b[2J", "from": "COMMANDS", "data": "\x1b"})
    assert "\x1b" not in shown
