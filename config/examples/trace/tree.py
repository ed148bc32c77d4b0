"""Spans as a tree: each below its parent, with what it is linked to."""

from collections.abc import Iterator, Sequence

from loadtest.servers.otlp import ReceivedSpan


def tree(spans: Sequence[ReceivedSpan]) -> Iterator[str]:
    """The lines of the traces that a device has started, the first trace first."""
    known = {span.span_id: span for span in spans}
    roots = [span for span in spans if not span.parent_id and span.name == "tidegate send"]
    for root in sorted(roots, key=lambda span: span.start_ns):
        yield f"trace {root.trace_id}"
        yield from _branch(root, spans, known, "  ")


def _branch(
    span: ReceivedSpan, spans: Sequence[ReceivedSpan], known: dict[str, ReceivedSpan], indent: str
) -> Iterator[str]:
    took_ms = (span.end_ns - span.start_ns) / 1e6
    said = " ".join(
        f"{name.removeprefix('tidegate.')}={value}"
        for name, value in span.attributes.items()
        if name in ("tidegate.device", "tidegate.seq", "tidegate.stream_seq")
    )
    what = f"{span.service:<17} {span.name:<19} {took_ms:8.2f} ms"
    yield f"{indent}{what}  {said} {span.error}".rstrip()
    for _trace_id, span_id in span.links:
        batch = known[span_id]
        took_ms = (batch.end_ns - batch.start_ns) / 1e6
        messages = batch.attributes["messaging.batch.message_count"]
        yield f"{indent}  linked to {batch.name}: {messages} in {took_ms:.2f} ms"
    children = [each for each in spans if each.parent_id == span.span_id]
    for child in sorted(children, key=lambda each: (each.start_ns, each.name)):
        yield from _branch(child, spans, known, indent + "  ")
