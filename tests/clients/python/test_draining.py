"""A session drains one outbox id after the other, keeps the gateway's limits, passes over holes."""

import asyncio
import json
import random

import pytest

from support.fake_clock import JumpingClock
from support.scripted import OLD_WELCOME, closed_port, friendly, messages_of, scripted
from support.waiting import eventually, within
from tidegate import BackoffSettings, Clock, Device, Rejected
from tidegate.outbox import Entry, Outbox

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)


def device_of(url, tmp_path, **options):
    options = {"backoff": QUICK, "rng": random.Random(1)} | options
    return Device(url, "t", outbox=tmp_path / "box", **options)


def fill(tmp_path, *batches, limits=None):
    """An outbox file with one id a batch. Returns the ids."""
    ids = []
    for batch in batches:
        box = Outbox(tmp_path / "box", limits)
        box.append([Entry("t", json.dumps(data).encode(), None) for data in batch])
        ids.append(box._ledger.book.id)
        box.close()
    return ids


class Record:
    """Plays a gateway and writes down what it heard, hello by hello."""

    def __init__(self, **welcome):
        self.welcome = welcome
        self.heard = []

    async def __call__(self, peer):
        hello = await peer.greet(**self.welcome)
        self.heard.append((hello, []))
        while True:
            frame = await peer.hear()
            if isinstance(frame, dict) and "hello" in frame:
                self.heard.append((frame["hello"], []))
                await peer.resume(frame["hello"])
                continue
            messages = messages_of(frame)
            self.heard[-1][1].extend(messages)
            await peer.say({"ack": messages[-1]["seq"], "credit": 1_000})

    @property
    def runs(self):
        """(outbox, seqs) of each hello that was followed by messages."""
        return [
            (hello["outbox"], [each["seq"] for each in messages])
            for hello, messages in self.heard
            if messages
        ]


async def test_ids_drain_oldest_first_in_one_session(tmp_path):
    ids = fill(tmp_path, [1, 2], [3], [4, 5])
    play = Record()
    async with scripted(play) as gateway, device_of(gateway.url, tmp_path) as device:
        assert await device.send("t", 6) == 6
        await within(device.flush())
        assert device.pending == 0
    assert [seqs for _outbox, seqs in play.runs] == [[1, 2], [1], [1, 2], [1]]
    assert [outbox for outbox, _seqs in play.runs[:3]] == ids
    assert play.runs[3][0] not in ids, "what this opening adds has an id of its own"
    assert len(gateway.requests) == 1


async def test_an_older_gateway_is_knocked_at_for_each_id(tmp_path):
    fill(tmp_path, [1, 2], [3])
    play = Record(base=OLD_WELCOME)
    async with scripted(play) as gateway, device_of(gateway.url, tmp_path) as device:
        await device.send("t", 4)
        await within(device.flush())
        assert device.failure is None
    assert [seqs for _outbox, seqs in play.runs] == [[1, 2], [1], [1]]
    assert len(gateway.requests) == 3
    assert all("sent" not in hello for hello, _ in play.heard), "it would not understand it"


async def test_acks_speak_of_numbers_that_rise_over_all_ids(tmp_path):
    fill(tmp_path, [1, 2], [3])
    acked = []
    async with scripted(friendly) as gateway:
        async with device_of(gateway.url, tmp_path, on_ack=acked.append) as device:
            number = await device.send("t", 4)
            await within(device.flush())
    assert acked == sorted(acked)
    assert acked[-1] == number == 4


async def test_a_reject_names_the_number(tmp_path):
    fill(tmp_path, [1, 2])
    rejects = []

    async def reject(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"ack": 2, "credit": 9})
        await peer.resume(await peer.hello())
        await peer.hear()
        await peer.say({"reject": {"seq": 1, "error": "type", "detail": "bad"}})
        await peer.say({"ack": 1, "credit": 9})
        await peer.connection.wait_closed()

    async with scripted(reject) as gateway:
        async with device_of(gateway.url, tmp_path, on_reject=rejects.append) as device:
            number = await device.send("t", 3)
            await within(device.flush())
    assert [(each.seq, each.error) for each in rejects] == [(number, "type")]


async def test_the_first_hello_to_an_unknown_gateway_is_plain_the_next_says_what_was_sent(tmp_path):
    fill(tmp_path, [1, 2, 3])
    play = Record()

    async def first(peer):
        await peer.greet()
        await peer.hear()
        await peer.connection.close()

    async with scripted(first, play) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.flush())
        await device.send("t", 4)
        await within(device.flush())
    (hello, _), (further, _) = play.heard
    assert (hello["oldest"], hello["sent"]) == (1, 3)
    assert (further["oldest"], further["sent"]) == (1, 0), "nothing of the new id is in doubt"


async def test_what_was_only_sent_in_part_is_in_doubt_in_part(tmp_path):
    play = Record()
    heard = []

    async def take_two(peer):
        await peer.greet(credit=2)
        heard.extend(messages_of(await peer.hear()))
        await peer.connection.close()

    async with scripted(take_two, play) as gateway, device_of(gateway.url, tmp_path) as device:
        await asyncio.gather(*(device.send("t", n) for n in range(5)))
        await within(device.flush())
    hello, messages = play.heard[0]
    assert (hello["oldest"], hello["sent"]) == (1, len(heard))
    assert [each["seq"] for each in messages] == [1, 2, 3, 4, 5]


async def test_it_is_remembered_in_the_file_that_gateways_here_understand_more(tmp_path):
    play = Record()
    async with scripted(play) as gateway:
        for _ in range(2):
            async with device_of(gateway.url, tmp_path) as device:
                await within(device.connected.wait())
    assert ["sent" in hello for hello, _ in play.heard] == [False, True]


async def test_a_gateway_that_closes_on_an_extended_hello_gets_a_plain_one(tmp_path):
    hellos = []

    async def old(peer):
        hello = await peer.hello()
        hellos.append(hello)
        if "sent" in hello:
            await peer.close(1008, {"error": "frame", "detail": "unknown field sent"})
            return
        await peer.say(
            {"welcome": {**OLD_WELCOME, "resume": {"outbox": hello["outbox"], "seq": 0}}}
        )
        await peer.serve()

    async with scripted(friendly) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.connected.wait())
    async with scripted(old) as gateway, device_of(gateway.url, tmp_path) as device:
        await device.send("t", 1)
        await within(device.flush())
    assert ["sent" in hello for hello in hellos] == [True, False]
    box = Outbox(tmp_path / "box")
    assert not box.gateway_has_features
    box.close()


async def test_a_resume_beyond_what_was_given_settles_the_id_and_leaves_it(tmp_path):
    (first,) = fill(tmp_path, [1, 2])
    play = Record(resume=900)
    acked = []
    async with scripted(play) as gateway:
        async with device_of(gateway.url, tmp_path, on_ack=acked.append) as device:
            number = await device.send("t", 3)
            await within(device.flush())
    assert play.heard[0][0]["outbox"] == first
    assert [(outbox != first, seqs) for outbox, seqs in play.runs] == [(True, [1])]
    assert acked == [2, number], "a number of ours, whatever seq the stream has"


async def test_a_resume_beyond_what_was_given_under_the_id_of_now(tmp_path):
    seen = []

    async def beyond(peer):
        seen.append(await peer.greet(resume=7))
        hello = await peer.hello()
        seen.append(hello)
        await peer.resume(hello)
        await peer.serve()

    async with scripted(beyond) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.connected.wait())
        await device.send("t", 1)
        await within(device.flush())
        assert device.pending == 0
    assert seen[0]["outbox"] != seen[1]["outbox"]
    assert gateway.peers[0].seqs == [1]


async def test_a_resume_for_another_outbox_says_nothing(tmp_path):
    fill(tmp_path, [1, 2])

    async def other(peer):
        hello = await peer.hello()
        at = {"outbox": "another", "seq": 2}
        await peer.say({"welcome": {**OLD_WELCOME, "resume": at}})
        assert hello["oldest"] == 1
        await peer.serve()

    async with scripted(other) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.flush())
    assert gateway.peers[0].seqs == [1, 2]


async def test_nothing_is_sent_between_a_further_hello_and_its_answer(tmp_path):
    fill(tmp_path, [1], [2])
    quiet = []

    async def slow(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"ack": 1, "credit": 50})
        hello = await peer.hello()
        await peer.say({"command": {"id": "1", "type": "t"}})
        await eventually(lambda: quiet)
        await peer.resume(hello)
        await peer.serve()

    async with scripted(slow) as gateway, device_of(gateway.url, tmp_path) as device:
        assert await within(anext(device.commands()))
        await device.send("t", 3)
        quiet.append(1)
        await within(device.flush())
    assert gateway.peers[0].seqs == [1, 1]


async def test_a_hole_is_passed_with_a_further_hello(tmp_path):
    """Messages that may have been sent keep their seq when others are dropped before them."""
    fill(tmp_path, [1, 2, 3, 4])
    box = Outbox(tmp_path / "box")
    box.remove(3)
    box.close()
    play = Record()
    async with scripted(play) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.flush())
    assert [seqs for _outbox, seqs in play.runs] == [[1, 2], [4]]
    assert len(gateway.requests) == 1


# Limits of the gateway


@pytest.mark.parametrize("base", [None, OLD_WELCOME], ids=["today", "older"])
async def test_a_message_over_a_lowered_limit_is_told_and_the_rest_flows(tmp_path, base):
    fill(tmp_path, ["small", "x" * 5_000, "also small"])
    rejects = []
    play = Record(**({"base": base} if base else {}), max_message_bytes=1_000)
    async with scripted(play) as gateway:
        async with device_of(gateway.url, tmp_path, on_reject=rejects.append) as device:
            await device.send("t", "x" * 900)
            await within(device.flush())
            assert (device.pending, device.rejected, device.failure) == (0, 1, None)
            with pytest.raises(Rejected, match="over 1000"):
                await device.send("t", "x" * 1_000)
    assert [(each.seq, each.error) for each in rejects] == [(2, "too_large")]
    assert [seqs for _outbox, seqs in play.runs] == [[1], [3], [1]]


async def test_if_nothing_can_be_sent_there_is_nothing_to_wait_for(tmp_path):
    fill(tmp_path, ["x" * 500])
    play = Record(max_message_bytes=100)
    clock = JumpingClock(only="tidegate-connect")  # no time passes for housekeeping
    async with scripted(play) as gateway:
        async with device_of(
            gateway.url, tmp_path, clock=Clock(clock.monotonic, clock.sleep)
        ) as device:
            await within(device.flush())
            assert device.rejected == 1


async def test_many_that_can_never_be_sent_cost_one_hello(tmp_path):
    fill(tmp_path, ["x" * 500] * 200 + ["small"])
    play = Record(max_message_bytes=100, base=OLD_WELCOME)
    async with scripted(play) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.flush())
        assert device.rejected == 200
    assert len(gateway.requests) == 2


async def test_data_deeper_than_the_gateway_takes(tmp_path):
    fill(tmp_path, [[[[[1]]]], "flat"])
    rejects = []
    play = Record(max_depth=3)
    async with scripted(play) as gateway:
        async with device_of(gateway.url, tmp_path, on_reject=rejects.append) as device:
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
    async with scripted(play) as gateway, device_of(gateway.url, tmp_path) as device:
        await within(device.flush())
    sizes = [len(messages_of(frame)) for frame in frames if messages_of(frame)]
    assert sizes == [5] * 6


async def test_frames_are_no_larger_than_named(tmp_path):
    sizes = []

    async def measure(peer):
        await peer.greet(max_frame_bytes=3_000, max_message_bytes=2_900)
        while True:
            text = await peer.connection.recv()
            sizes.append(len(text))
            last = messages_of(json.loads(text))[-1]["seq"]
            await peer.say({"ack": last, "credit": 1_000})

    fill(tmp_path, ["x" * size for size in (10, 990, 990, 990, 2_890, 10, 10)])
    rejects = []
    async with scripted(measure) as gateway:
        async with device_of(gateway.url, tmp_path, on_reject=rejects.append) as device:
            await within(device.flush())
    assert max(sizes) <= 3_000
    assert len(sizes) < 6, "they are batched nevertheless"
    assert rejects == []


async def test_a_message_too_large_for_any_frame(tmp_path):
    fill(tmp_path, ["x" * 2_950, "small"])
    rejects = []
    play = Record(max_frame_bytes=3_000, max_message_bytes=3_000)
    async with scripted(play) as gateway:
        async with device_of(gateway.url, tmp_path, on_reject=rejects.append) as device:
            await within(device.flush())
            with pytest.raises(Rejected, match="frame"):
                await device.send("t", "x" * 2_950)
    assert [each.error for each in rejects] == ["too_large"]


async def test_offline_the_limits_of_old_hold(tmp_path):
    async with device_of(closed_port(), tmp_path, message_bytes_max=100) as device:
        with pytest.raises(Rejected, match="over 100"):
            await device.send("t", "x" * 99)
        with pytest.raises(Rejected, match="32 levels"):
            deep = []
            for _ in range(32):
                deep = [deep]
            await device.send("t", deep)


async def test_a_hold_stops_it_and_an_ack_lets_it_go_on(tmp_path):
    async def hold(peer):
        await peer.greet(credit=1)
        await peer.say({"hold": {"reason": "stream"}})
        await peer.say({"ack": 0, "credit": 0})
        await peer.say({"ack": 0, "credit": 1_000})
        await peer.serve()

    async with scripted(hold) as gateway, device_of(gateway.url, tmp_path) as device:
        await device.send("t", 1)
        await within(device.flush())
        assert device.knocks.knocks == 1
