import pytest

from gateway.stream.header_block import header_of

BLOCK = b"NATS/1.0\r\nName: first\r\nOther:x\r\nName: last \r\nEmpty:\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"Name", b"last"), (b"Other", b"x"), (b"Empty", b""), (b"ame", b""), (b"NATS/1.0", b"")],
)
def test_the_last_header_of_a_name_is_found(name, value):
    assert header_of(BLOCK, name) == value
