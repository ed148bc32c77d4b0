"""A session sends one outbox id after the other, and passes over holes."""

import asyncio

from support.outboxes import fill
from support.scripted import OLD_WELCOME, Record, device_of, friendly, scripted
from support.waiting import within
from tidegate.outbox import Outbox
from tidegate.testing.peer import messages_of


async def test_ids_drain_oldest_first_in_one_session(tmp_path):
    ids = fill(tmp_path, [1, 2], [3], [4, 5])
    play = Record()
    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        assert await device.send("t", 6) == 6
        await within(device.flush())
        assert device.pending == 0
    assert [seqs for _outbox, seqs in play.runs] == [[1, 2], [1], [1, 2], [1]]
    assert [outbox for outbox, _seqs in play.runs[:3]] == ids
    assert play.runs[3][0] not in ids, "what this opening adds has an id of its own"
    assert len(gateway.knocks) == 1


async def test_an_older_gateway_takes_one_connection_for_each_id(tmp_path):
    fill(tmp_path, [1, 2], [3])
    play = Record(base=OLD_WELCOME)
    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        await device.send("t", 4)
        await within(device.flush())
        assert device.failure is None
    assert [seqs for _outbox, seqs in play.runs] == [[1, 2], [1], [1]]
    assert len(gateway.knocks) == 3
    assert all("sent" not in hello for hello, _ in play.heard), "it would not understand it"


async def test_acks_report_numbers_that_rise_over_all_ids(tmp_path):
    fill(tmp_path, [1, 2], [3])
    acked = []
    async with scripted(friendly) as gateway:
        async with device_of(gateway, tmp_path, on_ack=acked.append) as device:
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
        await peer.gone()

    async with scripted(reject) as gateway:
        async with device_of(gateway, tmp_path, on_reject=rejects.append) as device:
            number = await device.send("t", 3)
            await within(device.flush())
    assert [(each.seq, each.error) for each in rejects] == [(number, "type")]


async def test_the_first_hello_to_an_unknown_gateway_is_plain_and_the_next_has_sent(tmp_path):
    fill(tmp_path, [1, 2, 3])
    play = Record()

    async def first(peer):
        await peer.greet()
        await peer.hear()
        await peer.close(1000)

    async with scripted(first, play) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.flush())
        await device.send("t", 4)
        await within(device.flush())
    (hello, _), (further, _) = play.heard
    assert (hello["oldest"], hello["sent"]) == (1, 3)
    assert (further["oldest"], further["sent"]) == (1, 0), "nothing of the new id is in doubt"


async def test_only_the_messages_that_were_sent_are_in_doubt(tmp_path):
    play = Record()
    heard = []

    async def take_two(peer):
        await peer.greet(credit=2)
        heard.extend(messages_of(await peer.hear()))
        await peer.close(1000)

    async with scripted(take_two, play) as gateway, device_of(gateway, tmp_path) as device:
        await asyncio.gather(*(device.send("t", n) for n in range(5)))
        await within(device.flush())
    hello, messages = play.heard[0]
    assert (hello["oldest"], hello["sent"]) == (1, len(heard))
    assert [each["seq"] for each in messages] == [1, 2, 3, 4, 5]


async def test_the_file_remembers_that_gateways_here_announce_features(tmp_path):
    play = Record()
    async with scripted(play) as gateway:
        for _ in range(2):
            async with device_of(gateway, tmp_path) as device:
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

    async with scripted(friendly) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.connected.wait())
    async with scripted(old) as gateway, device_of(gateway, tmp_path) as device:
        await device.send("t", 1)
        await within(device.flush())
    assert ["sent" in hello for hello in hellos] == [True, False]
    box = Outbox(tmp_path / "box")
    assert not box.gateway_has_features
    box.close()


async def test_a_resume_beyond_the_assigned_seqs_settles_and_ends_the_id(tmp_path):
    (first,) = fill(tmp_path, [1, 2])
    play = Record(resume=900)
    acked = []
    async with scripted(play) as gateway:
        async with device_of(gateway, tmp_path, on_ack=acked.append) as device:
            number = await device.send("t", 3)
            await within(device.flush())
    assert play.heard[0][0]["outbox"] == first
    assert [(outbox != first, seqs) for outbox, seqs in play.runs] == [(True, [1])]
    assert acked == [2, number], "a number of ours, whatever seq the stream has"


async def test_a_resume_beyond_the_assigned_seqs_of_the_current_id(tmp_path):
    seen = []

    async def beyond(peer):
        seen.append(await peer.greet(resume=7))
        hello = await peer.hello()
        seen.append(hello)
        await peer.resume(hello)
        await peer.serve()

    async with scripted(beyond) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.connected.wait())
        await device.send("t", 1)
        await within(device.flush())
        assert device.pending == 0
    assert seen[0]["outbox"] != seen[1]["outbox"]
    assert gateway.peers[0].seqs == [1]


async def test_a_resume_for_another_outbox_settles_nothing(tmp_path):
    fill(tmp_path, [1, 2])

    async def other(peer):
        hello = await peer.hello()
        at = {"outbox": "another", "seq": 2}
        await peer.say({"welcome": {**OLD_WELCOME, "resume": at}})
        assert hello["oldest"] == 1
        await peer.serve()

    async with scripted(other) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.flush())
    assert gateway.peers[0].seqs == [1, 2]


async def test_nothing_is_sent_between_a_further_hello_and_its_answer(tmp_path):
    fill(tmp_path, [1], [2])
    quiet = asyncio.Event()  # without real time, in which the gateway's clock would jump

    async def slow(peer):
        await peer.greet()
        await peer.hear()
        await peer.say({"ack": 1, "credit": 50})
        hello = await peer.hello()
        await peer.say({"command": {"id": "1", "type": "t"}})
        await quiet.wait()
        await peer.resume(hello)
        await peer.serve()

    async with scripted(slow) as gateway, device_of(gateway, tmp_path) as device:
        assert await within(anext(device.commands()))
        await device.send("t", 3)
        quiet.set()
        await within(device.flush())
    assert gateway.peers[0].seqs == [1, 1]


async def test_a_hole_is_passed_with_a_further_hello(tmp_path):
    """Messages that may have been sent keep their seq when others are dropped before them."""
    fill(tmp_path, [1, 2, 3, 4])
    box = Outbox(tmp_path / "box")
    box.remove(3)
    box.close()
    play = Record()
    async with scripted(play) as gateway, device_of(gateway, tmp_path) as device:
        await within(device.flush())
    assert [seqs for _outbox, seqs in play.runs] == [[1, 2], [4]]
    assert len(gateway.knocks) == 1


async def test_a_hold_stops_sending_until_an_ack(tmp_path):
    async def hold(peer):
        await peer.greet(credit=1)
        await peer.say({"hold": {"reason": "stream"}})
        await peer.say({"ack": 0, "credit": 0})
        await peer.say({"ack": 0, "credit": 1_000})
        await peer.serve()

    async with scripted(hold) as gateway, device_of(gateway, tmp_path) as device:
        await device.send("t", 1)
        await within(device.flush())
        assert device.knocks.knocks == 1
