"""A plain install is the client alone."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

GUARD = """
import importlib.abc, sys
ALLOWED = {"clients", "gateway", "websockets", "msgspec"}
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Guard())
import clients
loaded = [name for name in sys.modules if name.startswith("gateway.")]
print(sorted(loaded))
"""


def test_importing_the_client_needs_only_what_a_plain_install_brings():
    done = subprocess.run(
        [sys.executable, "-c", GUARD], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == str(
        [
            "gateway.session",
            "gateway.session.depth",
            "gateway.session.frames",
            "gateway.session.grammar",
        ]
    )


def test_a_plain_install_brings_a_websocket_library_and_a_codec():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names == {"msgspec", "websockets"}


def test_the_command_without_its_extra_says_what_to_install():
    code = 'import sys; sys.modules["typer"] = None; import gateway.cli'
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert "pip install 'tidegate[gateway]'" in done.stderr
