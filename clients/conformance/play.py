"""Plays one exchange, step by step."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from websockets.exceptions import ConnectionClosed

from clients.conformance.errors import ConformanceError, Mismatch, ScriptError
from clients.conformance.pattern import check, fill
from clients.conformance.peer import SUBPROTOCOL, Opening, Peer
from clients.conformance.subject import Subject, mint

EXCHANGES: Final = Path(__file__).with_name("exchanges.json")
BACKOFF_SCALE: Final = 0.05
"""A client under test multiplies its own waits by this, but not those that a gateway names."""

_PATIENCE_S: Final = 15.0
_EARLY_MS: Final = 5
"""Tolerance for the clocks of two processes, both rounded to milliseconds."""

Step = dict[str, Any]


def load_exchanges(path: Path = EXCHANGES) -> list[dict[str, Any]]:
    """The list of exchanges."""
    exchanges: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["exchanges"]
    return exchanges


class Player:
    """Plays one exchange against a new process of the client."""

    def __init__(self, command: Sequence[str], exchange: dict[str, Any], directory: Path) -> None:
        self._command = command
        self._exchange = exchange
        self._directory = directory
        self._peer = Peer()
        self._names: dict[str, Any] = {}
        self._tokens = {
            name: mint(name, lifetime_s)
            for name, lifetime_s in exchange.get("credentials", {"one": 3_600}).items()
        }
        self._subject: Subject
        self._current: Opening | None = None
        self._known: dict[str, Opening] = {}
        self._hello: dict[str, Any] = {}
        self._since = time.monotonic()
        """When the gateway acted last."""

    async def play(self) -> str | None:
        """
        Returns:
            None, or what the client lacks for this exchange.

        Raises:
            ConformanceError: the client does something other than the exchange demands.
        """
        async with self._peer:
            self._subject = self._make_subject()
            try:
                await self._subject.start()
                lacking = set(self._exchange.get("needs", ())) - self._subject.can
                if lacking:
                    return ", ".join(sorted(lacking))
                for place, step in enumerate(self._exchange["steps"], 1):
                    try:
                        await self._take(step)
                    except ConformanceError as exc:
                        raise type(exc)(f"step {place} {json.dumps(step)[:80]}: {exc}") from exc
                    except ConnectionClosed as exc:
                        said = f"step {place} {json.dumps(step)[:80]}: {exc}"
                        raise Mismatch(said) from exc
                await self._subject.stop()
            finally:
                await self._subject.kill()
        return None

    def _make_subject(self) -> Subject:
        environment = {
            "TIDEGATE_URL": self._peer.url,
            "TIDEGATE_OUTBOX": str(self._directory / "outbox"),
            "TIDEGATE_BACKOFF_SCALE": str(BACKOFF_SCALE),
        }
        return Subject(self._command, environment, list(self._tokens.values()))

    async def _take(self, step: Step) -> None:
        action, argument = next(iter(step.items()))
        take: Callable[[Any, Step], Awaitable[None]] | None = getattr(self, f"_do_{action}", None)
        if take is None:
            raise ScriptError(f"no step is called {action!r}")
        await take(argument, step)

    def _opening(self, step: Step) -> Opening:
        opening = self._known[step["on"]] if "on" in step else self._current
        if opening is None:
            raise ScriptError("there is no opening yet")
        return opening

    # The client

    async def _do_send(self, data: list[Any], step: Step) -> None:
        for each in data:
            message = {"do": "send", "type": step.get("type", "t"), "data": each}
            await self._subject.tell(message)
        await self._subject.queued(len(data))

    async def _do_restart(self, how: str, _step: Step) -> None:
        if how == "stop":
            await self._subject.stop()
        await self._subject.kill()
        self._subject = self._make_subject()
        await self._subject.start()

    async def _do_stop(self, _argument: Any, _step: Step) -> None:
        await self._subject.stop()

    async def _do_pause(self, pause_ms: int, _step: Step) -> None:
        await asyncio.sleep(pause_ms / 1000)

    async def _do_event(self, pattern: Any, step: Step) -> None:
        event = await self._subject.next_event(step.get("within_ms", 15_000) / 1000)
        check(pattern, event, self._names, "event")

    async def _do_asked(self, bound: int, _step: Step) -> None:
        if self._subject.asked > bound:
            raise Mismatch(f"asked for a credential {self._subject.asked} times, over {bound}")

    # Openings

    async def _do_opening(self, wanted: dict[str, Any], step: Step) -> None:
        within_s = step.get("within_ms", _PATIENCE_S * 1000) / 1000
        try:
            async with asyncio.timeout(within_s):
                opening = await self._peer.openings.get()
        except TimeoutError:
            raise Mismatch(f"no opening within {within_s:.1f} s") from None
        waited_ms = (opening.at - self._since) * 1000
        # Without a floor the client may have come before this step noticed the last one's end.
        floor_ms = wanted.get("not_before_ms")
        if floor_ms is not None and waited_ms < floor_ms - _EARLY_MS:
            raise Mismatch(f"an opening after {waited_ms:.0f} ms, not {floor_ms}")
        self._check_opening(opening, wanted)
        self._current = opening
        if "as" in step:
            self._known[step["as"]] = opening

    def _check_opening(self, opening: Opening, wanted: dict[str, Any]) -> None:
        if opening.path != "/v1/device":
            raise Mismatch(f"the path is {opening.path}")
        if SUBPROTOCOL not in opening.offered:
            raise Mismatch(f"the offer {opening.offered} lacks {SUBPROTOCOL}")
        names = {token: name for name, token in self._tokens.items()}
        credential = names.get(opening.credential or "", opening.credential)
        expected = wanted.get("credential", next(iter(self._tokens)))
        if expected not in (credential, "$any"):
            raise Mismatch(f"the credential is {credential}, not {expected}")
        if opening.ticket != wanted.get("ticket"):
            raise Mismatch(f"the ticket is {opening.ticket}, not {wanted.get('ticket')}")
        if "by" in wanted and ("Authorization" in opening.request.headers) is not (
            wanted["by"] == "header"
        ):
            raise Mismatch(f"the credential is not shown by {wanted['by']}")
        if wanted.get("refusal_close") and opening.query.get("refusal") != ["close"]:
            raise Mismatch("the address has no ?refusal=close")

    async def _do_refuse(self, answer: dict[str, Any], step: Step) -> None:
        body = answer.get("body", "<html>not here</html>")
        self._opening(step).refuse(answer["status"], answer.get("headers", {}), body)
        self._since = time.monotonic()

    async def _do_accept(self, _argument: Any, step: Step) -> None:
        await self._opening(step).accept()

    async def _do_greet(self, welcome: dict[str, Any], step: Step) -> None:
        """An opening, its hello, and a welcome."""
        more = dict(welcome)
        hello = more.pop("hello", {})
        name = more.pop("as", None)
        await self._do_opening(more.pop("opening", {}), step if name is None else {"as": name})
        await self._do_accept(True, {})
        await self._do_hello(hello, {})
        await self._do_welcome(more, {})

    async def _do_hello(self, members: dict[str, Any], step: Step) -> None:
        optional = {"age_ms", "sent", "state", "receipts"} - members.keys()
        pattern = {"outbox": "$text", "oldest": "$int", **members, "$may": sorted(optional)}
        frame = await self._next_frame(self._opening(step), step)
        check({"hello": pattern}, frame, self._names)
        self._hello = frame["hello"]

    async def _do_welcome(self, members: dict[str, Any], step: Step) -> None:
        opening, hello = self._opening(step), self._hello
        more = dict(members)
        seq = more.pop("seq", hello["oldest"] - 1)
        welcome = {
            "session": "s",
            "credit": 32,
            "resume": {"outbox": hello["outbox"], "seq": seq},
            "first_retry_ms": 50,
            "keepalive_ms": 30_000,
            "max_message_bytes": 65_536,
            "max_frame_bytes": 262_144,
            "max_messages_per_frame": 1_000,
            "max_depth": 32,
            "features": ["outboxes"],
            **more,
        }
        welcome = {key: value for key, value in welcome.items() if value is not None}
        opening.max_frame_bytes = welcome.get("max_frame_bytes", 65_536)
        opening.max_messages_per_frame = welcome.get("max_messages_per_frame", 1_000)
        await opening.say({"welcome": welcome})

    async def _do_resume(self, members: dict[str, Any], step: Step) -> None:
        """The answer to a further hello."""
        hello = self._hello
        seq = members.get("seq", hello["oldest"] - 1)
        frame = {
            "resume": {"outbox": hello["outbox"], "seq": seq},
            "credit": members.get("credit", 32),
        }
        await self._opening(step).say(frame)

    async def _do_down(self, _argument: Any, _step: Step) -> None:
        await self._peer.down()
        self._since = time.monotonic()

    async def _do_up(self, _argument: Any, _step: Step) -> None:
        await self._peer.up()

    # Frames

    async def _next_frame(self, opening: Opening, step: Step) -> Any:
        within_s = step.get("within_ms", _PATIENCE_S * 1000) / 1000
        try:
            async with asyncio.timeout(within_s):
                text = await opening.frames.get()
        except TimeoutError:
            raise Mismatch(f"no frame within {within_s:.1f} s") from None
        if text is None:
            raise Mismatch("the client closed the connection")
        if isinstance(text, bytes):
            raise Mismatch("a binary frame")
        size = len(text.encode())
        if size > opening.max_frame_bytes:
            raise Mismatch(f"a frame of {size} bytes, over {opening.max_frame_bytes}")
        frame = json.loads(text)
        if isinstance(frame, list) and not 1 <= len(frame) <= opening.max_messages_per_frame:
            limit = opening.max_messages_per_frame
            raise Mismatch(f"{len(frame)} messages in a frame, not 1 to {limit}")
        return frame

    async def _do_hear(self, pattern: Any, step: Step) -> None:
        frame = await self._next_frame(self._opening(step), step)
        check(pattern, frame, self._names)
        self._hello = frame.get("hello", self._hello)

    async def _do_messages(self, data: list[Any], step: Step) -> None:
        """Receive exactly these messages, in any framing, with a seq that rises by one."""
        opening = self._opening(step)
        seq = self._hello["oldest"] if step["from"] == "oldest" else step["from"]
        for expected in data:
            if not opening.pending:
                frame = await self._next_frame(opening, step)
                opening.pending += frame if isinstance(frame, list) else [frame]
            pattern = {
                "seq": seq,
                "type": step.get("type", "t"),
                "data": expected,
                "$may": ["time"],
            }
            check(pattern, opening.pending.pop(0), self._names, "message")
            self._names["last"] = seq
            seq += 1

    async def _do_say(self, frame: Any, step: Step) -> None:
        await self._opening(step).say(fill(frame, self._names))
        self._since = time.monotonic()

    async def _do_ping(self, _argument: Any, step: Step) -> None:
        await self._opening(step).ping()

    async def _do_hear_credential(self, name: str, step: Step) -> None:
        frame = await self._next_frame(self._opening(step), step)
        check({"credential": self._tokens[name]}, frame, self._names)

    async def _do_quiet(self, quiet_ms: int, step: Step) -> None:
        """The client sends no frame and opens no connection for so long."""
        opening = self._current if "on" not in step else self._known[step["on"]]
        await asyncio.sleep(quiet_ms / 1000)
        if not self._peer.openings.empty():
            raise Mismatch("an opening that should not come")
        if opening is not None and (opening.pending or not opening.frames.empty()):
            said = opening.pending or opening.frames.get_nowait()
            raise Mismatch(f"a frame that should not come: {said!r}")

    # Ends

    async def _do_close(self, close: dict[str, Any], step: Step) -> None:
        self._since = time.monotonic()
        await self._opening(step).close(close["code"], close.get("reason"))

    async def _do_cut(self, _argument: Any, step: Step) -> None:
        self._opening(step).cut()
        self._since = time.monotonic()

    async def _do_closed(self, codes: list[int], step: Step) -> None:
        code = await self._opening(step).closed()
        if code not in codes:
            raise Mismatch(f"the client closed with {code}, not {codes}")
        self._since = time.monotonic()

    async def _do_knocks(self, rule: dict[str, Any], _step: Step) -> None:
        """Refuse every opening for a while. There must not be more than `at_most`."""
        await self._do_opening({"credential": "$any"}, {})
        await self._do_refuse(rule["answer"], {})
        until = time.monotonic() + rule["for_ms"] / 1000
        count = 1
        while (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    self._current = await self._peer.openings.get()
            except TimeoutError:
                break
            count += 1
            await self._do_refuse(rule["answer"], {})
        if count > rule["at_most"]:
            raise Mismatch(f"{count} openings in {rule['for_ms']} ms, over {rule['at_most']}")
