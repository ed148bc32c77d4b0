"""The configuration file of the embedded server, and the addresses of its users."""

import json

import pytest

from gateway.stream.server.config import ServerConfig
from gateway.stream.server.roles import Role

PASSWORDS = {role: f"secret-of-{role.value}" for role in Role}


@pytest.fixture
def config():
    return ServerConfig(
        name="tidegate-abc",
        fsync=True,
        batch_messages_max=4_000,
        rule_subjects=("rules.>",),
        passwords=PASSWORDS,
    )


def read(config, directory, port=4222):
    return json.loads(config.text(directory, port))


def test_it_listens_on_loopback_under_its_own_name(config, tmp_path):
    read_back = read(config, tmp_path, 5000)
    assert (read_back["listen"], read_back["server_name"]) == ("127.0.0.1:5000", "tidegate-abc")
    assert read_back["jetstream"]["store_dir"] == str(tmp_path)


def test_it_takes_the_batches_that_the_gateway_sends(config, tmp_path):
    assert read(config, tmp_path)["jetstream"]["limits"]["batch"]["max_msgs"] == 4_000


def test_the_disk_alone_bounds_what_is_stored(config, tmp_path):
    """Not three quarters of what is free when the server starts, as by its default."""
    assert read(config, tmp_path)["jetstream"]["max_file_store"] > 1 << 50


@pytest.mark.parametrize(("fsync", "interval"), [(True, "always"), (False, None)])
def test_with_fsync_every_write_is_synced_first(fsync, interval, tmp_path):
    config = ServerConfig("n", fsync, 1, (), PASSWORDS)
    assert read(config, tmp_path)["jetstream"].get("sync_interval") == interval


def test_there_is_a_user_of_each_role_and_no_other(config, tmp_path):
    users = read(config, tmp_path)["authorization"]["users"]
    assert {user["user"]: user["password"] for user in users} == {
        role.value: PASSWORDS[role] for role in Role
    }
    assert all(user["permissions"] for user in users), "a user without permissions may do all"


def test_only_consumers_may_publish_what_rules_derive(config, tmp_path):
    users = read(config, tmp_path)["authorization"]["users"]
    may = [user["user"] for user in users if "rules.>" in str(user["permissions"]["publish"])]
    assert may == [Role.CONSUMERS.value]


def test_an_address_holds_the_users_password(config):
    assert config.url(Role.GATEWAY, 5000) == "nats://gateway:secret-of-gateway@127.0.0.1:5000"


def test_a_configuration_that_is_shown_has_no_password(config):
    assert "secret" not in repr(config)
