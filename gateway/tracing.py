"""What every process needs to export its spans: the queue, and the way to the collector."""

import random
from importlib.metadata import version as package_version
from typing import Final
from urllib.parse import urlsplit

from gateway.settings import Trace
from gateway.telemetry.errors import ExtraMissing
from gateway.telemetry.export import SpanExport
from gateway.telemetry.headers_file import read_headers

_EXTRA_PACKAGES: Final = ("opentelemetry", "google", "urllib3")
_PATH: Final = "/v1/traces"


def open_export(
    trace: Trace, *, process: str, instance: str, rng: random.Random
) -> SpanExport | None:
    """The export of a process's spans; None without an endpoint.

    Args:
        trace: its settings.
        process: what runs, the second half of its service name.
        instance: names this process among its like.
        rng: source of jitter.

    Raises:
        ExtraMissing: the packages of the extra `otel` are not installed.
        BadHeadersFile: the headers cannot be used.
    """
    if trace.endpoint is None:
        return None
    headers = read_headers(trace.headers_file) if trace.headers_file is not None else {}
    try:
        from gateway.telemetry.otlp import Collector, Request  # noqa: PLC0415  # of the extra
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _EXTRA_PACKAGES:
            raise
        raise ExtraMissing(
            f"trace.endpoint needs the extra otel, which is not installed ({exc.name} is missing):"
            " pip install 'tidegate-gateway[otel]'"
        ) from None
    version = package_version("tidegate-gateway")
    resource = (
        ("service.name", f"{trace.service_name}-{process}"),
        ("service.version", version),
        ("service.instance.id", instance),
    )
    return SpanExport(
        Collector(_whole(trace.endpoint), headers, trace.timeout_ms / 1000),
        lambda: Request(resource, "tidegate", version),
        queue_max=trace.queue_spans,
        rng=rng,
    )


def _whole(endpoint: str) -> str:
    """The address of the collector, with the path of OTLP if it has none."""
    return endpoint.rstrip("/") + _PATH if urlsplit(endpoint).path in ("", "/") else endpoint
