import tomllib
from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, load_settings

ROOT = Path(__file__).parents[1]


def load(text="", environment=None, overrides=None, tmp_path=None):
    file = None
    if text:
        file = tmp_path / "t.toml"
        file.write_text(text)
    return load_settings(file, environment=environment or {}, overrides=overrides)


def test_priority_rises_from_file_to_environment_to_command_line(tmp_path):
    text = "[server]\nport = 1\nbacklog = 1\naccept_budget = 1"
    environment = {"TIDEGATE_SERVER__PORT": "2", "TIDEGATE_SERVER__BACKLOG": "2", "OTHER": "x"}
    settings = load(text, environment, {"server.port": 3, "ops.port": None}, tmp_path)
    assert (settings.server.port, settings.server.backlog, settings.server.accept_budget) == (
        3, 2, 1,
    )  # fmt: skip
    assert settings.ops.port == 9090


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[servr]\nport = 1", "servr: unknown setting; did you mean server?"),
        ("[server]\nprot = 1", "server.prot: unknown setting; did you mean server.port?"),
        ("[keepalive]\ninterval_s = 30", "did you mean keepalive.interval_ms?"),
        (
            "[server]\nport = 70000",
            "server.port: Input should be less than or equal to 65535, not 70000",
        ),
        ("[server]\nworkers = 0", "server.workers: must be a whole number from 1 on"),
        ("[server]\nworkers = -2", "server.workers: must be a whole number from 1 on"),
        ("[server]\nworkers = true", "server.workers: must be a whole number from 1 on"),
        (
            '[server]\nworkers = "all"',
            'from 1 on, or "auto"',
        ),
        ("[server]\nworkers = 26", "workers x lanes must be at most 25"),
        ("[server]\nworkers = 7\n[publish]\nlanes = 4", "workers x lanes must be at most 25"),
        ('[server]\nport = "high"', "server.port"),
        ('[keepalive]\ninterval_ms = "30s"', "keepalive.interval_ms"),
        (
            "[keepalive]\ninterval_ms = 10",
            "keepalive: timeout_ms is 20000, above interval_ms, which is 10",
        ),
        (
            "[limits]\nframe_bytes = 1024",
            "message_bytes is 65536, above frame_bytes, which is 1024",
        ),
        ('[tls]\ncert_file = "x"', "tls: cert_file and key_file go together"),
        ('[ops]\ntls_key_file = "x"', "ops: tls_cert_file and tls_key_file go together"),
        ('[credentials]\njwks_file = "a"\njwks_url = "b"', "exclude each other"),
        ("[credentials]\nalgorithms = []", "algorithms is empty"),
        ('[credentials]\nalgorithms = ["none"]', "credentials.algorithms"),
        ('[nats]\nuser = "u"', "user and password go together"),
        ('[nats]\ntoken = "t"', "token is for the server of urls"),
        ('[nats]\nurls = ["http://x"]', "urls must begin with"),
        ('[nats]\nurls = ["nats://a", "nats://x:42222222"]', "urls: the port must be a number"),
        ('[nats]\nurls = ["tls://x:port"]', "urls: the port must be a number"),
        ('[nats]\nurls = ["nats://x:0"]', "urls: the port must be a number"),
        ('[nats]\nurls = ["nats://:4222"]', "urls: a host is missing"),
        ('[cluster]\nredis_url = "redis://x:99999"', "redis_url: the port must be a number"),
        ('[cluster]\nredis_url = "rediss://:6379"', "redis_url: a host is missing"),
        ('[nats]\nurls=["nats://x"]\ntoken="t"\nuser="u"\npassword="p"', "exclude each other"),
        ("[stream]\nreplicas = 3", "replicas is 3, but without nats.urls there is one nats-server"),
        ('[nats]\nembedded_rule_subjects = ["events.x"]', "'events.x' must be tokens"),
        ('[nats]\nembedded_rule_subjects = [">"]', "'>' must be tokens"),
        ('[nats]\nembedded_rule_subjects = ["a..b"]', "'a..b' must be tokens"),
        ('[nats]\nembedded_rule_subjects = ["$JS.API.>"]', "'$JS.API.>' must be tokens"),
        (
            "[stream.events]\nmax_age_s = 5",
            "events.max_age_s is 5, shorter than duplicate_window_s",
        ),
        ("[stream]\nreplicas = 9", "stream.replicas"),
        (
            "[session]\ncredit_initial = 512",
            "credit_initial is 512, above credit_max, which is 256",
        ),
        (
            "[publish]\npending_bytes = 1000",
            "is 262144, above publish.pending_bytes, which is 1000",
        ),
        ("[publish]\nbatch_bytes = 2048", "is 65536, above publish.batch_bytes, which is 2048"),
        ("[trace]\nsample_ratio = 2.0", "trace.sample_ratio"),
        ("[trace]\nsampled_per_s = 0", "trace.sampled_per_s"),
        ("[trace]\nqueue_spans = 10", "trace.queue_spans"),
        ('[trace]\nservice_name = "a b"', "trace.service_name"),
        ('[trace]\nendpoint = "127.0.0.1:4318"', "endpoint must begin with http:// or https://"),
        ('[trace]\nendpoint = "http://:4318"', "endpoint: a host is missing"),
        ('[trace]\nendpoint = "http://a:99999"', "endpoint: the port must be a number"),
        ('[trace]\nendpoint = "http://u:p@a"', "secrets go to headers_file"),
        ('[trace]\nendpoint = "http://a/?key=1"', "secrets go to headers_file"),
        ('[trace]\nheaders_file = "x"', "headers_file is for the collector of endpoint"),
        ("[trace]\nratio = 0.1", "trace.ratio"),
        ("server = 5", "server"),
        ("not toml", "t.toml"),
    ],
)
def test_every_offence_names_its_key(tmp_path, text, named):
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path=tmp_path)
    assert named in str(caught.value)


def test_two_listeners_on_one_port_are_named():
    with pytest.raises(
        SettingsError, match=r"^ops\.port: 9000 is the port of server\.port already$"
    ):
        load(overrides={"server.port": 9000, "ops.port": 9000})
    load(overrides={"server.port": 0, "ops.port": 0})
    load(overrides={"server.host": "10.0.0.1", "server.port": 9000, "ops.port": 9000})
    everywhere = {"server.host": "0.0.0.0", "server.port": 9000, "nats.embedded_port": 9000}
    with pytest.raises(SettingsError, match=r"^nats\.embedded_port: 9000"):
        load(overrides=everywhere)
    load(overrides={**everywhere, "nats.urls": ("nats://a",)})


def test_all_offences_are_told_at_once(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load("[server]\nport = -1\n[ops]\nport = -1\nx = 1", tmp_path=tmp_path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "value"), [("TIDEGATE_SERVER__PRT", "1"), ("TIDEGATE_SERVER__PORT", "x")]
)
def test_the_environment_is_as_strict(name, value):
    with pytest.raises(SettingsError, match="server"):
        load(environment={name: value})


def test_lists_in_the_environment_are_written_with_commas():
    environment = {"TIDEGATE_NATS__URLS": "nats://a:1, nats://b:2"}
    assert load(environment=environment).nats.urls == ("nats://a:1", "nats://b:2")


def test_secrets_come_from_files_and_are_never_shown(tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    overrides = {"nats.urls": ("nats://a",), "nats.user": "u"}
    overrides["nats.password_file"] = str(tmp_path / "secret")
    settings = load(overrides=overrides)
    assert settings.nats.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    with pytest.raises(SettingsError, match="exclude each other"):
        load(overrides={**overrides, "nats.password": "x"})
    with pytest.raises(SettingsError, match="password_file"):
        load(overrides={**overrides, "nats.password_file": str(tmp_path / "missing")})


def test_a_secret_that_is_a_number_is_not_quoted(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load('[nats]\nurls = ["nats://a"]\nuser = "u"\npassword = 12345', tmp_path=tmp_path)
    assert "nats.password" in str(caught.value)
    assert "12345" not in str(caught.value)


def test_errors_do_not_quote_secrets():
    with pytest.raises(SettingsError) as caught:
        load(environment={"TIDEGATE_NATS__PASSWORD": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        load_settings(tmp_path / "missing.toml", environment={})


def _documented(text):
    """Keys of the example file: those in force and those commented out as `# key = value`."""
    section, keys = "", {}
    for line in text.splitlines():
        bare = line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        if line.startswith("["):
            section = line.strip("[]")
        elif " = " in bare and bare.split(" = ")[0].replace("_", "").isalnum():
            name, value = bare.split(" = ", 1)
            keys[f"{section}.{name}"] = tomllib.loads(f"x = {value}")["x"]
    return keys


def _defaults(model, prefix=""):
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from _defaults(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field


def test_the_example_file_has_every_setting_with_its_default():
    text = (ROOT / "config" / "gateway.toml").read_text()
    documented = _documented(text)
    for secret in ("nats.password", "nats.token", "cluster.redis_url", "admission.ticket_secrets"):
        assert documented.pop(f"{secret}_file")
        documented[secret] = [] if secret == "admission.ticket_secrets" else None
    defaults = {name: value for name, value, _ in _defaults(Settings())}
    assert set(documented) == set(defaults)
    for name, value in defaults.items():
        if value is not None:
            shown = documented[name]
            plain = list(value) if isinstance(value, tuple) else value
            assert shown == (str(plain) if isinstance(plain, Path) else plain), name


def test_the_example_file_is_valid_and_changes_nothing():
    assert load_settings(ROOT / "config" / "gateway.toml", environment={}) == Settings()


def test_workers_are_a_number_or_one_a_core_within_what_the_stream_takes(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    assert load().worker_count == 1
    assert load(environment={"TIDEGATE_SERVER__WORKERS": "3"}).worker_count == 3
    assert load(overrides={"server.workers": "auto"}).worker_count == 25
    lanes = {"server.workers": "auto", "publish.lanes": 24}
    assert load(overrides=lanes).worker_count == 1
