"""Two trees in turns: the options, the export of a commit, and a run of a moment."""

import subprocess
import sys

import pytest

from loadtest.benches import turns
from loadtest.errors import TargetError
from loadtest.servers.gateway import GatewayServer


def test_settings_of_one_side_or_of_both(tmp_path):
    options = turns.parse(
        ["--against", ".", "--settings", "log.level=error", "--b-settings", "admission.burst=5"]
    )
    theirs, ours, control = turns.sides_of(options, tmp_path)
    assert theirs.settings == {"log__level": "error"}
    assert ours.settings == {"log__level": "error", "admission__burst": "5"}
    assert ours.title == "this tree with admission.burst = 5"
    assert (control.settings, control.tree) == (theirs.settings, theirs.tree)


@pytest.mark.parametrize(
    "arguments", [["--turns", "0"], ["--a-settings", "burst"], ["--settings", "burst=5"]]
)
def test_an_option_that_means_nothing_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        turns.parse(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_a_commit_is_exported_and_an_unknown_one_is_named(tmp_path):
    tree = turns.export("HEAD", tmp_path / "head")
    assert (tree / "gateway" / "cli.py").exists()
    assert (tree / "clients").is_dir()
    with pytest.raises(TargetError, match="--against no-such-commit"):
        turns.export("no-such-commit", tmp_path / "none")


def test_a_gateway_of_another_tree_runs_that_tree(tmp_path):
    tree = turns.export("HEAD", tmp_path / "head")
    server = GatewayServer(tmp_path / "gateway", None, tree, jwks_file=tmp_path / "jwks.json")
    code = "import gateway, tidegate; print(gateway.__file__, tidegate.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=dict(server.environment()), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [
        str(tree / "gateway" / "__init__.py"),
        str(tree / "clients" / "python" / "tidegate" / "__init__.py"),
    ]


@pytest.mark.long
def test_a_run_of_a_moment_has_all_figures():
    command = [sys.executable, "-m", "loadtest.benches.turns", "--against", "HEAD"]
    command += ["--turns", "1", "--messages", "2000", "--knocks", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in (0, 1), done.stderr
    for figure in ("message", "message, nats-server", "refusal", "admission"):
        assert f"{figure}, change in %" in done.stdout
