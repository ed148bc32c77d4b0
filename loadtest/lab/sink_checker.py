"""Checks a table against the stream that a sink has read, with none of the sink's own code."""

from collections import Counter
from dataclasses import dataclass

import msgspec
import psycopg

from loadtest.checker import messages_of


@dataclass(frozen=True, slots=True)
class Findings:
    """Events of the stream, and what became of them."""

    stored: int
    rows: int
    letters: int
    lost: int
    """Neither a row nor a dead letter."""
    doubled: int
    """Rows and letters beyond the first of an event."""
    wrong: int
    """Rows of an event that was not stored, or with other values."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


async def check(nats_url: str, database_url: str) -> Findings:
    """Read stream, dead letters and table, and compare them event by event."""
    stored: dict[int, tuple[str, bytes]] = {}
    became: Counter[int] = Counter()
    letters = 0
    async for message in messages_of(nats_url):
        stored[message.metadata.sequence.stream] = (message.subject.split(".")[2], message.data)
    async for message in messages_of(nats_url, "DEADLETTERS"):
        became[int((message.headers or {})["Tidegate-Stream-Seq"])] += 1
        letters += 1
    rows = wrong = 0
    with psycopg.connect(database_url) as connection:
        for seq, device, soc in connection.execute("SELECT stream_seq, device, soc FROM battery"):
            became[seq] += 1
            rows += 1
            there = stored.get(seq)
            wrong += there is None or (device, soc) != (there[0], _soc(there[1]))
    return Findings(
        stored=len(stored),
        rows=rows,
        letters=letters,
        lost=sum(seq not in became for seq in stored),
        doubled=sum(count - 1 for count in became.values()),
        wrong=wrong,
    )


def _soc(data: bytes) -> object:
    return msgspec.json.decode(data)["soc"]
