"""Where settings come from: defaults, file, environment and command line, and secrets in files."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from gateway.settings.errors import SettingsError
from gateway.settings.model import Settings

ENVIRONMENT_PREFIX: Final = "TIDEGATE_"
NOT_SETTINGS: Final = frozenset(
    {
        "TIDEGATE_OPS_TOKEN",
        "TIDEGATE_OPS_TOKEN_FILE",
        "TIDEGATE_SINK_DATABASE_URL",
        "TIDEGATE_TEST_POSTGRES_URL",
    }
)
"""Variables with that prefix that other commands and the tests read."""

_SECRETS: Final = {
    ("nats", "password"),
    ("nats", "token"),
    ("cluster", "redis_url"),
    ("admission", "ticket_secrets"),
}
_SECRET_LISTS: Final = {"ticket_secrets"}
"""Read from a file with one secret a line, newest first."""

Tree = dict[str, Any]


def secrets_of(settings: Settings) -> list[str]:
    """Every secret that the settings hold, and the passwords within URLs."""
    nats, cluster = settings.nats, settings.cluster
    hidden = [nats.password, nats.token, *settings.admission.ticket_secrets]
    found = [secret.get_secret_value() for secret in hidden if secret is not None]
    urls = [*nats.urls, settings.credentials.jwks_url or ""]
    if cluster.redis_url is not None:
        urls.append(cluster.redis_url.get_secret_value())
    for url in urls:
        user_info = urlsplit(url).netloc.rpartition("@")[0]
        found += [user_info, user_info.partition(":")[2]]
    return [secret for secret in found if secret]


def load_settings(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read and validate the settings.

    Args:
        file: TOML file.
        environment: variables; those that begin with TIDEGATE_ must all be settings.
        overrides: values of the command line by dotted key, e.g. `{"server.port": 0}`.

    Raises:
        SettingsError: naming every offending key.
    """
    tree: Tree = {}
    if file is not None:
        try:
            tree = tomllib.loads(file.read_text())
        except OSError as exc:
            raise SettingsError(f"{file}: {exc.strerror}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{file}: {exc}") from exc
    environment = os.environ if environment is None else environment
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _put(tree, path, _from_text(path, value), name)
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tree, key.split("."), value, key)
    _read_secret_files(tree)
    try:
        return Settings.model_validate(tree)
    except ValidationError as exc:
        raise SettingsError("\n".join(_explain(error) for error in exc.errors())) from None


def _put(tree: Tree, path: list[str], value: Any, name: str) -> None:
    for section in path[:-1]:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {section} is not a section")
    tree[path[-1]] = value


def _from_text(path: list[str], text: str) -> Any:
    """A list is written with commas; everything else pydantic reads from its text."""
    model: Any = Settings
    for name in path:
        field = getattr(model, "model_fields", {}).get(name)
        model = field.annotation if field is not None else None
    if getattr(model, "__origin__", None) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _read_secret_files(tree: Tree) -> None:
    for section, name in sorted(_SECRETS):
        values = tree.get(section)
        if not isinstance(values, dict) or f"{name}_file" not in values:
            continue
        path = values.pop(f"{name}_file")
        if name in values:
            raise SettingsError(f"{section}.{name} and {section}.{name}_file exclude each other")
        try:
            text = Path(path).read_text().strip()
            values[name] = text.split() if name in _SECRET_LISTS else text
        except (OSError, TypeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{section}.{name}_file: {exc}") from exc


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        if error["type"].startswith(("less_than", "greater_than")):  # never a secret
            message += f", not {error['input']}"
        return f"{key}: {message}" if key else message
    *section, name = error["loc"]
    model: Any = Settings
    for part in section:
        model = model.model_fields[part].annotation
    close = difflib.get_close_matches(str(name), model.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {'.'.join([*map(str, section), close[0]])}?" if close else ""
    return f"{key}: unknown setting{hint}"
