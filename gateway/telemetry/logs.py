"""Structured logs on standard error: JSON lines for machines, colours for people."""

import logging
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Literal

import structlog

from gateway.telemetry.hiding import HIDDEN, SECRET_NAMES, hide

Format = Literal["auto", "json", "console"]


class SecretNet:
    """Hides secrets in log lines. Code must not log secrets; this catches mistakes."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        """
        Args:
            known: secrets of this process, hidden wherever they appear.
        """
        self._known = tuple(known)

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in event.items():
            if name != "event" and SECRET_NAMES.search(name) and not _is_plain(value):
                event[name] = HIDDEN
            else:
                event[name] = self._clean(value)
        return event

    def _clean(self, value: Any) -> Any:
        """`value` without secrets, at any depth. An object is judged by its repr."""
        if _is_plain(value):
            return value
        if isinstance(value, str):
            return hide(value, self._known)
        if isinstance(value, Mapping):
            return {
                key: HIDDEN if SECRET_NAMES.search(str(key)) else self._clean(each)
                for key, each in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(each) for each in value]
        shown = repr(value)
        cleaned = hide(shown, self._known)
        return value if cleaned == shown else cleaned


def _is_plain(value: Any) -> bool:
    """Numbers, booleans and None: a count of credentials is not a secret."""
    return value is None or isinstance(value, (bool, int, float))


def configure_logs(level: str, form: Format, *, secrets: Iterable[str] = ()) -> None:
    """Set up structlog and the logging of the standard library in the same way.

    Args:
        level: least level shown: debug, info, warning, error.
        form: json, console, or auto (console on a terminal).
        secrets: of this process, hidden wherever they would appear.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        SecretNet(secrets),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        # The standard library escapes all but ASCII, so no device can forge a line of log, nor
        # send a terminal a control character (orjson leaves U+0080 to U+009F as they are).
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _set_up_library_logs(number, renderer, shared)


def set_level(level: str) -> None:
    """Show less, or more, from now on. Lines of libraries stay at warnings and above."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(max(number, logging.WARNING))


def _set_up_library_logs(
    number: int, renderer: structlog.typing.Processor, shared: list[structlog.typing.Processor]
) -> None:
    """The logging of the standard library, in the same form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
