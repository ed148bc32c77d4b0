"""`python -m tidegate`: its options, its exit codes, and where a credential may come from."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.children import spawned
from support.scripted import answer, friendly
from support.socket_gateway import closed_port, on_sockets
from support.waiting import within
from tidegate.__main__ import CREDENTIAL_VARIABLE, main
from tidegate.outbox import Outbox
from tidegate.testing import unsigned_jwt

TOKEN = unsigned_jwt(sub="veh-1")
NEVER_USED = "ws://127.0.0.1:1/v1/device"


@pytest.fixture
def in_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CREDENTIAL_VARIABLE, raising=False)
    return tmp_path


def command(*arguments):
    return [sys.executable, "-m", "tidegate", *map(str, arguments)]


async def run(*arguments, lines="", cwd=None, **environment):
    """The command in a process of its own: its exit code, stdout and stderr."""

    def to_its_end():
        return subprocess.run(
            command(*arguments),
            input=lines,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=cwd,
            env={n: v for n, v in os.environ.items() if n != CREDENTIAL_VARIABLE} | environment,
        )

    done = await within(asyncio.to_thread(to_its_end))
    return done.returncode, done.stdout, done.stderr


async def test_messages_are_sent_with_the_credential_of_the_environment(tmp_path):
    async with on_sockets(friendly) as gateway:
        code, out, err = await run(
            "veh-1", "--url", gateway.url,
            lines='{"type":"t","data":1}\n', cwd=tmp_path, **{CREDENTIAL_VARIABLE: TOKEN},
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert [json.loads(line) for line in out.splitlines()] == [{"queued": 1}, {"ack": 1}]
        assert gateway.tokens == [TOKEN]
    assert (tmp_path / "veh-1.outbox").exists(), "the default outbox is named for the device"


async def test_the_credential_file_is_read_and_the_outbox_is_the_one_named(tmp_path):
    (tmp_path / "jwt").write_text(f"{TOKEN}\n")
    async with on_sockets(friendly) as gateway:
        code, _out, err = await run(
            "veh-1", "--url", gateway.url, "--credential-file", tmp_path / "jwt",
            "--outbox", tmp_path / "box", lines='{"type":"t","data":1}\n', cwd=tmp_path,
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert gateway.tokens == [TOKEN]
    Outbox(tmp_path / "box").close()
    assert not (tmp_path / "veh-1.outbox").exists()


async def test_a_credential_that_is_refused_is_exit_code_1_and_not_repeated(tmp_path):
    refusal = answer(401, {"error": "credential", "detail": f"do not know {TOKEN}"})
    async with on_sockets(refusal) as gateway:
        code, out, err = await run(
            "veh-1", "--url", gateway.url,
            lines='{"type":"t","data":1}\n', cwd=tmp_path, **{CREDENTIAL_VARIABLE: TOKEN},
        )  # fmt: skip
    assert code == 1
    assert "do not know <credential>" in err
    assert "Traceback" not in err
    assert TOKEN not in out + err


async def test_an_address_that_is_no_endpoint_is_exit_code_1(tmp_path):
    async with on_sockets(answer(404, {"error": "not_found"})) as gateway:
        code, _out, err = await run(
            "veh-1", "--url", gateway.url,
            lines='{"type":"t","data":1}\n', cwd=tmp_path, **{CREDENTIAL_VARIABLE: TOKEN},
        )  # fmt: skip
    assert code == 1
    assert "not_found" in err


def test_the_running_command_shows_no_credential_to_other_users(tmp_path):
    environment = os.environ | {CREDENTIAL_VARIABLE: TOKEN}
    with spawned(
        command("veh-1", "--url", closed_port(), "--outbox", tmp_path / "box"),
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as process:  # fmt: skip
        process.stdin.write('{"type":"t","data":1}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"queued": 1}
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        assert "tidegate veh-1" in shown
        assert TOKEN not in shown
        process.terminate()
        assert process.wait(30) == 128 + 15
        assert TOKEN not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["veh 1", "--url", NEVER_USED], "DEVICE must match"),
        (["veh-1", "--url", NEVER_USED, "--ca", "missing.pem"],
         "--ca missing.pem: No such file or directory"),
        (["veh-1", "--url", NEVER_USED, "--ca", "nonsense.pem"], "--ca nonsense.pem: "),
        (["veh-1", "--url", NEVER_USED, "--ca", "empty"], "--ca empty: "),
        (["veh-1", "--url", NEVER_USED, "--ca", "."], "--ca .: "),
        (["veh-1", "--url", "http://x"], "'http://x' is no address of a gateway"),
        (["veh-1", "--url", NEVER_USED, "--answer", "a b"], "--answer a b: a type is"),
        (["veh-1", "--url", NEVER_USED, "--answer", "a={"], "--answer a={: Expecting"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_exit_code_2(in_directory, monkeypatch, capsys,
                                                      arguments, said):  # fmt: skip
    monkeypatch.setenv(CREDENTIAL_VARIABLE, TOKEN)
    (in_directory / "nonsense.pem").write_bytes(b"no certificate\xff")
    (in_directory / "empty").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tidegate: {said}")
    assert error.count("\n") == 1
    assert not list(in_directory.glob("*.outbox")), "nothing was opened"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], f"no credential: give --credential-file or set {CREDENTIAL_VARIABLE}"),
        (["--credential-file", "missing"], "--credential-file missing: No such file or directory"),
        (["--credential-file", "."], "--credential-file .: Is a directory"),
        (["--credential-file", "binary"], "--credential-file binary: it is not ASCII text"),
        (["--credential-file", "empty"], "the credential is empty"),
        (["--credential-file", "two-lines"], "the credential holds '\\n' at 2"),
    ],
)
def test_a_missing_or_useless_credential_is_exit_code_2(in_directory, capsys, options, said):
    (in_directory / "binary").write_bytes(b"\xff\xfe")
    (in_directory / "empty").write_text("\n")
    (in_directory / "two-lines").write_text("ab\ncd\n")
    assert main(["veh-1", "--url", NEVER_USED, *options]) == 2
    assert capsys.readouterr().err.startswith(f"tidegate: {said}")


@pytest.mark.parametrize("option", [["--credential", TOKEN], [f"--credential={TOKEN}"],
                                    ["--credential"]])  # fmt: skip
def test_a_credential_on_the_command_line_is_refused_and_not_repeated(in_directory, monkeypatch,
                                                                      capsys, option):  # fmt: skip
    monkeypatch.setenv(CREDENTIAL_VARIABLE, TOKEN)
    assert main(["veh-1", "--url", NEVER_USED, *option]) == 2
    printed = capsys.readouterr()
    assert "can read a credential on a command line" in printed.err
    assert TOKEN not in printed.err + printed.out


@pytest.mark.parametrize("arguments", [[], ["veh-1"], ["veh-1", "--url"],
                                       ["veh-1", "--url", NEVER_USED, "--bogus"]])  # fmt: skip
def test_a_wrong_command_line_is_exit_code_2_and_shows_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m tidegate" in capsys.readouterr().err


def test_help_names_every_option_but_none_for_a_credential(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--url",
        "--credential-file",
        "--outbox",
        "--ca",
        "--answer",
        CREDENTIAL_VARIABLE,
    ):
        assert option in text
    assert "--credential " not in text
