import re

import pytest

from gateway.telemetry.errors import BadHeadersFile
from gateway.telemetry.headers_file import read_headers


def test_headers_are_read_one_a_line(tmp_path):
    file = tmp_path / "headers"
    file.write_text("# of the collector\n\nAuthorization: Bearer abc def\n  X-Scope:7  \n")
    assert read_headers(file) == {"authorization": "Bearer abc def", "x-scope": "7"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Authorization Bearer s3cret", "line 1 is no header"),
        (b"X-A: s3cret\nX-B:", "line 2 is no header"),
        (b"X-A: s3cret\xc3\xa9", "line 1 is no header"),
        (b"X A: s3cret", "line 1 is no header"),
        (b"X-A: s3cret\nx-a: 2", "line 2: x-a stands there twice"),
        (b"Content-Type: s3cret", "line 1: content-type is set by Tidegate"),
        (b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_anything_else_is_refused_without_a_value_in_the_message(tmp_path, content, said):
    file = tmp_path / "headers"
    file.write_bytes(content)
    with pytest.raises(BadHeadersFile, match=re.escape(said)) as caught:
        read_headers(file)
    assert str(file) in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadHeadersFile, match="No such file"):
        read_headers(tmp_path / "headers")
