"""Questions to all nodes, over channels in memory."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from gateway.cluster import inquiries
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.inquiries import Inquiries


class Channels:
    """The part of a Redis that several links share."""

    def __init__(self):
        self.nodes = []
        self.down = False

    def key(self, name):
        return f"k:{name}"

    async def call(self, work):
        if self.down:
            raise RedisUnavailable("unreachable", "not connected")
        await work(self)

    async def publish(self, channel, text):
        await asyncio.sleep(0)
        for node in self.nodes:
            questions, answers = node.channels
            if channel == questions:
                node.on_question(text)
            elif channel == answers:
                node.on_answer(text)

    def node(self, name, answer):
        made = Inquiries(self, node=name, answer=answer)
        self.nodes.append(made)
        return made


@pytest.fixture
def channels():
    return Channels()


async def test_every_other_node_answers(channels):
    asker = channels.node("a", lambda _question: pytest.fail("asked itself"))
    for name in ("b", "c"):
        channels.node(name, lambda question: {"of": question["device"]})
    answers = await asker.ask({"device": "veh-1"}, others=2)
    assert sorted(answer["node"] for answer in answers) == ["b", "c"]
    assert {answer["of"] for answer in answers} == {"veh-1"}


async def test_a_silent_node_is_left_out(channels, monkeypatch):
    monkeypatch.setattr(inquiries, "WAIT_S", 0.01)
    asker = channels.node("a", dict)
    channels.node("b", dict)
    assert [answer["node"] for answer in await asker.ask({}, others=2)] == ["b"]


async def test_without_redis_or_other_nodes_there_is_no_answer(channels):
    asker = channels.node("a", dict)
    assert await asker.ask({}, others=0) == []
    channels.down = True
    assert await asker.ask({}, others=1) == []


async def test_questions_at_once_are_bounded(channels, monkeypatch):
    monkeypatch.setattr(inquiries, "WAIT_S", 0.05)
    monkeypatch.setattr(inquiries, "PENDING_MAX", 2)
    asker = channels.node("a", dict)
    channels.node("b", dict)
    answers = await asyncio.gather(*(asker.ask({}, others=1) for _ in range(3)))
    assert sorted(map(len, answers)) == [0, 1, 1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id":1,"from":"b"}', '{"id":[],"answer":1}'])
async def test_what_is_no_message_is_logged_and_ignored(channels, text):
    node = channels.node("a", lambda question: question["what"])
    with capture_logs() as logs:
        node.on_question(text)
        node.on_answer(text)
    assert [line["event"] for line in logs] == ["cluster_message_malformed"] * 2


async def test_a_question_that_this_version_does_not_know_is_not_answered(channels):
    node = channels.node("a", lambda question: question["what"])
    with capture_logs() as logs:
        node.on_question(json.dumps({"id": "1", "from": "b", "question": {}}))
    assert [line["event"] for line in logs] == ["cluster_message_malformed"]


async def test_answers_on_their_way_end_with_the_node(channels):
    node = channels.node("a", dict)
    node.on_question(json.dumps({"id": "1", "from": "b", "question": {}}))
    await node.close()
