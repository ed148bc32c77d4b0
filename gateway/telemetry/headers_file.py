"""Headers of requests to a collector, which may hold its secret: one `name: value` a line."""

import re
from pathlib import Path
from typing import Final

from gateway.telemetry.errors import BadHeadersFile

_LINE: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e][\x20-\x7e]*)")
"""A field name and value of RFC 9110, section 5; the value in ASCII."""
_OURS: Final = ("content-type", "content-length", "transfer-encoding", "host")


def read_headers(file: Path) -> dict[str, str]:
    """The headers of a file.

    Raises:
        BadHeadersFile: it cannot be read, or holds something else. The message names the file.
    """
    try:
        return parse_headers(file.read_text())
    except OSError as exc:
        raise BadHeadersFile(f"{file}: {exc.strerror or exc}") from None
    except UnicodeDecodeError:
        raise BadHeadersFile(f"{file}: is no text in UTF-8") from None
    except BadHeadersFile as exc:
        raise BadHeadersFile(f"{file}: {exc}") from None


def parse_headers(text: str) -> dict[str, str]:
    """The headers of a text. Empty lines, and lines that begin with `# `, are skipped.

    Raises:
        BadHeadersFile: it holds something else.
    """
    headers: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("# "):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise BadHeadersFile(f"line {number} is no header `name: value` in ASCII")
        name = found[1].lower()
        if name in _OURS or name in headers:
            said = "is set by Tidegate" if name in _OURS else "stands there twice"
            raise BadHeadersFile(f"line {number}: {name} {said}")
        headers[name] = found[2]
    return headers
