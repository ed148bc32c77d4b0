"""`make example-trace`: one message's way, from the device's span to the sink's. Ends by itself."""

import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from showing import TIDEGATE, running, until
from tree import tree

from loadtest.servers.otlp import TraceCollector, collecting
from loadtest.servers.process import free_port
from tidegate import Device
from tidegate.otel import DeviceTraces

HERE = Path(__file__).parent
SENT = [80, 17]
SPANS = {
    "tidegate send": 2,
    "tidegate message": 2,
    "tidegate sink/lines": 2,
    "tidegate rule/low": 1,
}


def main() -> None:
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-example-") as name,
        collecting() as collector,
    ):
        show(Path(name), collector)
    print(f"one trace a message, from four processes: {time.monotonic() - began:.0f} s", flush=True)


def show(directory: Path, collector: TraceCollector) -> None:
    port, ops, sink_ops, route_ops = (free_port() for _ in range(4))
    data_dir, events, config = (directory / each for each in ("data", "events.toml", "t.toml"))
    shutil.copy(HERE / "events.toml", events)  # the folder of the lines is relative to it
    config.write_text(f'[trace]\nsample_ratio = 0.01\nendpoint = "{collector.endpoint}"\n')
    print(f"$ cat {config}\n{config.read_text()}", flush=True)
    common = ("--config", config, "--data-dir", data_dir)
    with (
        running(
            directory, "gateway", f"http://127.0.0.1:{ops}/readyz",
            "serve", "--port", port, "--ops-port", ops, *common,
        ),
        running(
            directory, "sink", f"http://127.0.0.1:{sink_ops}/readyz",
            "sink", "--events", events, "--ops-port", sink_ops, *common,
        ),
        running(
            directory, "route", f"http://127.0.0.1:{route_ops}/readyz",
            "route", "--events", events, "--ops-port", route_ops, *common,
        ),
    ):  # fmt: skip
        url = f"ws://127.0.0.1:{port}/v1/device"
        asyncio.run(drive(url, token(data_dir), directory / "outbox", collector.endpoint))
        until(lambda: arrived(collector), "spans")
    print(*tree(collector.spans), sep="\n", flush=True)


async def drive(url: str, credential: str, outbox: Path, endpoint: str) -> None:
    """A vehicle with a tracer of its own, which traces each message."""
    provider = TracerProvider(resource=Resource({"service.name": "veh-1"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    traces = DeviceTraces(provider.get_tracer("example"))
    async with Device(url, credential, outbox=outbox, traces=traces) as device:
        await device.connected.wait()
        for soc in SENT:
            await device.send("battery.low", {"soc": soc})
        await device.flush()
    await asyncio.to_thread(provider.shutdown)


def token(data_dir: Path) -> str:
    command = [*TIDEGATE, "token", "veh-1", "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def arrived(collector: TraceCollector) -> bool:
    """Whether all spans are here."""
    return all(len(collector.named(name)) >= count for name, count in SPANS.items())


if __name__ == "__main__":
    main()
