"""Patterns, written in JSON, of the JSON that a client must send. Pure.

A pattern matches an equal value, with these exceptions:

    "$any"                         any value
    "$int", "$text", "$object"     any value of that kind
    {"$save": "box"}               any value, which is called "box" from now on
    {"$is": "box"}                 the value called "box"
    {"$not": "box"}                any value but the one called "box"
    {..., "$may": ["age_ms"]}      an object that may have these members too
"""

from typing import Any, Final

from clients.conformance.errors import Mismatch, ScriptError

_KINDS: Final[dict[str, Any]] = {"$int": int, "$text": str, "$object": dict, "$any": object}


def check(pattern: Any, value: Any, names: dict[str, Any], where: str = "frame") -> None:
    """Match a value.

    Args:
        pattern: see the module docstring.
        value: what the client sent.
        names: the values saved so far; `$save` adds one.
        where: the place of the value, for the error.

    Raises:
        Mismatch: `value` does not match.
        ScriptError: the pattern names a value that was not saved.
    """
    if isinstance(pattern, str) and pattern in _KINDS:
        good = isinstance(value, _KINDS[pattern]) and not (
            pattern == "$int" and isinstance(value, bool)
        )
        _require(good, pattern, value, where)
    elif isinstance(pattern, dict) and len(pattern) == 1 and next(iter(pattern)) in _NAMED:
        ((operator, name),) = pattern.items()
        _check_named(operator, name, value, names, where)
    elif isinstance(pattern, dict):
        _require(isinstance(value, dict), pattern, value, where)
        optional = set(pattern.get("$may", ()))
        wanted = {key: part for key, part in pattern.items() if key != "$may"}
        missing, more = wanted.keys() - value.keys(), value.keys() - wanted.keys() - optional
        if missing or more:
            raise Mismatch(
                f"{where}: missing {sorted(missing)}, unexpected {sorted(more)}: {value}"
            )
        for key, part in wanted.items():
            check(part, value[key], names, f"{where}.{key}")
    elif isinstance(pattern, list):
        _require(isinstance(value, list) and len(value) == len(pattern), pattern, value, where)
        for place, part in enumerate(pattern):
            check(part, value[place], names, f"{where}[{place}]")
    else:
        same = type(pattern) is type(value) and pattern == value
        _require(same, pattern, value, where)


_NAMED: Final = ("$save", "$is", "$not")


def _check_named(operator: str, name: str, value: Any, names: dict[str, Any], where: str) -> None:
    if operator == "$save":
        names[name] = value
        return
    if name not in names:
        raise ScriptError(f"{where}: nothing is called {name!r}")
    if (names[name] == value) is not (operator == "$is"):
        word = "" if operator == "$is" else "anything but "
        raise Mismatch(f"{where}: expected {word}{names[name]!r} ({name}), got {value!r}")


def _require(good: bool, pattern: Any, value: Any, where: str) -> None:
    if not good:
        raise Mismatch(f"{where}: expected {pattern!r}, got {value!r}")


def fill(template: Any, names: dict[str, Any]) -> Any:
    """A template with every `{"$is": name}` replaced by that value."""
    if isinstance(template, dict):
        if template.keys() == {"$is"}:
            return names[template["$is"]]
        return {key: fill(part, names) for key, part in template.items()}
    if isinstance(template, list):
        return [fill(part, names) for part in template]
    return template
