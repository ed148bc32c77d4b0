"""The deployment files: each is what its tool accepts, and fits the code and the others."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway.app import Gateway
from gateway.events.document import read_events_file
from gateway.settings import load_settings
from gateway.stream.server.rights import rights_of
from gateway.stream.server.roles import Role
from loadtest.devices.credentials import Issuer
from loadtest.servers.backends import NatsServer, nats_command
from support.servers import free_port, redis_server
from support.waiting import within

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "config" / "deploy"
UNITS = sorted(each.name for each in DEPLOY.glob("*.service"))
BIN = Path(sys.executable).parent
NATS_CONF = (DEPLOY / "nats.conf").read_text()
COMPOSE = YAML(typ="safe").load(DEPLOY / "compose.yaml")


def done(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=60, **options
    )


def tool(name):
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing: make debian"
        pytest.skip(f"{name} is missing: make debian")
    return found


def documents(name):
    return list(YAML(typ="safe").load_all(DEPLOY / "kubernetes" / name))


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_hardened(unit):
    analyze = tool("systemd-analyze")
    # The threshold is ten times the exposure.
    judged = done(analyze, "security", "--offline=true", "--threshold=25", DEPLOY / unit)
    assert judged.returncode == 0, judged.stdout[-300:] + judged.stderr
    # An option that is misspelt is a warning.
    verified = done(analyze, "verify", "--man=no", DEPLOY / unit).stderr
    assert [line for line in verified.splitlines() if "is not executable" not in line] == []


def test_a_unit_that_is_not_hardened_is_found_out(tmp_path):
    analyze = tool("systemd-analyze")
    lines = (DEPLOY / "tidegate.service").read_text().splitlines()
    open_ones = [each for each in lines if not each.startswith(("Protect", "Private", "Restrict"))]
    (tmp_path / "open.service").write_text("\n".join(open_ones))
    options = ("security", "--offline=true", "--threshold=25")
    assert done(analyze, *options, tmp_path / "open.service").returncode


def test_a_unit_stops_later_than_a_drain_takes():
    """A drain of a full gateway, and storing what was received."""
    (stop_s,) = re.findall(r"TimeoutStopSec=(\d+)", (DEPLOY / "tidegate.service").read_text())
    settings = load_settings(None, environment={})
    drain_s = settings.server.connections_max / settings.drain.rate_per_s
    assert int(stop_s) > drain_s + settings.drain.flush_timeout_ms / 1000


def test_the_compose_file_is_one():
    checked = done(
        BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec",
        DEPLOY / "compose.yaml",
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_the_compose_file_names_is_there():
    for name, config in COMPOSE["configs"].items():
        if name != "jwks":  # the operator's
            assert (DEPLOY / config["file"]).is_file(), name
    given = {line.partition("=")[0] for line in (DEPLOY / "example.env").read_text().splitlines()}
    text = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    asked |= {secret["environment"] for secret in COMPOSE["secrets"].values()}
    assert asked == {each for each in given if each and not each.startswith("#")}
    for name, service in COMPOSE["services"].items():
        assert {each["source"] for each in service.get("configs", ())} <= set(COMPOSE["configs"])
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), volume


def test_only_devices_come_in_from_outside():
    services = COMPOSE["services"].items()
    published = {name: port for name, service in services for port in service.get("ports", ())}
    assert set(published) == {"gateway-1", "gateway-2", "grafana"}
    assert published["grafana"].startswith("127.0.0.1:")
    assert published["gateway-1"].endswith(":8080")
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_the_secrets_of_the_settings_are_mounted():
    for file, service in (("gateway.toml", "gateway-1"), ("sink.toml", "sink-1")):
        named = set(re.findall(r"/run/secrets/([\w-]+)", (DEPLOY / file).read_text()))
        assert named <= set(COMPOSE["services"][service]["secrets"]), file


def test_the_rights_of_nats_users_are_those_of_the_code():
    found = {}
    for match in re.finditer(
        r"\{user: (\w+), password: \$(\w+)_PASSWORD, permissions: ", NATS_CONF
    ):
        permissions, _end = json.JSONDecoder().raw_decode(NATS_CONF, match.end())
        assert match[2] == match[1].upper()
        found[match[1]] = permissions
    rule_subjects = load_settings(None, environment={}).nats.embedded_rule_subjects
    assert found == {role.value: rights_of(role, rule_subjects).permissions() for role in Role}


class _Server(NatsServer):
    """One of the three servers of compose.yaml, on loopback."""

    def __init__(self, directory, name, text):
        super().__init__(directory)
        passwords = {f"{role.value.upper()}_PASSWORD": f"of-{role.value}" for role in Role}
        self._more_environment = passwords | {"SERVER_NAME": name}
        changed = {
            "0.0.0.0:4222": f"127.0.0.1:{self.port}",
            "0.0.0.0:8222": f"127.0.0.1:{self.http_port}",
            "store_dir: /data": f"store_dir: {directory / 'js'}",
        }
        for before, after in changed.items():
            assert before in text
            text = text.replace(before, after)
        directory.mkdir(exist_ok=True)
        (directory / "nats.conf").write_text(text)

    def command(self):
        return nats_command(self.directory)


def with_secrets(name, directory, **secrets):
    """The text of a settings file, whose secrets are in `directory`."""
    directory.mkdir(exist_ok=True)
    for secret, value in secrets.items():
        file = directory / secret.replace("_", "-")
        file.write_text(value)
        file.chmod(0o600)
    return (DEPLOY / name).read_text().replace("/run/secrets", str(directory))


def three_servers(directory):
    """Those of compose.yaml, with loopback addresses for their names."""
    addresses = {f"nats-{number}:6222": f"127.0.0.1:{free_port()}" for number in (1, 2, 3)}
    text = NATS_CONF
    for name, address in addresses.items():
        text = text.replace(name, address)
    return [
        _Server(
            directory / name.partition(":")[0],
            name.partition(":")[0],
            text.replace("listen: 0.0.0.0:6222", f"listen: {address}"),
        )
        for name, address in addresses.items()
    ]


async def test_a_gateway_serves_on_three_servers_of_nats_conf(tmp_path):
    """With the settings of gateway.toml, and exactly these rights, which it checks."""
    servers = three_servers(tmp_path)
    issuer = Issuer(tmp_path / "jwks.json")
    with contextlib.ExitStack() as stack:
        for server in servers:
            server.launch()
            stack.callback(server.stop)
        redis = stack.enter_context(redis_server("--requirepass", "of-redis"))
        text = with_secrets(
            "gateway.toml",
            tmp_path / "secrets",
            operators="admin operate token-of-admin-token-of-admin-token",
            tickets="0123456789abcdef0123456789abcdef",
            redis_url=f"redis://:of-redis@127.0.0.1:{redis.port}",
            nats_gateway="of-gateway",
        )
        for number, server in enumerate(servers, 1):
            text = text.replace(f"nats://nats-{number}:4222", server.url)
        text = text.replace("nats-1:8222", f"127.0.0.1:{servers[0].http_port}")
        text = text.replace("/etc/tidegate/jwks.json", str(issuer.jwks_file))
        file = tmp_path / "gateway.toml"
        file.write_text(text.replace('["ES256", "EdDSA", "RS256"]', '["HS256"]'))
        for server in servers:
            server.wait_until_up()
        overrides = {"server.port": 0, "ops.port": 0, "nats.data_dir": tmp_path / "data"}
        gateway = Gateway(load_settings(file, environment={}, overrides=overrides))
        try:
            await gateway.start()
            await within(gateway.ready())
            assert gateway.metrics.value("tidegate_durability_fsync") == 1
        finally:
            await gateway.stop()


def test_the_settings_and_the_events_can_be_used(tmp_path):
    file = tmp_path / "sink.toml"
    file.write_text(with_secrets("sink.toml", tmp_path, operators="", nats_consumers="word"))
    settings = load_settings(file, environment={})
    assert settings.nats.user == Role.CONSUMERS
    (sink,) = read_events_file(DEPLOY / "events.toml").sinks
    columns = re.findall(r"^    (\w+) ", (DEPLOY / "tables.sql").read_text(), re.MULTILINE)
    assert sorted(sink.columns) == sorted(columns)


def test_prometheus_takes_its_file():
    checked = done(tool("promtool"), "check", "config", "--syntax-only", DEPLOY / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_manifests_are_those_of_kubernetes():
    files = [DEPLOY / "kubernetes" / name for name in ("gateway.yaml", "sink.yaml")]
    checked = done(BIN / "kubernetes-validate", "--strict", *files)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_selectors_of_the_manifests_find_their_pods():
    for name in ("gateway.yaml", "sink.yaml"):
        found = documents(name)
        (deployment,) = (each for each in found if each["kind"] == "Deployment")
        pod = deployment["spec"]["template"]
        labels = pod["metadata"]["labels"].items()
        (container,) = pod["spec"]["containers"]
        ports = {each["name"] for each in container["ports"]}
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["spec"]["volumes"]}
        for each in found:
            if each["kind"] == "Service":
                assert each["spec"]["selector"].items() <= labels
                assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
            if each["kind"] in ("PodDisruptionBudget", "Deployment"):
                assert each["spec"]["selector"]["matchLabels"].items() <= labels


def test_prometheus_finds_the_services_by_the_jobs_of_the_alerts():
    (monitor,) = documents("monitoring.yaml")
    label = monitor["spec"]["jobLabel"]
    (endpoint,) = monitor["spec"]["endpoints"]
    jobs = {}
    for name in ("gateway.yaml", "sink.yaml"):
        for each in documents(name):
            if label in each["metadata"].get("labels", {}):
                jobs[each["metadata"]["labels"][label]] = {
                    port["name"] for port in each["spec"]["ports"]
                }
    assert jobs == {"tidegate": {endpoint["port"]}, "tidegate-sink": {endpoint["port"]}}


def test_the_alerts_become_a_rule_of_the_prometheus_operator():
    """By the command of the README."""
    form = re.compile(r"^\((printf .*?)\) \| kubectl apply -f -$", re.MULTILINE | re.DOTALL)
    (command,) = form.findall((DEPLOY / "README.md").read_text())
    made = done("sh", "-c", command, cwd=DEPLOY)
    rule = YAML(typ="safe").load(made.stdout)
    assert rule["kind"] == "PrometheusRule"
    alerts = YAML(typ="safe").load(ROOT / "config" / "prometheus" / "alerts.yml")
    assert rule["spec"] == alerts
