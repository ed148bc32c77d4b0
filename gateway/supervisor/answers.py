"""One answer of those of all workers. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

Document = dict[str, Any]

_REACHES: Final = ("fleet", "pending", "node", "memory")
"""How far an order went, the best first."""
_COMMON: Final = ("version", "admission", "stream", "credentials")
"""Parts of the status page that are the same on every worker, or of their fleet."""
_ADDED: Final = ("devices", "connections", "connections_max")
_EVENTS_SHOWN_MAX: Final = 10
_SERIES_ADDED: Final = frozenset(
    {
        "devices",
        "admitted",
        "refused",
        "messages",
        "pending",
        "waiting",
        "in_flight",
        "credit",
        "dead",
    }
)
"""Of the charts, those of which each worker has a part. Of the others the highest is shown."""


def reached(name: str, answers: Sequence[Document]) -> Document:
    """The answers to an order that every worker was given.

    Args:
        name: of the member that says how far the order went.
        answers: one at least.
    """
    best = min(answers, key=lambda answer: _REACHES.index(answer[name]))
    known = [answer["was_revoked"] for answer in answers if "was_revoked" in answer]
    return {**best, **({"was_revoked": any(known)} if known else {})}


def disconnected(answers: Sequence[Document]) -> Document:
    """Whether any worker had the device."""
    return {"disconnected": any(answer["disconnected"] for answer in answers)}


def looked_up(answers: Sequence[Document]) -> Document:
    """A device looked up by every worker, each of which has asked its fleet.

    While Redis is away each knows of itself alone, so what they say is put together.

    Args:
        answers: one at least.
    """
    held = [answer for answer in answers if answer["session"] is not None]
    widest = max(answers, key=lambda answer: answer["nodes_answered"])
    found = max(held, key=lambda answer: answer["session"]["fence"], default=widest)
    revoked = [answer["revoked_until"] for answer in answers if answer["revoked_until"]]
    counts = {
        "nodes": max(widest["nodes"], len(answers)),
        "nodes_answered": max(widest["nodes_answered"], len(answers)),
    }
    return {
        **found,
        **counts,
        "revoked_until": max(revoked, default=None),
        "refusals": _events("refusals", answers),
        "closes": _events("closes", answers),
    }


def _events(name: str, answers: Sequence[Document]) -> list[Document]:
    """The newest events, each once: every worker may have been told of every one."""
    found: list[Document] = []
    for answer in answers:
        found += [each for each in answer[name] if each not in found]
    return sorted(found, key=lambda each: str(each["at"]), reverse=True)[:_EVENTS_SHOWN_MAX]


def status(own: Document, workers: Mapping[int, Document | None]) -> Document:
    """The status page of the gateway.

    Args:
        own: what the supervisor says of itself; `workers` has a part for each worker there.
        workers: the page of each; None if it gives no answer.
    """
    pages = [page for page in workers.values() if page is not None]
    parts = [
        {"worker": number, **own["workers"][number], **({} if page is None else page)}
        for number, page in workers.items()
    ]
    common = pages[0] if pages else {}
    return {
        **{name: common[name] for name in _COMMON if name in common},
        **{name: value for name, value in own.items() if name != "workers"},
        **{name: sum(page[name] for page in pages) for name in _ADDED},
        "first_retry_ms": max((page["first_retry_ms"] for page in pages), default=0),
        "pending": {
            name: sum(page["pending"][name] for page in pages) for name in ("messages", "bytes")
        },
        "workers": parts,
    }


def snapshot(own: Document, workers: Mapping[int, Document]) -> Document:
    """One second of the gateway for the live page: the sum, and `parts` for each worker.

    Args:
        own: of the supervisor, as for `status`.
        workers: the snapshot of each worker that has answered.
    """
    taken = list(workers.values())
    series = [each["series"] for each in taken]
    pages: dict[int, Document | None] = dict.fromkeys(own["workers"])
    pages.update({number: each["status"] for number, each in workers.items()})
    at = max((each["at"] for each in taken), default=own["at"])
    return {
        "at": at,
        "series": {name: _charted(name, series) for name in (series[0] if series else ())}
        | {"at": at},
        "status": status({name: value for name, value in own.items() if name != "at"}, pages),
        "refused": _counts("refused", taken),
        "dead": _counts("dead", taken),
        "lanes": [
            (*lane, index, number)
            for number, each in workers.items()
            for index, lane in enumerate(each["lanes"], 1)
        ],
        "parts": {number: each["series"] for number, each in workers.items()},
    }


def _charted(name: str, series: Sequence[Document]) -> float:
    values: list[float] = [each[name] for each in series]
    return sum(values) if name in _SERIES_ADDED else max(values)


def _counts(name: str, snapshots: Sequence[Document]) -> list[tuple[str, float]]:
    sums: Counter[str] = Counter()
    for each in snapshots:
        sums.update(dict(each[name]))
    return list(sums.items())
