"""Every command says what it cannot reach and why, and ends on one SIGINT or SIGTERM."""

import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.commands.tree import COMMANDS
from loadtest.servers.certificates import make_certificate
from support.commands import environment, spawned_tidegate, tidegate
from support.processes import GatewayProcess
from support.servers import free_port, mute_server, nats_server
from support.waiting import eventually

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class MuteServer:
    """Accepts connections, says nothing, and knows when one has come."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.came = threading.Event()
        self._kept = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._kept.append(connection)
            self.came.set()

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)
        for connection in self._kept:
            connection.close()


@pytest.fixture
def mute():
    server = MuteServer()
    yield server
    server.close()


def started(*arguments, cwd=None, **variables):
    return spawned_tidegate(
        *arguments, stderr=subprocess.PIPE, stdin=subprocess.PIPE,
        env=environment(**variables), cwd=cwd,
    )  # fmt: skip


def ends(process, number, status=None):
    process.send_signal(number)
    assert process.wait(30) == (128 + number if status is None else status)
    said = process.stderr.read()
    assert "Traceback" not in said
    return said


WAITING = {
    "tail": lambda port: ["tail", "--nats-url", f"nats://127.0.0.1:{port}"],
    "drain": lambda port: ["drain", "--ops-url", f"http://127.0.0.1:{port}"],
    "revoke": lambda port: ["revoke", "--list", "--ops-url", f"http://127.0.0.1:{port}"],
    "disconnect": lambda port: ["disconnect", "v", "--ops-url", f"http://127.0.0.1:{port}"],
    "rate": lambda port: ["rate", "--ops-url", f"http://127.0.0.1:{port}"],
    "command": lambda port: ["command", "v", "t", "1", "--nats-url", f"nats://127.0.0.1:{port}"],
    "state": lambda port: ["state", "get", "v", "--nats-url", f"nats://127.0.0.1:{port}"],
    "presence": lambda port: ["presence", "--nats-url", f"nats://127.0.0.1:{port}"],
    "backup": lambda port: ["backup", "b", "--nats-url", f"nats://127.0.0.1:{port}"],
    "whois": lambda port: ["whois", "v", "--ops-url", f"http://127.0.0.1:{port}"],
    "check-config": lambda _port: ["check-config", "--connect"],
}
"""Commands that wait for a server that does not answer; `check-config` by its environment."""


def redis(port):
    return {"TIDEGATE_CLUSTER__REDIS_URL": f"redis://127.0.0.1:{port}"}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", WAITING)
def test_a_command_that_waits_for_a_server_ends(mute, command, number, tmp_path):
    with started(*WAITING[command](mute.port), cwd=tmp_path, **redis(mute.port)) as process:
        assert mute.came.wait(30)
        ends(process, number)


def test_a_server_that_does_not_answer_is_said(tmp_path):
    """By each command: all of them wait at the same time."""
    with mute_server() as port, ThreadPoolExecutor(len(WAITING)) as pool:

        def run(command):
            directory = tmp_path / command
            directory.mkdir()
            return tidegate(*WAITING[command](port), cwd=directory, **redis(port))

        ended = dict(zip(WAITING, pool.map(run, WAITING), strict=True))
    assert {command: done.returncode for command, done in ended.items()} == dict.fromkeys(
        WAITING, 1
    )
    for command, done in ended.items():
        assert "no answer" in done.stderr, command
        assert "Traceback" not in done.stderr, command


@pytest.mark.parametrize("command", WAITING)
def test_a_server_that_is_away_is_said(command, tmp_path):
    port = free_port()
    done = tidegate(*WAITING[command](port), cwd=tmp_path, **redis(port))
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["drain", "revoke"])
def test_somebody_else_on_the_port_is_said(command, tmp_path):
    """A web server that is no gateway, and a NATS server that is no web server."""
    with nats_server(tmp_path / "nats") as nats:
        for port, said in ((nats.http_port, "no gateway"), (nats.port, "")):
            done = tidegate(*WAITING[command](port))
            assert done.returncode == 1
            assert said in done.stderr
            assert "Traceback" not in done.stderr
    assert "not a URL" in tidegate(command, "--ops-url", "nonsense", "--jti", "x").stderr or (
        command == "drain"
    )


def test_a_certificate_that_is_not_trusted_is_said(tmp_path):
    files = make_certificate(tmp_path / "tls")
    tls = {"cert_file": str(files.cert), "key_file": str(files.key)}
    with nats_server(tmp_path / "nats", tls=tls) as nats:
        url = f"tls://127.0.0.1:{nats.port}"
        done = tidegate("tail", "--nats-url", url)
        assert done.returncode == 1
        assert "certificate verify failed" in done.stderr
        variables = {"TIDEGATE_NATS__URLS": url}
        checked = tidegate("check-config", "--connect", **variables)
        assert checked.returncode == 1
        assert "certificate verify failed" in checked.stderr
        variables["TIDEGATE_NATS__TLS_CA_FILE"] = str(files.cert)
        checked = tidegate("check-config", "--connect", **variables)
        assert (checked.returncode, checked.stderr) == (0, "")
        done = tidegate("tail", "--since", "all", "--no-follow", **variables)
        assert "EVENTS" in done.stderr  # trusted now, and there is no stream


def test_rights_that_nats_does_not_give_are_said(tmp_path):
    user = {"user": "gate", "password": "pw", "permissions": {"publish": ["events.>", "$JS.>"]}}
    with nats_server(tmp_path / "nats", authorization={"users": [user]}) as nats:
        variables = {
            "TIDEGATE_NATS__URLS": nats.url,
            "TIDEGATE_NATS__USER": "gate",
            "TIDEGATE_NATS__PASSWORD": "pw",
        }
        done = tidegate("check-config", "--connect", **variables)
        assert done.returncode == 1
        denied = ("deadletters.>", "commands.status.*.*.*", "presence.*.*")
        assert done.stderr.splitlines() == [
            f"tidegate: nats.urls: the user may not publish {subject}" for subject in denied
        ]
        variables["TIDEGATE_NATS__PASSWORD"] = "hunter2"
        done = tidegate("check-config", "--connect", **variables)
        assert done.returncode == 1
        assert "uthorization" in done.stderr
        assert "hunter2" not in done.stderr + done.stdout


@pytest.fixture
def gateway(tmp_path):
    running = GatewayProcess(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("number", SIGNALS)
def test_tail_ends_while_it_follows(gateway, number):
    with started("tail", "--since", "all", "--data-dir", gateway.data_dir) as process:
        line = '{"type":"t","data":1}\n'
        done = tidegate(
            *("device", "veh-1", "--url", gateway.url, "--data-dir", gateway.data_dir), stdin=line
        )
        assert done.returncode == 0, done.stderr
        assert process.stdout.readline()
        assert ends(process, number) == ""


def test_tail_into_a_pipe_that_is_closed_ends_quietly(gateway):
    line = '{"type":"t","data":1}\n'
    tidegate(
        *("device", "veh-1", "--url", gateway.url, "--data-dir", gateway.data_dir), stdin=line * 3
    )
    with started("tail", "--since", "all", "--data-dir", gateway.data_dir) as process:
        assert process.stdout.readline()
        process.stdout.close()
        tidegate(
            *("device", "veh-1", "--url", gateway.url, "--data-dir", gateway.data_dir), stdin=line
        )
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_drain_that_is_watched_ends_and_the_drain_goes_on(tmp_path, number):
    running = GatewayProcess(tmp_path, DRAIN__LINGER_MS="60000")
    running.start()
    try:
        ops = f"http://127.0.0.1:{running.ops_port}"
        with started(
            "device", "veh-1", "--url", running.url, "--data-dir", running.data_dir
        ) as device:
            device.stdin.write('{"type":"t","data":1}\n')
            device.stdin.flush()
            while "ack" not in device.stdout.readline():
                pass
            running.signal(signal.SIGSTOP)  # no answer comes until SIGCONT
            with started("drain", "--ops-url", ops) as process:
                await eventually(lambda: _connected_to(running.ops_port))
                ends(process, number)
            running.signal(signal.SIGCONT)
    finally:
        running.signal(signal.SIGCONT)
        running.stop()


def _connected_to(port):
    """Whether a process has a connection to it (/proc/net/tcp has ports in hexadecimal)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_simulate_ends(number):
    with started("simulate", "--devices", 1_000_000) as process:
        assert "simulating" in process.stderr.readline()
        process.send_signal(number)
        process.wait(30)
        assert process.returncode in (128 + number, -number)
        assert "Traceback" not in process.stderr.read()


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
async def test_storm_ends_with_its_servers_and_leaves_no_files(tmp_path, number):
    with started(
        "storm", "blip", "--devices", 200, "--rate", 5, TMPDIR=str(tmp_path), cwd=tmp_path
    ) as process:
        while "building up" not in process.stdout.readline():
            assert process.poll() is None
        pids = _descendants(process.pid)
        assert pids
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert "Traceback" not in process.stderr.read()
        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert list(tmp_path.iterdir()) == []


def _descendants(root):
    code = (
        "import sys; from loadtest.servers.proc import descendants; "
        "print(*descendants(int(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


def test_no_command_is_forgotten():
    """A new command needs a case above, or a reason here why it has none."""
    local = {"token", "schema", "rules"}  # ask no server, or end with what they read
    elsewhere = {
        *("serve", "device", "provision", "sink", "route", "deadletters", "audit"),
        *("restore", "restart-workers", "device-log"),  # as backup, rate, and both tail and whois
    }
    mine = {*WAITING, "simulate", "storm"}
    assert set(COMMANDS) <= mine | local | elsewhere
