"""`make example-sink`: events of three vehicles become rows of PostgreSQL. Ends by itself."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.servers.postgres import PostgresServer, binary
from loadtest.servers.process import free_port

HERE = Path(__file__).parent
TIDEGATE = [sys.executable, "-m", "gateway"]
SENT = [
    ("veh-1", 80), ("veh-1", 41), ("veh-2", 64), ("veh-2", 170), ("veh-3", 13), ("veh-1", 12),
]  # fmt: skip


@contextmanager
def running(directory: Path, name: str, ready: str, *arguments: object) -> Iterator[None]:
    """A command of tidegate, from when its page `ready` answers until the end of the block."""
    command = [*TIDEGATE, *map(str, arguments)]
    print("$ tidegate", *arguments, flush=True)
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"NO_COLOR": "1"})
    try:
        wait_for(ready, process)
        yield
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(f"it ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310  # our own page
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{url} does not answer")


def send(gateway: str, data_dir: Path) -> None:
    """Each vehicle is a `tidegate device` that is given its events as lines."""
    for device in sorted({device for device, _soc in SENT}):
        lines = [
            json.dumps({"type": "battery.low", "data": {"soc": soc}})
            for each, soc in SENT
            if each == device
        ]
        print(f"$ tidegate device {device}  <- {lines}", flush=True)
        subprocess.run(
            [*TIDEGATE, "device", device, "--url", gateway, "--data-dir", data_dir],
            input="\n".join(lines) + "\n", text=True, check=True, timeout=60,
        )  # fmt: skip


def psql(url: str, *arguments: object) -> str:
    command = [str(binary("psql")), url, "--no-psqlrc", "--quiet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tidegate-example-") as name:
        directory = Path(name)
        data_dir = directory / "data"
        port, ops, sink_ops = free_port(), free_port(), free_port()
        with PostgresServer(directory / "postgres") as postgres:
            url = postgres.url()
            psql(url, "--file", HERE / "tables.sql")
            (directory / "database").write_text(url)
            os.environ["TIDEGATE_EVENTS__FILE"] = str(HERE / "events.toml")
            with (
                running(
                    directory, "gateway", f"http://127.0.0.1:{ops}/readyz",
                    "serve", "--port", port, "--ops-port", ops, "--data-dir", data_dir,
                ),
                running(
                    directory, "sink", f"http://127.0.0.1:{sink_ops}/readyz",
                    "sink", "--events", HERE / "events.toml", "--data-dir", data_dir,
                    "--database-url-file", directory / "database", "--ops-port", sink_ops,
                ),
            ):  # fmt: skip
                send(f"ws://127.0.0.1:{port}/v1/device", data_dir)
                for _ in range(100):
                    if psql(url, "-Atc", "SELECT count(*) FROM battery").strip() == "4":
                        break
                    time.sleep(0.1)
                for table in ("battery", "battery_now"):
                    query = f"SELECT * FROM {table} ORDER BY stream_seq"
                    print(f"$ psql -c '{query}'\n{psql(url, '-c', query)}", flush=True)
                print("$ tidegate tail --dead-letters --since all --no-follow", flush=True)
                subprocess.run(
                    [*TIDEGATE, "tail", "--dead-letters", "--since", "all", "--no-follow",
                     "--data-dir", data_dir],
                    check=True, timeout=60,
                )  # fmt: skip


if __name__ == "__main__":
    main()
