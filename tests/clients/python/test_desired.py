"""What the device should be like: asked for, kept, and never older than what was seen."""

import asyncio
import logging

import pytest

from support.outboxes import refuse_commits
from support.scripted import device_of, nobody, scripted
from support.waiting import eventually, within
from tidegate import Misuse, NotOpen
from tidegate.testing import Gateway
from tidegate.testing.peer import WELCOME

FEATURES = ["outboxes", "state"]


async def version_of(device):
    return (await within(anext(device.states()))).version


async def test_a_device_that_connects_for_the_first_time_gets_its_state(tmp_path):
    async with Gateway() as gateway:
        version = await gateway.set_state({"limit": 3})
        async with device_of(gateway, tmp_path, state=True) as device:
            assert device.desired is None
            state = await within(anext(device.states()))
            assert (state.version, state.desired) == (version, {"limit": 3})
            assert device.desired == {"limit": 3}


async def test_a_change_reaches_a_connected_device(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            states = device.states()
            await gateway.set_state({"n": 1})
            assert (await within(anext(states))).desired == {"n": 1}
            await gateway.set_state({"n": 2})
            assert (await within(anext(states))).desired == {"n": 2}


async def test_a_slow_reader_gets_the_newest_state_and_not_every_one(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            states = device.states()
            await gateway.set_state({"n": 0})
            await within(anext(states))
            for n in range(1, 101):
                await gateway.set_state({"n": n})
            await eventually(lambda: device.desired == {"n": 100})
            assert (await within(anext(states))).desired == {"n": 100}


async def test_what_one_reader_changes_no_other_one_sees(tmp_path):
    async with Gateway() as gateway:
        await gateway.set_state({"n": [1]})
        async with device_of(gateway, tmp_path, state=True) as device:
            state = await within(anext(device.states()))
            state.desired["n"].append(2)
            device.desired["n"].append(3)
            assert device.desired == {"n": [1]}


async def test_the_state_is_there_after_a_restart_without_a_gateway(tmp_path):
    async with Gateway() as gateway:
        version = await gateway.set_state({"n": 1})
        async with device_of(gateway, tmp_path, state=True) as device:
            await version_of(device)
        hellos = []

        async def note(peer):
            hellos.append(await peer.greet(features=FEATURES))
            await peer.gone()

        async with scripted(note) as other, device_of(other, tmp_path, state=True) as device:
            assert device.desired == {"n": 1}
            await eventually(lambda: hellos)
            assert hellos[0]["state"] == version, "so the newest version costs nothing"


async def test_a_device_that_does_not_want_states_neither_asks_nor_takes_any(tmp_path):
    hellos = []

    async def tell(peer):
        hellos.append(await peer.greet(features=FEATURES, base=WELCOME))
        hellos.append(await peer.hello())
        await peer.resume(hellos[-1])
        await peer.say({"state": {"version": "e-1", "desired": {}}})
        await peer.gone()

    async with scripted(tell) as gateway:
        async with device_of(gateway, tmp_path) as device:
            await eventually(lambda: len(hellos) == 2)
            for wrong in (lambda: device.desired, device.states):
                with pytest.raises(Misuse, match="state=True"):
                    wrong()
    assert not any("state" in hello for hello in hellos)


def say_states(*states):
    async def play(peer):
        hello = await peer.greet(features=FEATURES)
        if "state" not in hello:  # the gateway was unknown
            await peer.resume(await peer.hello())
        for version, desired in states:
            await peer.say({"state": {"version": version, "desired": desired}})
        await peer.gone()

    return play


@pytest.mark.parametrize(
    ("states", "version"),
    [
        ([("e-5", {}), ("e-4", {}), ("e-5", {"other": 1})], "e-5"),
        ([("e-9", {}), ("e-10", {})], "e-10"),
        ([("e-9", {}), ("f-1", {})], "f-1"),
        ([("e-9", {}), ("f-1", {}), ("f-1", {})], "f-1"),
        ([("e-1", {}), ("e-2", []), ("e-3", None), ("e-4", "x"), ("", {})], "e-1"),
        ([("e-1", {}), ("v" * 300, {})], "e-1"),
    ],
)
async def test_older_states_and_what_is_no_state_are_ignored(tmp_path, states, version):
    async with scripted(say_states(*states)) as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            await eventually(lambda: device.desired is not None)
            for _ in range(20):
                await asyncio.sleep(0)
            last = await version_of(device)
            assert last == version
            assert device.connected


async def test_a_state_that_cannot_be_used_is_named_in_the_log(tmp_path, caplog):
    async with scripted(say_states(("e-1", [1]), ("e-2", {}))) as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            assert await version_of(device) == "e-2"
    assert "'e-1' is ignored: it is no object but list" in caplog.text


async def test_a_member_of_welcome_is_taken_like_a_frame(tmp_path):
    async def play(peer):
        await peer.greet(features=FEATURES, state={"version": "e-3", "desired": {"n": 3}})
        await peer.gone()

    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            assert await version_of(device) == "e-3"


async def test_a_stream_of_states_that_was_made_anew_reaches_the_device(tmp_path):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            for n in range(5):
                await gateway.set_state({"n": n})
            await eventually(lambda: device.desired == {"n": 4})
            gateway.cut()
            gateway.lose_states()
            await gateway.set_state({"n": "anew"})
            await eventually(lambda: device.desired == {"n": "anew"})


async def test_a_state_that_the_disk_refuses_is_shown_all_the_same(tmp_path, caplog):
    async with Gateway() as gateway:
        async with device_of(gateway, tmp_path, state=True) as device:
            await within(device.connected.wait())
            refuse_commits(device._gear.store.outbox)
            await gateway.set_state({"n": 1})
            await eventually(lambda: device.desired == {"n": 1})
            refuse_commits(device._gear.store.outbox, refused=False)
    assert any(each.levelno == logging.WARNING for each in caplog.records)


async def test_states_end_with_the_device(tmp_path):
    device = device_of(nobody(), tmp_path, state=True)
    with pytest.raises(NotOpen):
        device.states()
    async with device:
        waiting = asyncio.create_task(anext(device.states()))
        await asyncio.sleep(0)
    with pytest.raises(StopAsyncIteration):
        await within(waiting)
