"""Checks what became of queued commands, with none of the gateway's own code.

It reads the stream COMMANDS and the logs of the applications. A command has one final status; what
the application was given, and what the status says, must agree.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from loadtest.checker import messages_of

FINAL: Final = frozenset({"done", "failed", "expired", "unknown"})
_FOLLOWING: Final[dict[str, set[str]]] = {
    "": {"queued", "sent", "failed", "expired"},
    "queued": {"sent", "failed", "expired"},
    "sent": {"queued", "delivered", "done", "failed", "expired", "unknown"},
    "delivered": {"done", "failed", "expired", "unknown"},
    **{final: set() for final in FINAL},
}
_EXAMPLES_MAX: Final = 10


@dataclass
class Findings:
    """What was found, by kind of damage."""

    commands: int = 0
    given: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    left: int = 0
    """Entries that are still in the queue."""
    unsettled: int = 0
    """Commands without a final status."""
    twice: int = 0
    """Given to an application more than once."""
    reordered: int = 0
    illegal: int = 0
    """Statuses that may not follow each other."""
    untrue: int = 0
    """Delivered, done or failed, and never given; or expired or cancelled, and given."""
    examples: list[str] = field(default_factory=list)
    """Some of the commands that are wrong, in words."""

    @property
    def damage(self) -> int:
        return self.unsettled + self.illegal + self.untrue

    @property
    def clean(self) -> bool:
        return not (self.left + self.twice + self.reordered + self.damage)


async def check(
    url: str, placed: Mapping[str, tuple[str, int]], given: Iterable[tuple[str, str]]
) -> Findings:
    """Compare the stream with what the applications were given.

    Args:
        url: of the nats-server.
        placed: device and sequence of each command, by its id.
        given: device and id, in the order in which each application was given its commands.
    """
    found = Findings(commands=len(placed))
    histories: dict[str, list[dict[str, str]]] = defaultdict(list)
    async for message in messages_of(url, "COMMANDS"):
        if message.subject.startswith("commands.queue."):
            found.left += 1
        else:
            fact = msgspec.json.decode(message.data)
            histories[message.subject.rpartition(".")[2]].append(fact)
    times: Counter[str] = Counter()
    last: dict[str, int] = {}
    for device, command_id in given:
        times[command_id] += 1
        found.given += 1
        place = placed[command_id][1]
        found.reordered += place < last.get(device, 0)
        last[device] = max(place, last.get(device, 0))
    found.twice = sum(count > 1 for count in times.values())
    for command_id, (device, _seq) in placed.items():
        before = found.damage
        _judge(found, histories[command_id], was_given=command_id in times)
        if found.damage > before and len(found.examples) < _EXAMPLES_MAX:
            history, count = histories[command_id], times[command_id]
            found.examples.append(f"{device} {command_id}: given {count} x, {history}")
    return found


def _judge(found: Findings, history: list[dict[str, str]], *, was_given: bool) -> None:
    statuses = [fact["status"] for fact in history]
    for before, after in zip(["", *statuses], statuses, strict=False):
        found.illegal += after not in _FOLLOWING[before]
    status = statuses[-1] if statuses else "none"
    found.statuses[status] += 1
    if status not in FINAL:
        found.unsettled += 1
        return
    never_sent = status == "expired" or history[-1].get("reason") == "cancelled"
    answered = status in ("done", "failed") and not never_sent
    if never_sent:
        found.untrue += was_given
    elif answered:
        found.untrue += not was_given
    elif "delivered" in statuses:
        # The device may have been killed between its note that the application gets the command and
        # the moment at which it did. Then it says so itself.
        found.untrue += not (was_given or history[-1].get("reason") == "unknown")
