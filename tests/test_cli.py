"""The command as its user types it."""

import inspect
import json
import re
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

from gateway.commands.tree import COMMANDS, NATS_ONLY, load
from support.children import spawned
from support.commands import TIDEGATE, environment, spawned_tidegate, tidegate
from support.processes import GatewayProcess, strip_colours


@pytest.fixture
def gateway(tmp_path):
    running = GatewayProcess(tmp_path)
    running.start()
    yield running
    running.stop()


def device(gateway, name, lines, *more):
    return tidegate(
        *("device", name, "--url", gateway.url, "--data-dir", gateway.data_dir, *more),
        stdin="".join(
            json.dumps(line) + "\n" if not isinstance(line, str) else line + "\n" for line in lines
        ),
    )


def tail(gateway, *more):
    done = tidegate("tail", "--data-dir", gateway.data_dir, "--no-follow", "--since", "all", *more)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_device_at_the_terminal_and_its_messages_read_back(gateway):
    done = device(
        gateway,
        "veh-1",
        [
            {"type": "battery.low", "data": {"soc": 7}},
            {"type": "door.open", "data": 1, "time": "2026-11-23T10:00:00Z"},
            "not json",
            {"type": "a b", "data": 1},
            {"type": "a", "data": 1, "more": 2},
        ],
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"queued": 1} in lines
    assert {"queued": 2} in lines
    assert lines[-1] == {"ack": 2} or {"ack": 2} in lines
    assert [line["error"].split(":")[0] for line in lines if "error" in line] == [
        "JSONDecodeError", "Rejected", "ValueError",
    ]  # fmt: skip
    device(gateway, "veh-2", [{"type": "battery.low", "data": 2}])
    everything = tail(gateway)
    assert [(line["device"], line["type"]) for line in everything] == [
        ("veh-1", "battery.low"),
        ("veh-1", "door.open"),
        ("veh-2", "battery.low"),
    ]
    assert everything[0]["data"] == {"soc": 7}
    assert everything[1]["time"] == "2026-11-23T10:00:00Z"
    assert [line["seq"] for line in tail(gateway, "--device", "veh-1")] == [1, 2]
    assert len(tail(gateway, "--type", "battery.low")) == 2
    assert tail(gateway, "--since", "2099-01-01T00:00:00Z") == []
    assert len(tail(gateway, "--since", "1h")) == 3
    assert tail(gateway, "--dead-letters") == []
    assert len(tail(gateway, "--where", '{"type": ["battery.low"]}')) == 2
    assert tail(gateway, "--until", "1h") == []


def test_tail_follows(gateway):
    with spawned_tidegate(
        "tail", "--data-dir", gateway.data_dir, "--since", "all", stderr=subprocess.PIPE
    ) as following:
        device(gateway, "veh-1", [{"type": "a", "data": 1}])
        assert json.loads(following.stdout.readline())["device"] == "veh-1"
        device(gateway, "veh-2", [{"type": "a", "data": 1}])
        assert json.loads(following.stdout.readline())["device"] == "veh-2"
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 130
        assert "Traceback" not in following.stderr.read()


@pytest.mark.parametrize(("loads", "status"), [("typer", -signal.SIGINT), ("uvloop", 130)])
def test_an_interrupt_while_a_command_loads_prints_nothing(loads, status):
    """The imports take half a second, and somebody who mistyped is quicker than that."""
    code = (
        "import os, signal, sys\n"
        # As at a terminal: a job in the background of a script inherits that it is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupter:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {loads!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupter)\n"
        "from gateway.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "serve", "--port=0", "--ops-port=0"],
        capture_output=True, text=True, check=False, timeout=60, env=environment(),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_the_version_is_said_however_the_command_is_called():
    said = f"tidegate {version('tidegate-gateway')}\n"
    assert tidegate("--version").stdout == said
    module = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (module.returncode, module.stdout, module.stderr) == (0, said, "")


def test_help_names_every_command():
    said = tidegate("--help").stdout
    assert [name for name in COMMANDS if not re.search(rf"\b{name} +[A-Z]", said)] == []


def test_help_says_of_each_command_what_the_command_says_of_itself():
    said = {name: inspect.cleandoc(load(name).help).split("\n\n")[0] for name in COMMANDS}
    assert {name: each.summary for name, each in COMMANDS.items()} == {
        name: text.replace("\n", " ") for name, text in said.items()
    }


LISTS = """
import sys
from gateway.commands.tree import COMMANDS, app
app(["--help"], standalone_mode=False)
print({each.module for each in COMMANDS.values()} & {*sys.modules}, file=sys.stderr)
"""


def test_help_loads_no_command():
    done = subprocess.run([sys.executable, "-P", "-c", LISTS], capture_output=True, check=True)
    assert done.stderr == b"set()\n"


FRESH = {each.module.rpartition(".")[2]: command for command, each in COMMANDS.items()}
"""A command of each module."""
ALONE = """
import gc, os, sys

sys.modules["aiohttp"] = None  # nats-py would import it, and the first commands must not
import cryptography.hazmat.primitives.asymmetric.ec, email.message, jsonschema_rs
import jwt.algorithms, nats, orjson, prometheus_client, pydantic, structlog, typer, uvloop
import websockets.asyncio.client
del sys.modules["aiohttp"]
gc.disable()

for name in sys.argv[1:]:
    if name == "--":
        import aiohttp
        continue
    pid = os.fork()
    if pid == 0:
        from gateway.commands import tree
        assert tree.load(name).name == name
        assert not {"redis", "opentelemetry"} & {*sys.modules}  # only settings ask for these
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_each_command_is_loaded_by_a_process_that_has_imported_no_other():
    """The other tests fork a process that has imported all modules. This one has none of ours."""
    nats_only = sorted(NATS_ONLY & {*FRESH.values()})
    others = sorted({*FRESH.values()} - NATS_ONLY)
    done = subprocess.run(
        [sys.executable, "-P", "-c", ALONE, *nats_only, "--", *others],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{command} 0" for command in (*nats_only, *others)]


def test_a_command_starts_in_an_interpreter_of_its_own():
    done = subprocess.run(
        [*TIDEGATE, "simulate", "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulate" in done.stdout


def test_a_command_that_speaks_nats_alone_loads_nothing_for_other_work():
    loaded = "{'aiohttp', 'rich'} & {*sys.modules}"
    code = f"import sys; from gateway.commands import tree; tree.load('command'); print({loaded})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


def test_token_prints_a_credential(tmp_path):
    done = tidegate("token", "veh-1", "--data-dir", tmp_path, "--urgent", "--tenant", "acme")
    assert done.returncode == 0
    assert done.stdout.strip().count(".") == 2
    key = tmp_path / "development-jwks.json"
    assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["token", "veh.1"], "must match"),
        (["device", "veh 1"], "must match"),
        (["device", "veh-1", "--ca", "missing.pem"], "--ca missing.pem: No such file"),
        (["device", "veh-1", "--url", "http://x"], "'http://x' is no address of a gateway"),
        (["device", "veh-1", "--credential", "a b"], "the credential holds ' ' at 1"),
        (["tail", "--device", "*"], "must match"),
        (["tail", "--type", "a..b"], "joined by dots"),
        (["tail", "--since", "yesterday"], "--since 'yesterday'"),
        (["tail", "--data-dir", "/nonexistent"], "start the gateway first"),
        (["tail", "--nats-url", "nats://127.0.0.1:1"], "NATS:"),
        (["check-config", "--config", "missing.toml"], "missing.toml"),
        (["serve", "--port", "99999"], "server.port"),
        (["serve", "--nats-url", "http://x"], "nats: urls must begin with"),
        (["serve", "--bogus"], "No such option"),
    ],
)
def test_errors_are_one_line_that_names_the_offence(tmp_path, arguments, said):
    done = tidegate(*arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert said in strip_colours(done.stderr)
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said(gateway, tmp_path):
    done = tidegate(
        *("serve", "--port", gateway.port, "--ops-port", 0, "--data-dir", tmp_path / "other")
    )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {gateway.port}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_check_config_shows_what_is_in_force_and_no_secret(tmp_path):
    done = tidegate(
        "check-config",
        TIDEGATE_SERVER__PORT="1234",
        TIDEGATE_NATS__URLS="nats://a",
        TIDEGATE_NATS__TOKEN="hunter2",
    )
    assert json.loads(done.stdout)["server"]["port"] == 1234
    assert "hunter2" not in done.stdout
    broken = tidegate("check-config", TIDEGATE_SERVER__PROT="1")
    assert broken.returncode == 1
    assert "did you mean server.port" in broken.stderr


def test_the_hint_of_serve_can_be_pasted(tmp_path):
    """What `make run` prints must work as it stands."""
    with spawned(
        [
            *TIDEGATE,
            *("serve", "--hint", "--port", "0", "--ops-port", "0"),
            *("--data-dir", str(tmp_path / "data dir")),
        ],
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as serving:
        try:
            said = []
            while len(said) < 2:
                line = serving.stdout.readline()
                assert line
                if line.startswith("  "):
                    said.append(line.strip())
            program = tmp_path / "tidegate"
            program.write_text(f"#!{sys.executable}\nfrom gateway.cli import main\nmain()\n")
            program.chmod(0o755)
            for command in said:
                pasted = _with_program(command, program)
                done = subprocess.run(
                    ["/bin/sh", "-c", pasted],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )
                assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["device"] == "veh-1"
        finally:
            serving.terminate()
            serving.wait(30)


def _with_program(command, program):
    """The program's own path depends on how it was started; the rest must work as printed."""
    return re.sub(r"(^|\| )\S+ (device|tail)", rf"\g<1>{program} \2", command)
