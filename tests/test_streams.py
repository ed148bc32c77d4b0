"""`tidegate provision`: the way out when the streams differ from the settings."""

import json

import pytest
from support.processes import GatewayProcess
from support.servers import nats_server
from test_cli import tidegate

WEEK_S = 604_800


def provision(directory, *arguments, **environment):
    environment = {f"TIDEGATE_{name}": value for name, value in environment.items()}
    done = tidegate("provision", "--data-dir", directory / "data", *arguments, **environment)
    return done.returncode, done.stdout, done.stderr


def test_a_dead_end_on_the_embedded_server_has_a_way_out(tmp_path):
    """With the gateway stopped, and while it runs."""
    gateway = GatewayProcess(tmp_path)
    gateway.start()
    running = {"STREAM__EVENTS__MAX_AGE_S": str(2 * WEEK_S), "STREAM__DUPLICATE_WINDOW_S": "300"}
    code, said, _ = provision(tmp_path, "--plan", **running)
    assert code == 1
    window = "stream.duplicate_window_s is 300 in the settings and 120 in the stream"
    age = "stream.events.max_age_s is 1209600 in the settings and 604800 in the stream"
    assert said.splitlines() == [
        f"EVENTS: {age}; it is changed",
        f"EVENTS: {window}; it is changed",
        f"DEADLETTERS: {window}; it is changed",
        "nothing was changed; --apply makes the changes",
    ]
    code, said, _ = provision(tmp_path, "--apply", **running)
    assert (code, said.splitlines()[-1]) == (0, "done")
    gateway.stop()

    with pytest.raises(AssertionError, match="exited with 1"):
        gateway.start()  # with the settings of before
    assert "stream.events.max_age_s is 604800 in the settings and 1209600" in gateway.log
    assert "DEADLETTERS: stream.duplicate_window_s is 120" in gateway.log

    code, said, _ = provision(tmp_path, "--apply")
    assert code == 1
    assert "allow it: --accept-loss" in said
    assert said.splitlines()[-1] == "1 differences are left"
    code, said, _ = provision(tmp_path, "--apply", "--accept-loss")
    assert (code, said.splitlines()[-1]) == (0, "done")
    gateway.start()
    gateway.stop()
    assert provision(tmp_path)[1] == "the streams are as the settings want them\n"
    assert not (tmp_path / "data" / "nats" / "pid").exists()


def test_what_jetstream_cannot_change_is_said_with_what_to_do(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        options = ("--nats-url", server.url)
        assert provision(tmp_path, *options)[0] == 1
        code, said, _ = provision(tmp_path, *options, "--apply")
        assert (code, said.splitlines()[0]) == (0, "EVENTS: missing; it is created")
        code, said, _ = provision(tmp_path, *options, "--apply", STREAM__DENY_PURGE="false")
        assert code == 1
        assert "JetStream cannot change it: keep it true in the settings" in said


def test_nats_that_cannot_be_reached_is_named(tmp_path):
    url = "nats://operator:s3cr3t-word@127.0.0.1:1"
    code, _, error = provision(tmp_path, "--nats-url", url)
    assert code == 1
    assert "nats://127.0.0.1:1" in error
    assert "s3cr3t-word" not in json.dumps(error)
