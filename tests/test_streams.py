"""`tidegate provision` brings streams that differ from the settings back in line."""

import pytest

from gateway.settings import load_settings
from gateway.stream.errors import IncompatibleStream, Unreachable
from gateway.stream.names import STREAMS
from gateway.streams import provision_streams
from support.commands import tidegate
from support.gateways import listening_gateway, running_gateway
from support.servers import nats_server

WEEK_S = 604_800


async def provision(directory, *, make=False, accept_loss=False, **settings):
    """Whether the streams are as wanted, and what was said."""
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    overrides["nats.data_dir"] = directory
    wanted = load_settings(None, environment={}, overrides=overrides)
    said = []
    done = await provision_streams(wanted, make=make, accept_loss=accept_loss, say=said.append)
    return done, said


async def test_provision_changes_the_streams_of_an_embedded_server(tmp_path):
    """While the gateway runs, and while it does not."""
    longer = {"stream__events__max_age_s": 2 * WEEK_S, "stream__duplicate_window_s": 300}
    window = "stream.duplicate_window_s is 300 in the settings and 120 in the stream"
    age = "stream.events.max_age_s is 1209600 in the settings and 604800 in the stream"
    async with running_gateway(tmp_path):
        done, said = await provision(tmp_path, **longer)
        assert not done
        assert said == [
            f"EVENTS: {age}; it is changed",
            f"EVENTS: {window}; it is changed",
            *(f"{name}: {window}; it is changed" for name in STREAMS[1:]),
            "nothing was changed; --apply makes the changes",
        ]
        assert (await provision(tmp_path, make=True, **longer))[1][-1] == "done"

    with pytest.raises(IncompatibleStream) as caught:
        async with listening_gateway(tmp_path) as gateway:  # with the settings of before
            await gateway.ready()
    assert "max_age_s is 604800 in the settings and 1209600 in the stream" in str(caught.value)
    assert "DEADLETTERS: stream.duplicate_window_s is 120" in str(caught.value)

    done, said = await provision(tmp_path, make=True)
    assert not done
    assert "allow it: --accept-loss" in said[0]
    assert said[-1] == "differences left: 1"
    assert (await provision(tmp_path, make=True, accept_loss=True))[0]
    async with running_gateway(tmp_path):
        pass
    assert await provision(tmp_path) == (True, ["the streams are as the settings want them"])
    assert not (tmp_path / "nats" / "pid").exists()


async def test_the_plan_advises_what_to_do_where_jetstream_cannot_change_a_stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        settings = {"nats__urls": (server.url,)}
        done, said = await provision(tmp_path, make=True, **settings)
        assert (done, said[0]) == (True, "EVENTS: missing; it is created")
        done, said = await provision(tmp_path, make=True, stream__deny_purge=False, **settings)
        assert not done
        assert "JetStream cannot change it: keep it true in the settings" in said[0]


async def test_the_error_names_the_server_that_cannot_be_reached(tmp_path):
    url = "nats://operator:s3cr3t-word@127.0.0.1:1"
    with pytest.raises(Unreachable, match=r"nats://127\.0\.0\.1:1") as caught:
        await provision(tmp_path, nats__urls=(url,))
    assert "s3cr3t-word" not in str(caught.value)


def test_the_command_starts_the_embedded_server_and_ends_with_its_verdict(tmp_path):
    done = tidegate("provision", "--data-dir", tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("EVENTS: missing; it is created\nDEADLETTERS: missing;")
    assert tidegate("provision", "--plan", "--apply").stderr == (
        "tidegate: give --plan or --apply\n"
    )
