"""Install a lock file, and our own distributions, into the environment of this interpreter.

Usage: python install.py LOCK [DIRECTORY ...]

pip spends most of its time on the pages of the package hosts, which name each wheel of each
release (162,000 for the packages of `dev.txt` in November 2026). uv needs a fraction of that, and
checks the same hashes. uv does not read the settings of pip, by which a company names its own
package hosts, so they are handed over. Where uv cannot be had, or fails, pip does it all.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

INSTALLER: Final = Path(__file__).with_name("installer.txt")
PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
HANDED_OVER: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
}
"""Settings of pip, and the variables by which uv takes the same."""


def settings(listed: str) -> dict[str, str]:
    """The variables for uv, of what `pip config list` says. What stands further down wins."""
    found = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        variable = HANDED_OVER.get(name.rpartition(".")[2])
        if variable is not None:
            between = "," if variable == "UV_FIND_LINKS" else " "
            found[variable] = between.join(value.strip("'\"").replace("\\n", " ").split())
    return found


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env)


def with_uv(lock: str, directories: Sequence[str]) -> None:
    """
    Raises:
        subprocess.CalledProcessError: pip cannot install uv, or uv has failed and said why.
    """
    run(*PIP, "install", "--require-hashes", "-r", INSTALLER)
    listed = subprocess.run(
        [*PIP, "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    # A package may be on several hosts; its hash says which file is meant.
    environ = {"UV_INDEX_STRATEGY": "unsafe-best-match", **settings(listed), **os.environ}
    uv = (sys.executable, "-m", "uv", "--quiet", "pip", "install", "--python", sys.executable)
    run(*uv, "--require-hashes", "-r", lock, env=environ)
    if directories:
        run(*uv, "--no-deps", "--no-build-isolation", *editable(directories), env=environ)


def with_pip(lock: str, directories: Sequence[str]) -> None:
    """
    Raises:
        subprocess.CalledProcessError: pip has failed, and said why.
    """
    run(*PIP, "install", "--require-hashes", "-r", lock)
    if directories:
        run(*PIP, "install", "--no-deps", "--no-build-isolation", *editable(directories))


def editable(directories: Sequence[str]) -> list[str]:
    return [argument for directory in directories for argument in ("-e", directory)]


def main(lock: str, *directories: str) -> int:
    try:
        with_uv(lock, directories)
    except subprocess.CalledProcessError:
        print("uv cannot do it here; pip does it, which takes longer", file=sys.stderr)
        try:
            with_pip(lock, directories)
        except subprocess.CalledProcessError as exc:
            return exc.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
