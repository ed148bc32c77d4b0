"""Structured logs on standard error: JSON lines for machines, colours for people."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

Format = Literal["auto", "json", "console"]

_SECRET_NAMES: Final = re.compile(r"password|secret|token|credential|authorization", re.IGNORECASE)
_SECRET_VALUES: Final = re.compile(
    r"(?P<url>\b[a-z]+://)[^/\s:@]*:[^/\s@]+@"  # user and password in a URL
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JWT
)


def hide_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A last net under the rule that secrets are not logged in the first place."""
    for name, value in event.items():
        if name != "event" and _SECRET_NAMES.search(name):
            event[name] = "[hidden]"
        elif isinstance(value, str):
            event[name] = _SECRET_VALUES.sub(lambda found: (found["url"] or "") + "[hidden]", value)
    return event


def configure_logs(level: str, form: Format) -> None:
    """Set up structlog and the standard library's logging alike.

    Args:
        level: least level shown: debug, info, warning, error.
        form: json, console, or auto (console on a terminal).
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        # JSON escapes control characters, so no device can forge a line of log.
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
