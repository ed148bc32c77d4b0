"""Checks what redrives have sent, against the letters, with none of the gateway's own code."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import msgspec
import nats.js.errors

from loadtest.checker import messages_of


@dataclass
class Findings:
    """Letters, and what became of them."""

    letters: int = 0
    sent: int = 0
    """Events in EVENTS and messages in the rule's target."""
    facts: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    wrong: int = 0
    """Messages that hold another payload than their letter, or another `ce-id`."""
    _last: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)

    @property
    def hurt(self) -> Counter[str]:
        """What is not as it must be, by kind; all kinds are there."""
        return Counter(
            lost=self.lost, doubled=self.doubled, reordered=self.reordered, wrong=self.wrong
        )

    @property
    def clean(self) -> bool:
        return not self.hurt.total()

    def in_order(self, stream: str, device: str, number: int) -> None:
        """A message of a device has this number: those of one device must rise."""
        if number < self._last.get((stream, device), -1):
            self.reordered += 1
        self._last[stream, device] = max(number, self._last.get((stream, device), -1))


async def check(url: str) -> Findings:
    """Read DEADLETTERS, EVENTS, ALERTS and REDRIVES, and compare them letter by letter.

    Each letter of `loadtest.servers.letters` holds its number; what was sent must hold it once.
    """
    found = Findings()
    wanted: dict[str, set[int]] = defaultdict(set)
    async for message in messages_of(url, "DEADLETTERS"):
        of_rule = message.subject.count(".") > 2  # the gateway's have three tokens
        body = msgspec.json.decode(message.data)
        wanted["ALERTS" if of_rule else "EVENTS"].add((body if of_rule else body["data"])["number"])
        found.letters += 1
    for stream, numbers in wanted.items():
        seen: Counter[int] = Counter()
        async for message in messages_of(url, stream):
            headers = message.headers or {}
            number = msgspec.json.decode(message.data)["number"]
            seen[number] += 1
            found.sent += 1
            found.wrong += headers.get("ce-id") != f"o1:{number + 1}" or number not in numbers
            device = next(token for token in message.subject.split(".") if token.startswith("veh-"))
            found.in_order(stream, device, number)
        found.lost += len(numbers - set(seen))
        found.doubled += sum(count - 1 for count in seen.values())
    facts: Counter[str] = Counter()
    try:
        async for message in messages_of(url, "REDRIVES"):
            if message.subject.startswith("redriven."):
                facts[message.subject] += 1
    except nats.js.errors.NotFoundError:
        pass  # nothing was sent
    found.facts = len(facts)
    found.doubled += sum(count - 1 for count in facts.values())
    return found
