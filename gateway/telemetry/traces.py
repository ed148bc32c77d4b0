"""Sampling of messages for tracing: a W3C `traceparent` on a random share of the messages.

The gateway starts the trace; the consumers of EVENTS continue it. There is no exporter here: a span
of the gateway would repeat what its metrics and the times of the message say.
"""

import random
from collections.abc import Callable


def make_sampler(ratio: float, rng: random.Random) -> Callable[[], bytes]:
    """A sampler giving the traceparent header line of a sampled message, else nothing.

    Args:
        ratio: share of messages sampled, 0 to 1.
        rng: source of the choice and of the ids.

    See https://www.w3.org/TR/trace-context/#traceparent-header for the format.
    """
    if ratio <= 0:
        return bytes

    def sample() -> bytes:
        if rng.random() >= ratio:
            return b""
        # All-zero ids are invalid.
        trace_id = rng.getrandbits(128) or 1
        span_id = rng.getrandbits(64) or 1
        return b"traceparent:00-%032x-%016x-01\r\n" % (trace_id, span_id)

    return sample
