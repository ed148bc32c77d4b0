"""`make example`: a battery is low, and three consumers do their work. Ends by itself."""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from receiver import Receiver
from showing import TIDEGATE, running, until

from loadtest.servers.postgres import PostgresServer, binary
from loadtest.servers.process import free_port

HERE = Path(__file__).parent
SENT = {"veh-1": [80, 17], "veh-2": [55], "veh-3": [9]}
LOW = 2
ALL = 4


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-example-") as name:
        directory = Path(name)
        port, ops, sink_ops, route_ops = (free_port() for _ in range(4))
        data_dir = directory / "data"
        events = directory / "events.toml"
        # A copy: the folder of the metrics is relative to it.
        events.write_text((HERE / "events.toml").read_text())
        with PostgresServer(directory / "postgres") as postgres, Receiver() as receiver:
            url = postgres.url()
            psql(url, "--file", HERE / "tables.sql")
            (directory / "database").write_text(url)
            with (
                running(
                    directory, "gateway", f"http://127.0.0.1:{ops}/readyz",
                    "serve", "--port", port, "--ops-port", ops, "--data-dir", data_dir,
                ),
                running(
                    directory, "sink", f"http://127.0.0.1:{sink_ops}/readyz",
                    "sink", "--events", events, "--data-dir", data_dir,
                    "--database-url-file", directory / "database", "--ops-port", sink_ops,
                ),
                running(
                    directory, "route", f"http://127.0.0.1:{route_ops}/readyz",
                    "route", "--events", events, "--data-dir", data_dir,
                    "--ops-port", route_ops,
                ),
            ):  # fmt: skip
                for device, socs in SENT.items():
                    send(device, socs, f"ws://127.0.0.1:{port}/v1/device", data_dir)
                until(lambda: len(receiver.alerts) == LOW, "alerts")
                until(lambda: count(url) == ALL, "rows")
                until(lambda: len(logged(directory)) == ALL, "lines")
                print(f"$ psql\n{psql(url, '-c', 'SELECT * FROM maintenance ORDER BY stream_seq')}")
                print("$ cat metrics/*.jsonl")
                for line in logged(directory):
                    print(f"  {line}")
    print(f"three consumers, none knew the others: {time.monotonic() - began:.0f} s", flush=True)


def send(device: str, socs: list[int], gateway: str, data_dir: Path) -> None:
    """A vehicle is a `tidegate device` that is given its events as lines."""
    lines = [json.dumps({"type": "battery.low", "data": {"soc": soc}}) for soc in socs]
    print(f"$ tidegate device {device}  <- {lines}", flush=True)
    subprocess.run(
        [*TIDEGATE, "device", device, "--url", gateway, "--data-dir", data_dir],
        input="\n".join(lines) + "\n", text=True, check=True, timeout=60,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def logged(directory: Path) -> list[str]:
    """The lines of the metrics."""
    files = sorted((directory / "metrics").glob("**/*.jsonl*"))
    return [line for file in files for line in file.read_text().splitlines()]


def count(url: str) -> int:
    return int(psql(url, "-Atc", "SELECT count(*) FROM maintenance"))


def psql(url: str, *arguments: object) -> str:
    command = [str(binary("psql")), url, "--no-psqlrc", "--quiet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
