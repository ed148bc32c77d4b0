"""The device command reports what it cannot reach, and ends on a signal."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from support.scripted import friendly
from support.socket_gateway import closed_port, on_sockets
from support.waiting import eventually, within
from tidegate.terminal import lines, tell_trouble
from tidegate.testing import FakeClock

MESSAGE = b'{"type":"t","data":1}\n'


class Terminal:
    """The command in a process of its own."""

    def __init__(self, url, box, stdin, *options):
        # With `&` a shell makes its children ignore SIGINT, and their children inherit that.
        def hear_interrupts():
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "veh-1", "--url", url, "--outbox", str(box),
             *options],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"TIDEGATE_CREDENTIAL": "t"},
            preexec_fn=hear_interrupts,  # noqa: PLW1509  # it takes no lock
        )  # fmt: skip

    async def said(self, words):
        """The first line on stderr that has `words`."""
        while True:
            line = await within(asyncio.to_thread(self.process.stderr.readline))
            assert line, "it ended without saying so"
            if words in line:
                return line

    async def ended(self):
        return await within(asyncio.to_thread(self.process.communicate))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.process.kill()
        self.process.communicate()


async def test_lines_come_from_a_file(tmp_path):
    (tmp_path / "lines").write_bytes(MESSAGE * 3)
    async with on_sockets(friendly) as gateway:
        with (tmp_path / "lines").open() as stdin:
            with Terminal(gateway.url, tmp_path / "box", stdin) as terminal:
                out, err = await terminal.ended()
    assert terminal.process.returncode == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    assert {"queued": 3} in said
    assert {"ack": 3} in said
    assert "Traceback" not in err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_a_missing_gateway_is_reported_and_one_signal_ends_the_command(tmp_path, end):
    with Terminal(closed_port(), tmp_path / "box", subprocess.PIPE) as terminal:
        terminal.process.stdin.write(MESSAGE.decode())
        terminal.process.stdin.flush()
        said = await terminal.said("not connected")
        assert "cannot reach ws://127.0.0.1:1/v1/device" in said
        assert "Connection refused" in said
        terminal.process.send_signal(end)
        out, err = await terminal.ended()
    assert terminal.process.returncode == 128 + end
    assert '{"queued":1}' in out
    assert "1 messages stay in" in err
    assert "Traceback" not in err


async def test_a_signal_ends_a_connected_command_that_waits_for_lines(tmp_path):
    async with on_sockets(friendly) as gateway:
        with Terminal(gateway.url, tmp_path / "box", subprocess.PIPE) as terminal:
            await gateway.knocked(1)
            terminal.process.send_signal(signal.SIGTERM)
            _out, err = await terminal.ended()
    assert terminal.process.returncode == 143
    assert err == ""


async def talk(peer):
    """Set a state, and send a request, a queued command and one without an answer."""
    await peer.greet(features=["outboxes", "state", "receipts"])
    await peer.resume(await peer.hello())
    await peer.say({"state": {"version": "e-1", "desired": {"limit": 3}}})
    await peer.say({"command": {"id": "1", "type": "door.lock", "data": [4]}})
    assert (await peer.hear())["result"] == {"id": "1", "ok": True, "data": {"locked": True}}
    await peer.say({"command": {"id": "2", "type": "echo", "data": [4], "queued": True}})
    assert await peer.hear() == {"received": "2"}
    assert (await peer.hear())["result"] == {"id": "2", "ok": True, "data": [4]}
    await peer.say({"command": {"id": "3", "type": "other"}})
    await peer.gone()


async def test_states_and_commands_are_shown_and_answered(tmp_path):
    answers = ["--answer", 'door.lock={"locked":true}', "--answer", "echo"]
    async with on_sockets(talk) as gateway:
        with Terminal(gateway.url, tmp_path / "box", subprocess.DEVNULL, *answers) as terminal:
            said = []
            while not said or said[-1].get("command", {}).get("id") != "3":
                said.append(
                    json.loads(await within(asyncio.to_thread(terminal.process.stdout.readline)))
                )
            terminal.process.send_signal(signal.SIGTERM)
            _out, err = await terminal.ended()
    assert err == ""
    assert {"state": {"version": "e-1", "desired": {"limit": 3}}} in said
    assert {"result": {"id": "1", "ok": True, "data": {"locked": True}}} in said
    assert {"command": {"id": "2", "type": "echo", "data": [4], "queued": True}} in said
    assert said[-1] == {"command": {"id": "3", "type": "other", "data": None}}


async def test_an_outbox_that_is_open_elsewhere_ends_the_command(tmp_path):
    async with on_sockets(friendly) as gateway:
        with Terminal(gateway.url, tmp_path / "box", subprocess.PIPE) as first:
            await gateway.knocked(1)
            with Terminal(gateway.url, tmp_path / "box", subprocess.DEVNULL) as second:
                _out, err = await second.ended()
            first.process.send_signal(signal.SIGTERM)
            await first.ended()
    assert second.process.returncode == 1
    assert "is open already" in err
    assert "Traceback" not in err


async def test_the_command_ends_when_the_reader_of_its_output_goes_away(tmp_path):
    async with on_sockets(friendly) as gateway:
        with Terminal(gateway.url, tmp_path / "box", subprocess.PIPE) as terminal:
            await gateway.knocked(1)
            terminal.process.stdout.close()
            terminal.process.stdin.write(MESSAGE.decode() * 2)
            terminal.process.stdin.flush()
            await within(asyncio.to_thread(terminal.process.wait))
            assert "Traceback" not in terminal.process.stderr.read()


async def all_lines(descriptor):
    return [line async for line in lines(descriptor)]


async def test_lines_are_cut_at_newlines_whatever_the_reads(tmp_path):
    (tmp_path / "f").write_bytes(b"a\n\n" + b"x" * 200_000 + b"\nlast")
    with (tmp_path / "f").open("rb") as file:
        read = await within(all_lines(file.fileno()))
    assert read == [b"a", b"", b"x" * 200_000, b"last"]


async def test_a_line_without_end_is_refused(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * (2**22 + 70_000))
    with (tmp_path / "f").open("rb") as file:
        with pytest.raises(ValueError, match="longer than"):
            await within(all_lines(file.fileno()))


async def test_a_closed_descriptor_ends_the_lines():
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    assert await within(all_lines(reading)) == []


async def test_an_error_is_reported_once_and_again_when_it_changes():
    class Trouble:
        connected = False
        last_error = None

    device, said, clock = Trouble(), [], FakeClock()
    telling = asyncio.create_task(tell_trouble(device, said.append, clock))

    async def looks(times):
        for _ in range(times):
            await eventually(lambda: clock.sleeping)
            clock.advance(0.5)
            await asyncio.sleep(0)
        await eventually(lambda: clock.sleeping)

    await looks(6)
    assert said == ["not connected: no answer yet; trying again"], "within three seconds"
    device.last_error = "cannot reach it"
    await looks(30)
    assert said[1:] == ["not connected: cannot reach it; trying again"]
    device.connected = True
    await looks(2)
    assert said[2:] == ["connected"]
    device.connected, device.last_error = False, "lost"
    await looks(1)
    assert said[3:] == ["not connected: lost; trying again"]
    telling.cancel()
    await asyncio.wait({telling})
