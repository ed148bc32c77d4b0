"""`make drill`: a backup, a disaster, and the way back, as the runbook says it. Ends by itself.

Two vehicles send events, a sink writes them into PostgreSQL, and a backup is made. What is sent
after the backup is lost with the disk, because no copy of it exists. Everything else must be there
once: in the stream, in the table, and for a vehicle whose own outbox is put back from a copy.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from showing import TIDEGATE, running, until

from loadtest.servers.postgres import PostgresServer, binary
from loadtest.servers.process import free_port

BEFORE, LOST, WAITING, AFTER = 300, 100, 50, 100
"""Events: before the backup, after it, in the outbox of a vehicle meanwhile, after the disaster."""
FILES = ("development-jwks.json", "ticket-secret", "revocations.jsonl")
"""Small files of a data directory that a backup holds, too."""
EVENTS = """\
[[sink]]
name = "battery"
table = "battery"
[sink.columns]
device = "device"
soc = "data.soc"
stream_seq = "stream_seq"
"""
TABLE = "CREATE TABLE battery (device text, soc int, stream_seq bigint)"

Running = contextlib.AbstractContextManager[subprocess.Popen[bytes]]


class Site:
    """The ports of a site, and where its files are."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.backup = directory / "backup"
        self.database = url
        self.port, self.ops, self.sink_ops = free_port(), free_port(), free_port()

    def gateway(self) -> Running:
        return running(
            self.directory, "gateway", f"http://127.0.0.1:{self.ops}/readyz",
            "serve", "--port", self.port, "--ops-port", self.ops, "--data-dir", self.data,
        )  # fmt: skip

    @property
    def sink_arguments(self) -> list[object]:
        return [
            "sink", "--events", self.directory / "events.toml", "--data-dir", self.data,
            "--database-url-file", self.directory / "database", "--ops-port", self.sink_ops,
        ]  # fmt: skip

    def sink(self) -> Running:
        page = f"http://127.0.0.1:{self.sink_ops}/readyz"
        return running(self.directory, "sink", page, *self.sink_arguments)

    def device(self, name: str, outbox: Path, socs: range) -> list[str | Path]:
        url = f"ws://127.0.0.1:{self.port}/v1/device"
        print(f"$ tidegate device {name} --outbox {outbox.name}  <- {len(socs)} events", flush=True)
        return [
            *TIDEGATE,
            "device",
            name,
            "--url",
            url,
            "--outbox",
            outbox,
            "--data-dir",
            self.data,
        ]

    def send(self, name: str, outbox: Path, socs: range) -> None:
        """A vehicle that sends its events and ends when all are acknowledged."""
        subprocess.run(
            self.device(name, outbox, socs),
            input=lines(socs), text=True, check=True, timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def wait_in_outbox(self, name: str, outbox: Path, socs: range) -> None:
        """A vehicle out of reach: its events are on its disk, and its engine is turned off."""
        with subprocess.Popen(
            self.device(name, outbox, socs), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(lines(socs))
            process.stdin.flush()
            for _ in socs:
                process.stdout.readline()  # {"queued":..}: it is on the disk
            process.terminate()

    def rows(self) -> int:
        return int(psql(self.database, "-Atc", "SELECT count(*) FROM battery"))

    def shell(self, *arguments: object, check: bool = True) -> str:
        """A command of tidegate, shown with what it prints."""
        print("$ tidegate", *arguments, flush=True)
        done = subprocess.run(
            [*TIDEGATE, *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        said = done.stdout + done.stderr
        print(said, end="", flush=True)
        if check and done.returncode:
            sys.exit(f"it ended with {done.returncode}")
        return said


def lines(socs: range) -> str:
    events = ({"type": "battery.low", "data": {"soc": soc}} for soc in socs)
    return "".join(json.dumps(event) + "\n" for event in events)


def psql(url: str, *arguments: object) -> str:
    command = [str(binary("psql")), url, "--no-psqlrc", "--quiet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def copy_outbox(outbox: Path, copy: Path) -> None:
    """SQLite's own backup: the file alone may lack what is in its write-ahead log."""
    print(f'$ sqlite3 {outbox.name} ".backup {copy.name}"', flush=True)
    with (
        contextlib.closing(sqlite3.connect(outbox)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def back_up(site: Site) -> None:
    """The database first: its position must not lie beyond the end of the saved stream."""
    print("$ pg_dump --clean --if-exists > battery.sql", flush=True)
    dump = subprocess.run(
        [binary("pg_dump"), "--clean", "--if-exists", site.database],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (site.directory / "battery.sql").write_text(dump.stdout)
    site.shell("backup", site.backup, "--data-dir", site.data)
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(site.data / name, site.backup / name)
            print(f"$ cp data/{name} backup/", flush=True)


def put_back(site: Site) -> None:
    site.shell("restore", site.backup, "--data-dir", site.data)
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(site.backup / name, site.data / name)
            print(f"$ cp backup/{name} data/", flush=True)


def ordinary_day(site: Site, outboxes: Path) -> None:
    """Events, a backup, events that no copy will have, and the loss of the disk."""
    with site.gateway() as gateway, site.sink():
        site.send("veh-1", outboxes / "veh-1", range(BEFORE))
        until(lambda: site.rows() == BEFORE, "rows")
        back_up(site)
        site.send("veh-1", outboxes / "veh-1", range(BEFORE, BEFORE + LOST))
        until(lambda: site.rows() == BEFORE + LOST, "rows")
        print("!! the machine and its disk are lost: $ rm -rf data", flush=True)
        nats = int((site.data / "nats" / "pid").read_text())
        gateway.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(nats, signal.SIGKILL)
        shutil.rmtree(site.data)
    site.data.mkdir()


def refused(site: Site) -> None:
    """The database has rows of events that the stream has lost: the sink must not go on."""
    said = site.shell(*site.sink_arguments, check=False)
    if "the stream was made at" not in said:
        sys.exit("the sink did not notice that the stream is another one")
    print("$ psql < battery.sql", flush=True)
    psql(site.database, "--file", site.directory / "battery.sql")


def checked(site: Site) -> None:
    """Each event of the stream is a row, once; what is missing is what no copy had.

    Raises:
        SystemExit: the table is not what the stream is.
    """
    expected = BEFORE + WAITING + AFTER
    until(lambda: site.rows() >= expected, "rows")
    query = "SELECT count(*), count(DISTINCT stream_seq), count(DISTINCT soc) FROM battery"
    found = psql(site.database, "-Atc", query).strip()
    print(f"$ psql -c {query!r}\n{found}", flush=True)
    if found != f"{expected}|{expected}|{expected}":
        sys.exit("the table is not what the stream is")
    said = site.shell("audit", "--data-dir", site.data, check=False)
    if "sound" not in said:
        sys.exit("the stream is not sound")


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-drill-") as name:
        directory = Path(name)
        outboxes = directory / "outboxes"
        outboxes.mkdir()
        with PostgresServer(directory / "postgres") as postgres:
            site = Site(directory, postgres.url())
            psql(site.database, "-c", TABLE)
            (directory / "database").write_text(site.database)
            (directory / "events.toml").write_text(EVENTS)
            ordinary_day(site, outboxes)
            put_back(site)
            end = BEFORE + LOST
            waiting = range(end, end + WAITING)
            site.wait_in_outbox("veh-2", outboxes / "veh-2", waiting)
            copy_outbox(outboxes / "veh-2", outboxes / "veh-2.copy")
            with site.gateway():
                refused(site)
                with site.sink():
                    site.send("veh-2", outboxes / "veh-2", range(0))
                    # The vehicle's disk is replaced; its outbox comes back as it was.
                    site.send("veh-2", outboxes / "veh-2.copy", range(0))
                    after = range(waiting.stop, waiting.stop + AFTER)
                    site.send("veh-1", outboxes / "veh-1", after)
                    checked(site)
    print(
        f"lost: the {LOST} events between backup and disaster, and nothing else;"
        f" doubled: 0; {time.monotonic() - began:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
