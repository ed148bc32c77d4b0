"""Checks what rules delivered against the stream that they read, with none of their own code."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.checker import messages_of
from loadtest.servers.receiver import Received


@dataclass(frozen=True, slots=True)
class Findings:
    """Events of the stream, and what became of them."""

    stored: int
    derived: int
    letters: int
    lost: int
    """Neither derived nor a dead letter of the rule."""
    doubled: int
    """Derived messages beyond the first of an event."""
    disordered: int
    """Derived messages that stand behind a later one of the same device."""
    wrong: int
    """Derived messages of an event that was not stored, or with other data."""
    http_lost: int
    """Events that no receiver accepted and that are no dead letter."""
    http_repeats: int
    http_ids: int
    """Events of which two requests had different ids."""

    @property
    def clean(self) -> bool:
        """Whether everything arrived as promised."""
        return not (
            self.lost
            or self.doubled
            or self.disordered
            or self.wrong
            or self.http_lost
            or self.http_ids
        )


async def check(
    nats_url: str,
    target: str,
    *,
    nats_rule: str,
    http_rule: str,
    posted: Callable[[bytes], bool],
    received: Sequence[Received],
) -> Findings:
    """Read the stream, the target's stream and the dead letters, and compare event by event.

    Args:
        nats_url: of the server that holds all three.
        target: the stream that the first rule writes to.
        nats_rule: the first rule, which takes every event.
        http_rule: the second one.
        posted: whether the second rule takes an event with this data.
        received: what its receiver heard.
    """
    stored: dict[str, bytes] = {}
    async for message in messages_of(nats_url):
        stored[_event_of(message.headers)] = message.data
    letters: dict[str, set[str]] = {nats_rule: set(), http_rule: set()}
    async for message in messages_of(nats_url, "DEADLETTERS"):
        letters[message.subject.rpartition(".")[2]].add(_event_of(message.headers))
    derived: Counter[str] = Counter()
    last: dict[str, int] = {}
    wrong = disordered = 0
    async for message in messages_of(nats_url, target):
        event = _event_of(message.headers)
        derived[event] += 1
        wrong += stored.get(event) != message.data
        device, seq = message.subject.split(".")[1], int(event.rpartition(":")[2])
        disordered += seq < last.get(device, 0)
        last[device] = max(seq, last.get(device, 0))
    keys: dict[str, set[str]] = {}
    for request in received:
        keys.setdefault(request.event, set()).add(request.key)
    accepted = {request.event for request in received if request.accepted}
    return Findings(
        stored=len(stored),
        derived=sum(derived.values()),
        letters=sum(map(len, letters.values())),
        lost=sum(each not in derived and each not in letters[nats_rule] for each in stored),
        doubled=sum(count - 1 for count in derived.values()),
        disordered=disordered,
        wrong=wrong,
        http_lost=sum(
            each not in accepted and each not in letters[http_rule]
            for each, data in stored.items()
            if posted(data)
        ),
        http_repeats=len(received) - len(keys),
        http_ids=sum(len(each) > 1 for each in keys.values()),
    )


def _event_of(headers: Mapping[str, str] | None) -> str:
    found = headers or {}
    return f"{found['ce-source']} {found['ce-id']}"
