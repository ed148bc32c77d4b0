"""The gauges of what waits in DEADLETTERS, over a real nats-server."""

import asyncio
import random
import time

import nats
import pytest
from nats.js.api import StreamConfig

from gateway import tasks
from gateway.consumers.letters import watch as letter_watch
from gateway.consumers.letters.watch import LetterWatch
from gateway.events.letter_tally import Waiting
from gateway.telemetry.sinks import SinkMetrics
from support.eventstream import add_stream, linked, make_streams
from support.redrives import bury, connected, work
from support.servers import nats_server
from support.waiting import eventually


@pytest.fixture
async def watched(tmp_path, monkeypatch):
    monkeypatch.setattr(letter_watch, "_POLL_S", 0.2)
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        async with linked(server) as link:
            watch = LetterWatch(link, random.Random(1), lambda: time.time() + 100)
            ((_, run),) = watch.work()
            task = asyncio.create_task(run)
            yield server, watch
            await tasks.end(task)
            assert task.cancelled()


async def test_letters_wait_until_they_are_sent_again(watched):
    server, watch = watched
    await eventually(lambda: watch.oldest_age_s() == 0)
    await bury(server, [1, 2])
    await bury(server, [3], error="seq_reused")
    wanted = [Waiting("schema", "schema", 2), Waiting("ingest", "seq_reused", 1)]
    await eventually(lambda: watch.waiting() == wanted)
    assert 100 <= watch.oldest_age_s() < 160
    async with connected(server) as client:
        await work(client, stage="schema").run()
    await eventually(lambda: watch.waiting()[0].letters == 0)
    metrics = SinkMetrics("rule")
    metrics.watch_letters(watch)
    page = metrics.exposition()[0].decode()
    assert 'tidegate_dead_letters_waiting{error="seq_reused",stage="ingest"} 1.0' in page
    assert "tidegate_dead_letters_oldest_seconds 10" in page


async def test_a_stream_that_is_made_anew_is_counted_from_its_beginning(watched):
    server, watch = watched
    await bury(server, [1, 2, 3])
    await eventually(lambda: watch.waiting() == [Waiting("schema", "schema", 3)])
    client = await nats.connect(server.url)
    await client.jetstream().delete_stream("DEADLETTERS")
    letters = StreamConfig("DEADLETTERS", subjects=["deadletters.>"])
    await add_stream(client.jetstream(), letters)
    await client.close()
    await bury(server, [9])
    await eventually(lambda: watch.waiting() == [Waiting("schema", "schema", 1)])


def test_nothing_is_shown_before_all_letters_are_read():
    metrics = SinkMetrics("sink")
    metrics.watch_letters(LetterWatch(None, random.Random(1), time.time))
    assert "tidegate_dead_letters_oldest_seconds " not in metrics.exposition()[0].decode()
