"""The files of the live page, as they are served.

The document holds its style and its script, so that a browser shows the first snapshot after two
requests. The content security policy allows exactly these two by their hashes (CSP Level 3,
"script-src"). The library of the charts is a file of its own: the page loads it when the figures
are on the screen.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Final

_POLICY: Final = (
    "default-src 'none'; script-src 'self' {script}; style-src {style}; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STYLE: Final = '<link rel="stylesheet" href="app.css">'
_SCRIPT: Final = '<script src="app.js"></script>'
CHARTS_PATH: Final = "/live/uplot.js"


class LiveFiles:
    """Read once, when a process starts."""

    def __init__(self) -> None:
        folder = files("gateway.ops") / "live"

        def text(name: str) -> str:
            return (folder / name).read_text("utf-8")

        style, script = text("uplot.css") + text("app.css"), text("app.js")
        page = text("index.html").replace(_STYLE, f"<style>{style}</style>")
        page = page.replace(_SCRIPT, f"<script>{script}</script>")
        self.policy = _POLICY.format(script=_source(script), style=_source(style))
        """The content security policy of the document."""
        self.bodies: dict[str, tuple[bytes, str]] = {
            "/": (page.encode(), "text/html"),
            CHARTS_PATH: (text("uplot.js").encode(), "text/javascript"),
        }
        """Body and content type, by path."""


def _source(text: str) -> str:
    """What the policy names to allow one inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
