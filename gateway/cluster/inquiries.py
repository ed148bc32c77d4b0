"""Questions about a device to all other nodes of the fleet, over the channels of Redis.

Whoever asks does not know which node holds the device, and what a node remembers is in that node
only. So every node is asked, and every node answers, also with nothing: then the asking node need
not wait for a timeout to know that it has all answers.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any, Final

import structlog

from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)

PENDING_MAX: Final = 64
"""Questions of this node that wait for answers; more are answered by this node alone."""
WAIT_S: Final = 1.0
"""A node that is silent for so long is left out."""

Document = dict[str, Any]


class Inquiries:
    """Asks the other nodes, and answers them."""

    def __init__(
        self, link: RedisLink, *, node: str, answer: Callable[[Document], Document]
    ) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            answer: what this node knows of a question; must return at once.
        """
        self._link = link
        self._node = node
        self._answer = answer
        self._pending: dict[str, tuple[int, list[Document], asyncio.Event]] = {}
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def channels(self) -> tuple[str, str]:
        """The channel of questions to all, and that of answers to this node."""
        return self._link.key("inquiries"), self._answers(self._node)

    def _answers(self, node: str) -> str:
        return self._link.key(f"answers:{node}")

    async def ask(self, question: Document, others: int) -> list[Document]:
        """Ask all other nodes.

        Args:
            question: plain JSON.
            others: how many nodes are expected to answer.

        Returns:
            The answers that came in time, each with the name of its `node`.
        """
        if not others or len(self._pending) >= PENDING_MAX:
            return []
        number, answers, complete = secrets.token_hex(8), list[Document](), asyncio.Event()
        self._pending[number] = (others, answers, complete)
        text = json.dumps({"id": number, "from": self._node, "question": question})
        try:
            async with asyncio.timeout(WAIT_S):
                await self._publish(self.channels[0], text)
                await complete.wait()
        except (TimeoutError, RedisUnavailable):
            pass  # the caller is told which nodes answered
        finally:
            del self._pending[number]
        return answers

    def on_question(self, text: str) -> None:
        """A question of some node; this node's own are not answered."""
        try:
            document = json.loads(text)
            number, asker, question = document["id"], document["from"], document["question"]
            if asker == self._node:
                return
            answer = self._answer(question)
        except (ValueError, KeyError, TypeError, RecursionError):
            _log.error("cluster_message_malformed", channel=self.channels[0])
            return
        reply = json.dumps({"id": number, "answer": {**answer, "node": self._node}})
        telling = asyncio.get_running_loop().create_task(self._tell(str(asker), reply))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, asker: str, reply: str) -> None:
        try:
            await self._publish(self._answers(asker), reply)
        except RedisUnavailable as exc:
            _log.info("inquiry_not_answered", error=str(exc))

    def on_answer(self, text: str) -> None:
        """An answer to this node."""
        try:
            document = json.loads(text)
            pending = self._pending.get(document["id"])
            answer = dict(document["answer"])
        except (ValueError, KeyError, TypeError, RecursionError):
            _log.error("cluster_message_malformed", channel=self.channels[1])
            return
        if pending is not None:  # else it came too late
            others, answers, complete = pending
            answers.append(answer)
            if len(answers) >= others:
                complete.set()

    async def _publish(self, channel: str, text: str) -> None:
        await self._link.call(lambda client: client.publish(channel, text))

    async def close(self) -> None:
        """End the answers that are on their way."""
        for telling in tuple(self._telling):
            telling.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
