"""What `check-config` opens and tries."""

import asyncio
import datetime as dt
import json
import os
from functools import partial

import nkeys
import pytest
from cryptography.hazmat.primitives import serialization

from gateway import development
from gateway.commands import checks
from gateway.settings import load_settings
from gateway.supervisor.descriptors import check_descriptors
from gateway.supervisor.errors import RedisNotStarted
from loadtest.servers.certificates import make_certificate
from support.commands import tidegate
from support.servers import free_port, mute_server, redis_server


def settings(tmp_path, **overrides):
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(
        None, environment={}, overrides={"nats.data_dir": tmp_path / "data", **dotted}
    )


def problems(tmp_path, **overrides):
    return checks.problems(settings(tmp_path, **overrides))


@pytest.fixture
def pair(tmp_path):
    return make_certificate(tmp_path / "tls")


def test_what_can_be_used_is_no_problem(tmp_path, pair):
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()
    creds = tmp_path / "user.creds"
    creds.write_text(
        "-----BEGIN NATS USER JWT-----\neyJ0.e30.x\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    jwks = development.ensure_key(tmp_path / "data")
    assert problems(tmp_path, credentials__jwks_file=jwks) == []
    found = problems(
        tmp_path,
        tls__cert_file=pair.cert, tls__key_file=pair.key,
        nats__urls=("nats://a",), nats__credentials_file=creds, nats__tls_ca_file=pair.cert,
        nats__tls_cert_file=pair.cert, nats__tls_key_file=pair.key,
    )  # fmt: skip
    assert found == []


def test_the_events_file_is_checked_whole_with_its_schemas(tmp_path):
    events = tmp_path / "events.toml"
    events.write_text("[[sinks]]")
    (found,) = problems(tmp_path, events__file=events)
    assert "did you mean sink?" in found
    events.write_text('[schemas]\nfolder = "schemas"')
    (found,) = problems(tmp_path, events__file=events)
    assert "schemas.folder" in found
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "battery.low.json").write_text("{}")
    assert problems(tmp_path, events__file=events) == []


def test_what_the_machine_lacks_for_workers_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "find_binary", find_no_redis)
    few = file_nr(tmp_path, 4_000)
    monkeypatch.setattr(checks, "check_descriptors", partial(check_descriptors, system=few))
    assert problems(tmp_path) == []
    server = {"server__connections_max": 2_000, "server__anonymous_max": 100}
    few_descriptors, no_redis = problems(tmp_path, server__workers=2, **server)
    assert "together they need 4712 file descriptors and the machine has 4000" in few_descriptors
    assert no_redis == "no redis-server"
    redis = {"cluster__redis_url": "redis://127.0.0.1"}
    assert problems(tmp_path, server__workers=2, **server, **redis) == [few_descriptors]


def find_no_redis():
    raise RedisNotStarted("no redis-server")


def file_nr(tmp_path, most):
    file = tmp_path / "file-nr"
    file.write_text(f"100\t0\t{most}\n")
    return file


def test_missing_files_are_all_named(tmp_path):
    missing = tmp_path / "missing"
    names = (
        "credentials.jwks_file", "tls.cert_file", "tls.key_file", "nats.credentials_file",
        "nats.tls_ca_file", "nats.tls_cert_file", "nats.tls_key_file",
    )  # fmt: skip
    found = problems(
        tmp_path, nats__urls=("nats://a",), **{name.replace(".", "__"): missing for name in names}
    )
    assert found == [f"{name}: {missing}: No such file or directory" for name in names]


def test_a_certificate_and_a_key_that_are_swapped_are_told_apart(tmp_path, pair):
    said = problems(tmp_path, tls__cert_file=pair.key, tls__key_file=pair.cert)
    assert [line.split(": ")[2] for line in said] == [
        "holds a private key; a certificate belongs here",
        "holds a certificate; the private key belongs here",
    ]


def test_a_key_of_another_certificate_is_named(tmp_path, pair):
    other = make_certificate(tmp_path / "other")
    (said,) = problems(tmp_path, tls__cert_file=pair.cert, tls__key_file=other.key)
    assert said == f"tls.key_file: {other.key}: is not the key of the certificate in {pair.cert}"


def test_a_passphrase_is_named_and_not_asked_for(tmp_path, pair):
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    (said,) = problems(tmp_path, tls__cert_file=pair.cert, tls__key_file=pair.key)
    assert "tls.key_file" in said
    assert "passphrase" in said


@pytest.mark.parametrize(("days", "word"), [(2, "expired on"), (-1, "is not valid before")])
def test_a_certificate_out_of_its_time_is_named(tmp_path, pair, days, word):
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    found = checks.problems(
        settings(tmp_path, tls__cert_file=pair.cert, tls__key_file=pair.key), now=now
    )
    assert [word in line for line in found] == [True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"keys": []}', "no key for any of"),
        ('{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}', "needs 32 bytes"),
    ],
)
def test_a_jwks_that_holds_no_usable_key_is_named(tmp_path, text, said):
    (tmp_path / "jwks").write_text(text)
    (found,) = problems(tmp_path, credentials__jwks_file=tmp_path / "jwks")
    assert found.startswith(f"credentials.jwks_file: {tmp_path / 'jwks'}: ")
    assert said in found


def test_credentials_of_nats_that_are_none_are_named(tmp_path):
    path = tmp_path / "user.creds"
    for text, said in (
        ("x", "no NATS user JWT"),
        (f"{checks._BEGIN_JWT}\n{checks._BEGIN_SEED}\nSUAX\n---", "seed is damaged"),
        (f"{checks._BEGIN_JWT}\n{checks._BEGIN_SEED}", "seed is damaged"),
    ):
        path.write_text(text)
        (found,) = problems(tmp_path, nats__urls=("nats://a",), nats__credentials_file=path)
        assert said in found


def test_a_data_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "data").write_text("")
    (said,) = problems(tmp_path)
    assert "is no directory" in said


def test_the_command_shows_the_settings_and_then_what_is_wrong(tmp_path):
    done = tidegate(
        "check-config",
        TIDEGATE_CREDENTIALS__JWKS_FILE=str(tmp_path / "missing"),
        TIDEGATE_NATS__DATA_DIR=str(tmp_path),
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["credentials"]["jwks_file"] == str(tmp_path / "missing")
    assert done.stderr.startswith("tidegate: credentials.jwks_file: ")


async def test_redis_is_tried_and_no_password_is_shown(tmp_path):
    with redis_server("--requirepass", "right") as redis:
        url = f"redis://:right@127.0.0.1:{redis.port}"
        good = settings(tmp_path, cluster__redis_url=url)
        assert await checks.connection_problems(good) == []
        for wrong_url in (url.replace("right", "hunter2"), redis.url):
            wrong = settings(tmp_path, cluster__redis_url=wrong_url)
            (said,) = await checks.connection_problems(wrong)
            assert said.startswith("cluster.redis_url: Redis: wrong password")
            assert "hunter2" not in said
    (said,) = await checks.connection_problems(good)
    assert said.startswith("cluster.redis_url: Redis: unreachable")


async def test_a_server_that_does_not_answer_is_said_in_time(tmp_path):
    with mute_server() as port:
        mute = settings(
            tmp_path,
            cluster__redis_url=f"redis://127.0.0.1:{port}",
            credentials__jwks_url=f"http://127.0.0.1:{port}/jwks",
        )
        found = await asyncio.wait_for(checks.connection_problems(mute), 30)
    assert [line.split(":")[0] for line in found] == ["credentials.jwks_url", "cluster.redis_url"]
    assert all("no answer" in line for line in found)


def test_a_start_with_a_wrong_password_is_refused(tmp_path):
    with redis_server("--requirepass", "right") as redis:
        done = tidegate(
            *("serve", "--port", 0, "--ops-port", free_port(), "--data-dir", tmp_path),
            TIDEGATE_CLUSTER__REDIS_URL=f"redis://:hunter2@127.0.0.1:{redis.port}",
        )
    assert done.returncode == 1
    assert "Redis: wrong password" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_the_files_of_the_ops_port_are_opened(tmp_path, pair):
    tokens = tmp_path / "operators"
    files = {"ops__tls_cert_file": pair.cert, "ops__tls_key_file": pair.key}
    (found,) = problems(tmp_path, ops__token_file=tokens, **files)
    assert found.startswith(f"ops.token_file: {tokens}: No such file")
    tokens.write_text("alice operate")
    (found,) = problems(tmp_path, ops__token_file=tokens, **files)
    assert "line 1: must be `name role token [expires]`" in found
    tokens.write_bytes(b"\xff")
    (found,) = problems(tmp_path, ops__token_file=tokens, **files)
    assert "no text" in found
    tokens.write_text("alice operate " + "x" * 24)
    assert problems(tmp_path, ops__token_file=tokens, **files) == []
    swapped = {"ops__tls_cert_file": pair.key, "ops__tls_key_file": pair.cert}
    assert len(problems(tmp_path, **swapped)) == 2
