"""The publisher against real nats-servers: every strategy, duplicates, loss of connection."""

import asyncio
import time

import pytest

from gateway.stream.lanes.batch import Strategy
from support.eventstream import add_stream
from support.publishing import Rig, messages
from support.servers import nats_server
from support.stored import by_device, read_stream
from support.waiting import eventually, within


@pytest.mark.parametrize("strategy", Strategy)
async def test_every_strategy_stores_in_order_and_settles(tmp_path, strategy):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, strategy) as rig:
            for seq in range(1, 201):
                for device in "abcdefg":
                    rig.submit(device, seq)
            for device in "abcdefg":
                await rig.settled(device, 200)
            await within(rig.publisher.drain())
            assert (rig.publisher.pending_messages, rig.publisher.pending_bytes) == (0, 0)
            kind = "round" if strategy is Strategy.PLAIN else strategy.value
            assert kind in rig.observer.kinds
        stored = by_device(await read_stream(server.url))
    assert stored == {(device, "box"): list(range(1, 201)) for device in "abcdefg"}


async def test_runs_are_stored_with_the_headers_of_single_messages(tmp_path):
    """The stream takes 100,000 bytes a message, and one of the last run is larger."""
    with nats_server(tmp_path) as server:
        async with Rig(server.url, Strategy.LINKED, lanes=1) as rig:
            for first in range(1, 91, 10):
                for device in "abc":
                    rig.submit_run(device, messages(first, first + 9))
            rig.submit("d", 1, b"1")
            for device in "abc":
                await rig.settled(device, 90)
            assert "linked" in rig.observer.kinds
            assert rig.observer.retries == []
            rig.submit_run("a", messages(91, 100, larger=93))
            await rig.settled("a", 100)
            await within(rig.publisher.drain())
            assert (rig.publisher.pending_messages, rig.publisher.pending_bytes) == (0, 0)
            assert rig.owners["a"].rejects == [(93, "message_size")]
        stored = await read_stream(server.url)
        seqs = list(range(1, 91))
        longer = [*seqs, 91, 92, *range(94, 101)]
        assert by_device(stored) == {
            ("a", "box"): longer,
            ("b", "box"): seqs,
            ("c", "box"): seqs,
            ("d", "box"): [1],
        }
        names = {name for each in stored for name in each.headers if not name.startswith("Nats-")}
        alone = {"ce-id", "ce-source", "ce-specversion", "ce-time", "ce-type"}
        assert names == alone, "no status, which nats-py would call Status"


@pytest.mark.parametrize("strategy", Strategy)
async def test_duplicates_within_a_batch_are_settled_and_the_rest_is_stored(tmp_path, strategy):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, strategy) as rig:
            for seq in range(1, 6):
                rig.submit("a", seq)
            await rig.settled("a", 5)
            rig.owners["a"].acked = 0  # a device that never heard the ack
            for seq in range(1, 11):
                rig.submit("a", seq)
                rig.submit("b", seq)
            await rig.settled("a", 10)
            await rig.settled("b", 10)
            # Fast ingest passes over duplicates and does not say so. A linked batch with one is
            # repeated.
            duplicates = {Strategy.FAST: 0, Strategy.LINKED: 20}
            assert rig.observer.duplicates == duplicates.get(strategy, 5)
        stored = by_device(await read_stream(server.url))
    assert stored == {(device, "box"): list(range(1, 11)) for device in "ab"}


@pytest.mark.parametrize("strategy", Strategy)
async def test_a_message_the_stream_never_takes_goes_to_the_dead_letters(tmp_path, strategy):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, strategy) as rig:
            rig.submit("a", 1)
            rig.submit("a", 2, b"x" * 200_000)
            rig.submit("a", 3)
            await rig.settled("a", 3)
            assert rig.owners["a"].rejects == [(2, "message_size")]
        assert by_device(await read_stream(server.url)) == {("a", "box"): [1, 3]}
        assert [each.seq for each in await read_stream(server.url, "DEADLETTERS")] == [2]


@pytest.mark.parametrize("strategy", Strategy)
async def test_kill_9_of_the_server_in_mid_traffic_loses_and_doubles_nothing(tmp_path, strategy):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, strategy) as rig:
            total, devices = 900, "abcdefghij"

            async def produce():
                for seq in range(1, total + 1):
                    for device in devices:
                        rig.submit(device, seq)
                    await asyncio.sleep(0)
                    if seq % 300 == 0 and seq < total:
                        await rig.settled("a", seq - 250)
                        server.kill()
                        await asyncio.to_thread(server.start)

            await within(produce())
            for device in devices:
                await rig.settled(device, total)
        stored = by_device(await read_stream(server.url))
    assert stored == {(device, "box"): list(range(1, total + 1)) for device in devices}


async def test_trouble_is_reported_while_the_server_does_not_answer(tmp_path):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, Strategy.ATOMIC, ack_timeout_s=0.05) as rig:
            rig.submit("a", 1)
            await rig.settled("a", 1)
            assert rig.publisher.trouble is None
            server.pause()
            rig.submit("a", 2)
            await eventually(
                lambda: (
                    rig.publisher.trouble
                    in ("stream_timeout", "stream_slow", "stream_no_responders")
                )
            )
            assert "timeout" in rig.observer.retries
            server.go_on()
            await rig.settled("a", 2)
            await eventually(lambda: rig.publisher.trouble is None)
        assert by_device(await read_stream(server.url)) == {("a", "box"): [1, 2]}


async def test_a_missing_stream_is_waited_for(tmp_path):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, Strategy.ATOMIC) as rig:
            context = rig.link.client.jetstream()
            config = (await context.stream_info("EVENTS")).config
            await context.delete_stream("EVENTS")
            rig.submit("a", 1)
            await eventually(lambda: "no_responders" in rig.observer.retries)
            await add_stream(context, config)
            await rig.settled("a", 1)


async def test_a_full_node_is_full_until_there_is_room(tmp_path):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, Strategy.ATOMIC, pending_messages_max=10) as rig:
            drained = asyncio.Event()
            for seq in range(1, 11):
                rig.submit("a", seq)
            assert rig.publisher.pending.full
            rig.publisher.pending.when_drained(drained.set)
            await within(drained.wait())
            assert not rig.publisher.pending.full


async def test_a_server_that_takes_small_batches_is_given_small_batches(tmp_path):
    limited = {"store_dir": str(tmp_path / "js"), "limits": {"batch": {"max_msgs": 100}}}
    with nats_server(tmp_path, jetstream=limited) as server:
        async with Rig(server.url, Strategy.ATOMIC) as rig:
            for seq in range(1, 1_001):
                rig.submit("a", seq)
            await rig.settled("a", 1_000)
            assert set(rig.observer.retries) == {"batch_size"}
            assert rig.observer.kinds == {"atomic"}
        assert by_device(await read_stream(server.url)) == {("a", "box"): list(range(1, 1_001))}


async def test_a_staged_batch_is_stored_once_when_the_connection_is_lost(tmp_path):
    with nats_server(tmp_path) as server:
        limits = {"batch_messages_max": 1_000, "ack_timeout_s": 0.5}
        async with Rig(server.url, Strategy.ATOMIC, **limits) as rig:
            for seq in range(1, 4_001):
                rig.submit("a", seq)
            server.pause()  # one batch in flight, one staged behind it
            await eventually(lambda: "timeout" in rig.observer.retries)
            server.kill()
            await asyncio.to_thread(server.start)
            await rig.settled("a", 4_000)
        assert by_device(await read_stream(server.url)) == {("a", "box"): list(range(1, 4_001))}


SHORT_WINDOW = {"duplicate_window_s": 0.6, "ack_timeout_s": 0.1, "question_timeout_s": 0.2}


@pytest.mark.parametrize("strategy", Strategy)
async def test_what_was_stored_longer_ago_than_the_window_is_not_stored_again(tmp_path, strategy):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, strategy, **SHORT_WINDOW) as rig:
            rig.deaf = True
            for seq in range(1, 6):
                rig.submit("a", seq)
                rig.submit("b", seq)
            await rig.settled("a", 5)
            await rig.settled("b", 5)
            assert "lookup" in rig.observer.kinds
        stored = by_device(await read_stream(server.url))
    assert stored == {(device, "box"): list(range(1, 6)) for device in "ab"}


@pytest.mark.parametrize("strategy", Strategy)
async def test_what_was_lost_longer_ago_than_the_window_is_stored(tmp_path, strategy):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, strategy, **SHORT_WINDOW) as rig:
            rig.submit("a", 1)
            await rig.settled("a", 1)
            server.pause()
            for seq in range(2, 21):
                rig.submit("a", seq)
            rig.submit("b", 1, b"x" * 200_000)  # and in a stream with nothing yet
            await eventually(lambda: rig.asking, "in doubt for half the window")
            server.kill()
            await asyncio.to_thread(server.start)
            await rig.settled("a", 20)
            await rig.settled("b", 1)
            assert "absent" in rig.observer.retries
            assert rig.owners["b"].rejects == [(1, "message_size")]
        assert by_device(await read_stream(server.url)) == {("a", "box"): list(range(1, 21))}


async def test_a_linger_gathers_a_batch(tmp_path):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, Strategy.ATOMIC, linger_s=1.0, lanes=1) as rig:
            for device in ("a", "b", "c", "d"):
                rig.submit(device, 1)
                await asyncio.sleep(0)
            await rig.settled("d", 1)
            assert rig.observer.kinds == {"round"}


async def test_looks_send_and_settle_without_an_end_of_the_turn(tmp_path):
    with nats_server(tmp_path) as server:
        async with Rig(server.url, Strategy.ATOMIC) as rig:
            rig.submit("a", 1)
            await rig.settled("a", 1)
            for seq in range(2, 5):
                rig.submit("a", seq)
                rig.submit("b", seq)
            end = time.monotonic() + 10.0
            while rig.publisher.pending_messages and time.monotonic() < end:
                rig.publisher.look()  # and nothing is awaited
            assert (rig.owners["a"].acked, rig.owners["b"].acked) == (4, 4)
        stored = by_device(await read_stream(server.url))
    assert stored == {("a", "box"): [1, 2, 3, 4], ("b", "box"): [2, 3, 4]}
