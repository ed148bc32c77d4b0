"""Finds and hides what looks like a secret, in logs and in what a command prints."""

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "[hidden]"
SECRET_NAMES: Final = re.compile(
    r"password|secret|token|credential|authorization|tidegate-ticket", re.IGNORECASE
)
_SECRET_VALUES: Final = re.compile(
    r"(?P<url>\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@"  # user, password or token in a URL
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # a JWT, or its first two parts
    r"|(?P<bearer>\b[Bb]earer[ .])[^\s'\",;]{8,}"  # a credential in a header or a subprotocol
    r"|(?P<ticket>\b[Tt]idegate-[Tt]icket['\"]?[:,]\s*['\"]?)[^\s'\",;]+"
)
_KNOWN_CHARS_MIN: Final = 6
"""A shorter secret is found everywhere: hiding it would garble the log and hide nothing."""


def hide(text: str, known: Iterable[str] = ()) -> str:
    """`text` without what looks like a secret, and without the secrets that are known."""
    for secret in known:
        if len(secret) >= _KNOWN_CHARS_MIN:
            text = text.replace(secret, HIDDEN)
    return _SECRET_VALUES.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    return (found["url"] or found["bearer"] or found["ticket"] or "") + HIDDEN
