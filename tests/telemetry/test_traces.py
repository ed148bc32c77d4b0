import random
import re

from gateway.telemetry.traces import make_sampler


def test_the_ratio_is_kept_and_the_header_is_that_of_w3c():
    sample = make_sampler(0.25, random.Random(1))
    lines = [sample() for _ in range(4_000)]
    sampled = [line for line in lines if line]
    assert 850 < len(sampled) < 1_150
    assert len(set(sampled)) == len(sampled)
    for line in sampled:
        assert re.fullmatch(rb"traceparent:00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n", line)


def test_off_is_off():
    assert make_sampler(0.0, random.Random(1))() == b""
