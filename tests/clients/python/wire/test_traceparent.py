import pytest

from tidegate.wire.traceparent import Traceparent, read_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
KNOWN = Traceparent(bytes.fromhex(TRACE), bytes.fromhex(SPAN))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", KNOWN),
        (f"00-{TRACE}-{SPAN}-03", KNOWN),  # other flags are not ours
        (f"00-{TRACE}-{SPAN}-00", KNOWN._replace(sampled=False)),
        (f"cc-{TRACE}-{SPAN}-01", KNOWN),  # a later version, read as the first one
        (f"cc-{TRACE}-{SPAN}-01-more", KNOWN),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\r\nce-type:x", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("", None),
    ],
)
def test_only_a_traceparent_of_the_standard_is_read(text, expected):
    assert read_traceparent(text) == expected


@pytest.mark.parametrize("sampled", [True, False])
def test_what_is_written_is_read_back(sampled):
    written = str(KNOWN._replace(sampled=sampled))
    assert written == f"00-{TRACE}-{SPAN}-0{int(sampled)}"
    assert read_traceparent(written) == KNOWN._replace(sampled=sampled)
