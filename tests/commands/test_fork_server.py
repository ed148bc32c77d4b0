"""A process that the fork server starts is a process like any other."""

import json
import os
import signal
import subprocess
from pathlib import Path

from support.commands import TidegateProcess, environment, spawned_tidegate, tidegate
from support.processes import GatewayProcess


def test_its_streams_status_and_arguments_are_its_own(tmp_path):
    done = tidegate("token", "veh-1", "--data-dir", "here", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "here" / "development-jwks.json").exists()
    assert tidegate("token", "veh.1").returncode == 1
    shown = tidegate("check-config", TIDEGATE_SERVER__PORT="1234")
    assert json.loads(shown.stdout)["server"]["port"] == 1234
    assert json.loads(tidegate("check-config").stdout)["server"]["port"] != 1234


def test_it_is_a_child_in_our_session_that_has_only_the_standard_streams():
    with spawned_tidegate("simulate", "--devices", 1_000_000, stderr=subprocess.PIPE) as process:
        assert "simulating" in process.stderr.readline()
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(stat[1]) == os.getpid()
        descriptors = {int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
        assert descriptors == {0, 1, 2}
        process.kill()
        assert process.wait(30) == -signal.SIGKILL


def test_it_can_lead_a_session_of_its_own():
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    arguments = ("simulate", "--devices", 1_000_000)
    with TidegateProcess(*arguments, text=True, env=environment(), **options) as process:
        assert "simulating" in process.stderr.readline()
        assert os.getsid(process.pid) == process.pid
        process.kill()


def test_two_have_random_numbers_of_their_own(tmp_path):
    nodes = set()
    for name in ("one", "other"):
        gateway = GatewayProcess(tmp_path / name, LOG__FORMAT="json")
        gateway.start()
        nodes |= {event["node"] for event in gateway.events("serving")}
        gateway.stop()
    assert len(nodes) == 2
