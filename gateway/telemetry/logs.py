"""Structured logs on standard error: JSON lines for machines, colours for people."""

import atexit
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, Literal

import structlog

from gateway.telemetry.hiding import HIDDEN, SECRET_NAMES, hide
from gateway.telemetry.summing import Kind, Summing

_WHOLE: Final = frozenset({"operator_order"})
"""Events of which each line is written: who has changed what must be on record."""
_SUMMARY: Final = "_summary"
"""Marks a line that sums up others, on its way through the processors."""
_CAUSES: Final = ("sink", "rule", "consumer", "reason", "error")
"""Members of a line by which lines of one event are told apart: names that the operator has given,
and why it happened; never a device."""
_CAUSE_CHARS_MAX: Final = 200

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


class SummedLines(logging.Filter):
    """Sums up lines that repeat: a processor of structlog, and a filter of the standard library."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: monotonic seconds.
        """
        super().__init__()
        self._summing = Summing(clock)

    def __call__(
        self, _logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if event.pop(_SUMMARY, False):
            return event
        self.write_due()
        name = str(event.get("event"))
        if name not in _WHOLE and not self._summing.take(Kind(name, method, _cause_of(event))):
            raise structlog.DropEvent
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        self.write_due()
        cause = str(record.msg)[:_CAUSE_CHARS_MAX]
        return self._summing.take(Kind(record.name, record.levelname.lower(), cause))

    def write_due(self, *, all_of_them: bool = False) -> None:
        """Write a line for each kind of which lines were left out, once its window has passed."""
        for kind, lines, seconds in self._summing.due(all_of_them=all_of_them):
            structlog.get_logger(__name__).log(
                logging.getLevelNamesMapping().get(kind.level.upper(), logging.INFO),
                "repeated",
                of=kind.event,
                lines=lines,
                seconds=round(seconds, 1),
                cause=kind.cause or None,
                **{_SUMMARY: True},
            )


def _cause_of(event: Mapping[str, Any]) -> str:
    """Why it happened, as far as the line says it. Lines that differ in it are told apart."""
    failure = event.get("exc_info")
    if failure:
        raised = failure if isinstance(failure, BaseException) else sys.exc_info()[1]
        return f"{type(raised).__name__}: {raised}"[:_CAUSE_CHARS_MAX]
    said = [str(event[name]) for name in _CAUSES if event.get(name)]
    return " ".join(said)[:_CAUSE_CHARS_MAX]


def write_summaries(*, all_of_them: bool = False) -> None:
    """Write what is due of lines that were left out; everything, when the process ends."""
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, SummedLines):
            processor.write_due(all_of_them=all_of_them)


def _write_last_summaries() -> None:
    write_summaries(all_of_them=True)


def _is_plain(value: Any) -> bool:
    """Numbers, booleans and None: a count of credentials is not a secret."""
    return value is None or isinstance(value, (bool, int, float))


def configure_logs(
    level: str,
    form: Format,
    *,
    secrets: Iterable[str] = (),
    clock: Callable[[], float] = time.monotonic,
    worker: int | None = None,
) -> None:
    """Set up structlog and the logging of the standard library in the same way.

    Lines that repeat are summed up. What is left out is said when the next line comes, when
    `write_summaries` is called (the processes do so each second), and when the process ends.

    Args:
        level: least level shown: debug, info, warning, error.
        form: json, console, or auto (console on a terminal).
        secrets: of this process, hidden wherever they would appear.
        clock: monotonic seconds.
        worker: named in each line; None for a process that is no worker.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        *([] if worker is None else [_naming(worker)]),
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
    summed = SummedLines(clock)
    structlog.configure(
        processors=[summed, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # A line and its end in one write: the workers of a gateway share this file.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _set_up_library_logs(number, renderer, shared, summed)
    atexit.unregister(_write_last_summaries)
    atexit.register(_write_last_summaries)


def _naming(worker: int) -> structlog.typing.Processor:
    """Adds which worker says it."""

    def name(
        _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["worker"] = worker
        return event

    return name


def set_level(level: str) -> None:
    """Show less, or more, from now on. Lines of libraries stay at warnings and above."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(max(number, logging.WARNING))


def _set_up_library_logs(
    number: int,
    renderer: structlog.typing.Processor,
    shared: list[structlog.typing.Processor],
    summed: SummedLines,
) -> None:
    """The logging of the standard library, in the same form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    handler.addFilter(summed)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
