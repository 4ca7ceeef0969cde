"""Parsers of single values, from a flag's text or from TOML, in redis-server's syntax.

A parser takes the knob's name and the raw value, and returns the value, or raises ConfigError with
the knob's name and the fix.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from threadis import own_names
from threadis.errors import ConfigError
from threadis.system.machine import parse_cpu_list

T = TypeVar("T")
Reader = Callable[[str, object], T]

# redis-server's units: "k" counts in thousands, "kb" in 1024s
MEMORY_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}
MEMORY_LIMIT = 2**64 - 1  # bytes; what the servers keep it in


def text(name: str, raw: object) -> str:
    """Parse any text on one line."""
    if not isinstance(raw, str):
        raise ConfigError(f"{name}: {raw!r} is not text; put it in quotes")
    if "\n" in raw or "\r" in raw or "\0" in raw:
        raise ConfigError(f"{name}: line breaks and NUL are not allowed; write it on one line")
    try:
        raw.encode()
    except UnicodeEncodeError:  # bytes of the command line that are no text
        raise ConfigError(f"{name}: {raw!r} is not UTF-8; use another name") from None
    return raw


def filled(what: str) -> Reader[str]:
    """Parse a text that is not empty, such as a path."""

    def read(name: str, raw: object) -> str:
        value = text(name, raw)
        if not value:
            raise ConfigError(f"{name}: the {what} is empty; set one, or remove {name}")
        return value

    return read


path = filled("path")


def yes_or_no(name: str, raw: object) -> bool:
    """Parse ``yes`` or ``no``, as in redis-server; in TOML also ``true`` and ``false``."""
    if isinstance(raw, bool):
        return raw
    answers = {"yes": True, "no": False}
    if not isinstance(raw, str) or raw.lower() not in answers:
        raise ConfigError(f"{name}: {raw!r} is neither yes nor no")
    return answers[raw.lower()]


def number(low: int, high: int) -> Reader[int]:
    """Parse an integer from ``low`` to ``high``."""

    def read(name: str, raw: object) -> int:
        value = raw
        if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,20}", raw):
            value = int(raw)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{name}: {raw!r} is not a number from {low} to {high}")
        return value

    return read


def auto_or_number(low: int, high: int) -> Reader[int | None]:
    """Parse ``auto`` (None), or an integer from ``low`` to ``high``."""
    read_number = number(low, high)

    def read(name: str, raw: object) -> int | None:
        if isinstance(raw, str) and raw.lower() == "auto":
            return None
        try:
            return read_number(name, raw)
        except ConfigError:
            raise ConfigError(f"{name}: {raw!r} is neither auto nor from {low} to {high}") from None

    return read


def pinning(name: str, raw: object) -> tuple[int, ...] | None:
    """Parse ``auto`` (None), ``no`` (none), or CPUs as 0-3,8; in TOML a list."""
    if isinstance(raw, list):
        raw = ",".join(map(str, raw))
    words = re.sub(r"\s*,\s*", ",", str(raw).strip().lower())
    if words in ("auto", "no") and not isinstance(raw, bool):
        return None if words == "auto" else ()
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", words):
        raise ConfigError(f"{name}: {raw!r} is neither auto, no, nor a list of CPUs as 0-3,8")
    for first, _, last in (part.partition("-") for part in words.split(",")):
        if last and int(last) < int(first):
            raise ConfigError(f"{name}: {first}-{last} is no range; write {last}-{first}")
    return tuple(dict.fromkeys(parse_cpu_list(words)))


def permissions(name: str, raw: object) -> int:
    """Parse a file's mode in octal, like ``unixsocketperm``; 0: by umask."""
    if isinstance(raw, bool) or not re.fullmatch(r"0?[0-7]{1,3}", str(raw)):
        raise ConfigError(f"{name}: {raw!r} is not a mode in octal; write it as in 770")
    return int(str(raw), 8)


def memory(name: str, raw: object) -> int:
    """Parse bytes, like redis-server: 100mb, 8gb, 1k (1000), 1kb (1024), or plain bytes."""
    found = re.fullmatch(r"([0-9]{1,20})([a-z]*)", str(raw).strip().lower())
    if isinstance(raw, bool) or not found or found[2] not in MEMORY_UNITS:
        raise ConfigError(f"{name}: {raw!r} is not a size; write bytes, or a unit as in 100mb, 8gb")
    value = int(found[1]) * MEMORY_UNITS[found[2]]
    if value > MEMORY_LIMIT:
        raise ConfigError(f"{name}: {raw!r} is more than 64 bits hold; write a smaller size")
    return value


def one_of(*choices: str) -> Reader[str]:
    """Parse one of the given words."""

    def read(name: str, raw: object) -> str:
        if not isinstance(raw, str) or raw.lower() not in choices:
            raise ConfigError(f"{name}: {raw!r} is not one of: {', '.join(choices)}")
        return raw.lower()

    return read


def save_points(name: str, raw: object) -> str:
    """Parse pairs of seconds and changes, "3600 1 300 100"; an empty text means never."""
    words = text(name, raw).split()
    if words == ['""']:  # the quotes are part of the text, as often in TOML or a shell
        words = []
    if len(words) % 2 or any(not re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        raise ConfigError(
            f'{name}: {raw!r} is not pairs of seconds and changes, as in "3600 1 300 100"; '
            'write "" to never save'
        )
    if any(int(seconds) < 1 for seconds in words[::2]):
        raise ConfigError(f"{name}: {raw!r} saves every 0 seconds; write at least 1")
    return " ".join(words)


def addresses(name: str, raw: object) -> str:
    """Parse addresses separated by spaces, as redis-server's ``bind``, or a list in TOML."""
    given = raw if isinstance(raw, list) else [raw]
    words = [word for one in given for word in text(name, one).split()]
    if not words:
        raise ConfigError(f"{name}: no address; write 127.0.0.1, or * for every interface")
    if any("," in word for word in words):
        raise ConfigError(f"{name}: separate the addresses with spaces, not with commas")
    return " ".join(words)


def user_lines(name: str, raw: object) -> tuple[str, ...]:
    """Parse users as in ACL files: a name and its rules; ``user`` in front is optional."""
    if not isinstance(raw, list | tuple):
        raise ConfigError(
            f"{name}: {raw!r} is not a list; write users = ['bob on #DIGEST ~* +@all']"
        )
    found: dict[str, str] = {}
    for one in raw:
        line = text(name, one).strip().removeprefix("user ").strip()
        user = line.split(" ")[0]
        if not user:
            raise ConfigError(f"{name}: {one!r} does not begin with a user's name")
        if own_names.is_ours(user.encode()):
            raise ConfigError(f"{name}: {user}: names that begin with threadis- are reserved")
        if user in found:
            raise ConfigError(f"{name}: {user} is named twice; write all its rules in one line")
        found[user] = line
    return tuple(found.values())
