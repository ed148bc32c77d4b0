"""The users of the embedded server: each can do its work, and nothing else."""

import random

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

from gateway.stream.server.nats_server import EmbeddedServer
from gateway.stream.server.roles import Role
from support.waiting import eventually, within


class Users:
    """A server with both streams, and a client of each user."""

    def __init__(self, directory):
        self.server = EmbeddedServer(
            directory,
            fsync=False,
            batch_messages_max=1_000,
            port=0,
            rng=random.Random(1),
            on_restart=list,
            on_failure=list,
            rule_subjects=("rules.>", "alerts.*.low"),
        )
        self.denied = []
        self.clients = {}

    async def __aenter__(self):
        await self.server.start()
        for role in Role:
            self.clients[role] = await self.connect(role)
        operators = self.clients[Role.OPERATORS].jetstream()
        await operators.add_stream(name="EVENTS", subjects=["events.>"])
        await operators.add_stream(name="DEADLETTERS", subjects=["deadletters.>"])
        gateway = self.clients[Role.GATEWAY].jetstream()
        for number in range(3):
            await gateway.publish("events.t.d.a", str(number).encode())
        return self

    async def __aexit__(self, *_):
        for client in self.clients.values():
            await client.close()
        await self.server.stop()

    async def connect(self, role, **options):
        async def on_error(error):
            self.denied.append(str(error))

        options = {"inbox_prefix": role.inbox_prefix, **options}
        return await nats.connect(self.server.url_of(role), error_cb=on_error, **options)

    async def denies(self, role, *subjects):
        """Whether each publish is answered by a permissions violation."""
        self.denied.clear()
        for subject in subjects:
            await self.clients[role].publish(subject, b"{}")
        await self.clients[role].flush()
        await self.clients[role].flush()  # nats-py writes the first PING ahead of the messages
        denied = [text.partition('"')[2].rstrip("\"'") for text in self.denied]
        return denied == [subject.lower() for subject in subjects]


async def read_with_ack(client, durable):
    context = client.jetstream()
    subscription = await context.pull_subscribe("events.>", durable, stream="EVENTS")
    messages = await subscription.fetch(3, timeout=10)
    for message in messages:
        await message.ack_sync(timeout=10)
    info = await subscription.consumer_info()
    assert info.num_ack_pending == 0
    return [message.data for message in messages]


async def read_in_order(client):
    context = client.jetstream()
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    subscription = await context.subscribe(
        "events.>", stream="EVENTS", ordered_consumer=True, config=config
    )
    return [(await subscription.next_msg(timeout=10)).data for _ in range(3)]


FORBIDDEN_TO_ALL = (
    "$JS.API.STREAM.DELETE.EVENTS",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.MSG.DELETE.EVENTS",
    "$JS.API.STREAM.DELETE.DEADLETTERS",
    "$JS.API.STREAM.CREATE.OTHER",
    "$SYS.REQ.SERVER.PING",
    "other.subject",
    "_INBOX.gateway.x",
)


async def test_every_user_can_do_its_work_and_nothing_else(tmp_path):
    async with Users(tmp_path) as users:
        for role in Role:
            assert await users.denies(role, *FORBIDDEN_TO_ALL), role
        assert await users.denies(
            Role.GATEWAY,
            "$JS.API.STREAM.UPDATE.EVENTS",
            "$JS.API.CONSUMER.CREATE.EVENTS",
            "$JS.ACK.EVENTS.x",
            "commands.t.d",
            "commands.queue.t.d",
            "state.t.d",
            "$JS.API.STREAM.PURGE.COMMANDS",
            "$JS.API.STREAM.MSG.DELETE.STATE",
            "$JS.API.STREAM.MSG.DELETE.PRESENCE",
            "rules.x",
        )
        assert await users.denies(
            Role.OPERATORS,
            "events.t.d.a",
            "deadletters.t.d",
            "rules.x",
            "presence.t.d",
            "$JS.API.STREAM.MSG.DELETE.COMMANDS",
            "$JS.ACK.OTHER.x",
            "$KV.OTHER.x",
            "$JS.API.STREAM.DELETE.REDRIVES",
        )
        assert await users.denies(
            Role.CONSUMERS,
            "events.t.d.a",
            "deadletters.t.d",
            "$JS.API.STREAM.UPDATE.EVENTS",
            "commands.queue.t.d",
            "commands.status.t.d.id",
            "state.t.d",
            "presence.t.d",
            "alerts.soc.high",
            "$KV.OTHER.x",
            "$JS.API.STREAM.DELETE.KV_TIDEGATE_RULES",
        )
        users.denied.clear()
        for role in (Role.OPERATORS, Role.CONSUMERS):
            client = users.clients[role]
            assert await within(read_with_ack(client, role.value)) == [b"0", b"1", b"2"]
            assert await within(read_in_order(client)) == [b"0", b"1", b"2"]
        consumers = users.clients[Role.CONSUMERS]
        for subject in ("rules.t.d", "alerts.soc.low", "commands.t.d"):
            await consumers.publish(subject, b"{}")
        await consumers.jetstream().publish("deadletters.t.d.rule.name", b"{}")
        assert users.denied == []


async def test_operators_and_consumers_can_send_a_command(tmp_path):
    async with Users(tmp_path) as users:
        gateway = users.clients[Role.GATEWAY]

        async def answer(msg):
            await gateway.publish(msg.reply, b"done")

        await gateway.subscribe("commands.*.*", cb=answer)
        await gateway.flush()
        await gateway.flush()
        for role in (Role.OPERATORS, Role.CONSUMERS):
            reply = await users.clients[role].request("commands.t.d", b"{}", timeout=10)
            assert reply.data == b"done"
        # An operator's tool with the default inbox prefix works.
        tool = await users.connect(Role.OPERATORS, inbox_prefix="_INBOX")
        assert (await tool.request("commands.t.d", b"{}", timeout=10)).data == b"done"
        await tool.close()


async def test_no_user_can_subscribe_to_the_answers_of_another(tmp_path):
    async with Users(tmp_path) as users:
        for role in (Role.OPERATORS, Role.CONSUMERS):
            heard = []

            async def hear(msg, heard=heard):
                heard.append(msg.subject)

            for subject in ("_INBOX.>", "_INBOX.gateway.>", "commands.>", "events.>"):
                await users.clients[role].subscribe(subject, cb=hear)
            await users.clients[role].flush()
            await users.clients[Role.GATEWAY].jetstream().publish("events.t.d.a", b"4")
            await users.clients[role].flush()
            await eventually(lambda: any('"_inbox.gateway.>"' in text for text in users.denied))
            assert heard == []
            users.denied.clear()
