"""`make example-lab`: results of a laboratory, three consumers, and a fourth added later."""

import asyncio
import json
import subprocess
import tempfile
import time
from pathlib import Path

import nats
from nats.js.api import StreamConfig
from receiver import Receiver
from showing import TIDEGATE, running, until

from loadtest.servers.backends import NatsServer
from loadtest.servers.postgres import PostgresServer, binary
from loadtest.servers.process import free_port

HERE = Path(__file__).parent
FIRST = [
    {
        "patient": "p-1",
        "analyte": "potassium",
        "value": 6.9,
        "flag": "critical",
        "ordered_by": "d-4",
    },
    {"patient": "p-2", "analyte": "PCR influenza A", "value": "positive", "ordered_by": "d-7"},
    {"patient": "p-3", "analyte": "potassium", "value": 4.1},
]
LATER = [{"patient": "p-4", "analyte": "PCR measles", "value": "positive", "flag": "critical"}]
ALERTS, DOCTOR = 2, 2
REGISTRY = "REGISTRY"


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-example-") as name:
        directory = Path(name)
        with (
            NatsServer(directory / "nats", jetstream=_synced(directory)) as server,
            PostgresServer(directory / "postgres") as postgres,
            Receiver() as receiver,
        ):
            show(directory, server.url, postgres.url(), receiver)
    print(f"four consumers, none knew the others: {time.monotonic() - began:.0f} s", flush=True)


def _synced(directory: Path) -> dict[str, str]:
    return {"store_dir": str(directory / "nats" / "js"), "sync_interval": "always"}


def show(directory: Path, nats_url: str, database: str, receiver: Receiver) -> None:
    port, ops, sink_ops, route_ops, registry_ops = (free_port() for _ in range(5))
    psql(database, "--file", HERE / "tables.sql")
    (directory / "database").write_text(database)
    events, data_dir = HERE / "events.toml", directory / "data"
    with (
        running(
            directory, "gateway", f"http://127.0.0.1:{ops}/readyz",
            "serve", "--port", port, "--ops-port", ops, "--data-dir", data_dir,
            "--nats-url", nats_url,
        ),
        running(
            directory, "sink", f"http://127.0.0.1:{sink_ops}/readyz",
            "sink", "--events", events, "--nats-url", nats_url,
            "--database-url-file", directory / "database", "--ops-port", sink_ops,
        ),
        running(
            directory, "route", f"http://127.0.0.1:{route_ops}/readyz",
            "route", "--events", events, "--nats-url", nats_url, "--ops-port", route_ops,
        ),
    ):  # fmt: skip
        gateway = f"ws://127.0.0.1:{port}/v1/device"
        send("analyser-1", FIRST, gateway, data_dir)
        until(lambda: len(receiver.received["/alerts"]) == 1, "an alert")
        until(lambda: len(receiver.received["/results"]) == DOCTOR, "results")
        print("a fourth consumer comes, and wants the past too:")
        asyncio.run(make_registry(nats_url))
        with running(
            directory, "registry", f"http://127.0.0.1:{registry_ops}/readyz",
            "route", "--events", HERE / "registry.toml", "--nats-url", nats_url,
            "--ops-port", registry_ops,
        ):  # fmt: skip
            until(lambda: len(registered(nats_url)) == 1, "the past in the registry")
            send("analyser-1", LATER, gateway, data_dir)
            until(lambda: len(registered(nats_url)) == 2, "the registry")
            until(lambda: len(receiver.received["/alerts"]) == ALERTS, "alerts")
            until(lambda: count(database) == len(FIRST + LATER), "rows")
        print("$ nats stream view REGISTRY")
        for line in registered(nats_url):
            print(f"  {line}")
        chart = psql(database, "-c", "SELECT * FROM chart ORDER BY stream_seq")
        print(f"$ psql\n{chart}", end="")


async def make_registry(url: str) -> None:
    """The stream of the registry, which keeps what the rule derives exactly once."""
    client = await nats.connect(url)
    await client.jetstream().add_stream(
        StreamConfig(REGISTRY, subjects=["rules.registry.>"], allow_atomic=True)
    )
    await client.close()


def registered(url: str) -> list[str]:
    """What the registry holds."""
    return asyncio.run(_registered(url))


async def _registered(url: str) -> list[str]:
    client = await nats.connect(url)
    jetstream = client.jetstream()
    last = (await jetstream.stream_info(REGISTRY)).state.messages
    found = [await jetstream.get_msg(REGISTRY, seq) for seq in range(1, last + 1)]
    await client.close()
    return [f"{each.subject} {(each.data or b'').decode()}" for each in found]


def send(device: str, results: list[dict[str, object]], gateway: str, data_dir: Path) -> None:
    """An analyser is a `tidegate device` that is given its results as lines."""
    lines = [json.dumps({"type": "lab.result", "data": each}) for each in results]
    print(f"$ tidegate device {device}")
    for line in lines:
        print(f"  <- {line}", flush=True)
    subprocess.run(
        [*TIDEGATE, "device", device, "--url", gateway, "--data-dir", data_dir],
        input="\n".join(lines) + "\n", text=True, check=True, timeout=60,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def count(url: str) -> int:
    return int(psql(url, "-Atc", "SELECT count(*) FROM chart"))


def psql(url: str, *arguments: object) -> str:
    command = [str(binary("psql")), url, "--no-psqlrc", "--quiet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
