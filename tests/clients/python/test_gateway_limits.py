"""The client keeps the limits of each gateway, and gives up what a gateway can never take."""

import json

import pytest

from support.outboxes import fill
from support.scripted import OLD_WELCOME, Record, device_of, nobody, scripted
from support.waiting import within
from tidegate import Rejected
from tidegate.testing.peer import messages_of


@pytest.mark.parametrize("base", [None, OLD_WELCOME], ids=["today", "older"])
async def test_a_message_over_a_lowered_limit_is_rejected_and_the_others_are_sent(tmp_path, base):
    fill(tmp_path, ["small", "x" * 5_000, "also small"])
    rejects = []
    play = Record(**({"base": base} if base else {}), max_message_bytes=1_000)
    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path, on_reject=rejects.append) as device:
            await device.send("t", "x" * 900)
            await within(device.flush())
            assert (device.pending, device.rejected, device.failure) == (0, 1, None)
            with pytest.raises(Rejected, match="over 1000"):
                await device.send("t", "x" * 1_000)
    assert [(each.seq, each.error) for each in rejects] == [(2, "too_large")]
    assert [seqs for _outbox, seqs in play.runs] == [[1], [3], [1]]


async def test_flush_does_not_wait_for_messages_that_can_never_be_sent(tmp_path):
    fill(tmp_path, ["x" * 500])
    play = Record(max_message_bytes=100)
    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.flush())
        assert device.rejected == 1
        assert gateway.clock.monotonic() < 1_005, "no housekeeping was needed"


async def test_many_messages_that_can_never_be_sent_cost_one_hello(tmp_path):
    fill(tmp_path, ["x" * 500] * 200 + ["small"])
    play = Record(max_message_bytes=100, base=OLD_WELCOME)
    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.flush())
        assert device.rejected == 200
    assert len(gateway.knocks) == 2


async def test_data_deeper_than_the_gateway_takes(tmp_path):
    fill(tmp_path, [[[[[1]]]], "flat"])
    rejects = []
    play = Record(max_depth=3)
    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path, on_reject=rejects.append) as device:
            await within(device.flush())
            with pytest.raises(Rejected, match="3 levels"):
                await device.send("t", [[[[1]]]])
    assert [each.error for each in rejects] == ["depth"]


async def test_frames_hold_no_more_messages_than_named(tmp_path):
    frames = []

    class Watch(Record):
        async def __call__(self, peer):
            hear = peer.hear

            async def watched():
                frame = await hear()
                frames.append(frame)
                return frame

            peer.hear = watched
            await super().__call__(peer)

    fill(tmp_path, list(range(30)))
    play = Watch(max_messages_per_frame=5)
    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.flush())
    sizes = [len(messages_of(frame)) for frame in frames if messages_of(frame)]
    assert sizes == [5] * 6


async def test_frames_are_no_larger_than_named(tmp_path):
    sizes = []

    async def measure(peer):
        await peer.greet(max_frame_bytes=3_000, max_message_bytes=2_900)
        while True:
            text = (await peer.far.receive()).decode()
            sizes.append(len(text))
            last = messages_of(json.loads(text))[-1]["seq"]
            await peer.say({"ack": last, "credit": 1_000})

    fill(tmp_path, ["x" * size for size in (10, 990, 990, 990, 2_890, 10, 10)])
    rejects = []
    async with scripted(measure) as gateway:
        async with device_of(gateway, tmp_path, on_reject=rejects.append) as device:
            await within(device.flush())
    assert max(sizes) <= 3_000
    assert len(sizes) < 6, "they are batched nevertheless"
    assert rejects == []


async def test_a_message_too_large_for_any_frame(tmp_path):
    fill(tmp_path, ["x" * 2_950, "small"])
    rejects = []
    play = Record(max_frame_bytes=3_000, max_message_bytes=3_000)
    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path, on_reject=rejects.append) as device:
            await within(device.flush())
            with pytest.raises(Rejected, match="frame"):
                await device.send("t", "x" * 2_950)
    assert [each.error for each in rejects] == ["too_large"]


async def test_offline_the_default_limits_apply(tmp_path):
    async with device_of(nobody(), tmp_path, message_bytes_max=100) as device:
        with pytest.raises(Rejected, match="over 100"):
            await device.send("t", "x" * 99)
        with pytest.raises(Rejected, match="32 levels"):
            deep = []
            for _ in range(32):
                deep = [deep]
            await device.send("t", deep)
