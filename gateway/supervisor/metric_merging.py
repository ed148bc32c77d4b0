"""One Prometheus exposition of those of all workers. Pure.

Counters, histograms and summaries are summed. A gauge keeps one sample a worker, with the label
`worker`, unless its sum is what it means for the gateway (`SUMMED`).

What a process has counted goes with it when it ends, and Prometheus would take the lower sum for a
restart of everything. So the last counts of each process that has ended stay in the sums.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

SUMMED: Final = frozenset(
    {
        "tidegate_connections",
        "tidegate_devices",
        "tidegate_greedy_devices",
        "tidegate_pending_bytes",
        "tidegate_pending_messages",
        "tidegate_waiting",
    }
)
"""Gauges of which each worker has a part."""

_ADDED: Final = frozenset({"counter", "histogram", "summary"})

Labels = tuple[tuple[str, str], ...]
Counts = dict[tuple[str, Labels], float]


def parse(exposition: str) -> list[Metric]:
    """The families of an exposition.

    Raises:
        ValueError: it is none.
    """
    return list(text_string_to_metric_families(exposition))


def counts_of(families: Iterable[Metric]) -> Counts:
    """What a process has counted: the samples that are summed, and only ever rise."""
    return {
        (sample.name, _labels(sample.labels)): sample.value
        for family in families
        if family.type in _ADDED
        for sample in family.samples
    }


def add(sums: Counts, more: Mapping[tuple[str, Labels], float]) -> None:
    """Add `more` to `sums`."""
    for key, value in more.items():
        sums[key] = sums.get(key, 0.0) + value


def merged(workers: Mapping[str, list[Metric]], ended: Counts) -> list[Metric]:
    """The families of all.

    Args:
        workers: those of each process, by what its label `worker` says.
        ended: what processes had counted that have ended.
    """
    families: dict[str, Metric] = {}
    sums: dict[str, Counts] = {}
    for worker, found in workers.items():
        for family in found:
            into = families.get(family.name)
            if into is None:
                into = families[family.name] = Metric(
                    family.name, family.documentation, family.type
                )
            if family.type in _ADDED or family.name in SUMMED:
                samples = {(each.name, _labels(each.labels)): each.value for each in family.samples}
                add(sums.setdefault(family.name, {}), samples)
            else:
                _name(into, family, worker)
    _add_ended(sums, ended)
    for name, row in sums.items():
        for (sample_name, labels), value in row.items():
            families[name].add_sample(sample_name, dict(labels), value)
    return list(families.values())


def _name(into: Metric, family: Metric, worker: str) -> None:
    """Add the samples of a gauge under the name of their worker."""
    for sample in family.samples:
        into.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)


def _add_ended(sums: dict[str, Counts], ended: Counts) -> None:
    family_of = {sample: name for name, row in sums.items() for sample, _labels in row}
    for (sample, labels), value in ended.items():
        if sample in family_of:
            add(sums[family_of[sample]], {(sample, labels): value})


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
