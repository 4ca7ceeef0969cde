"""client-output-buffer-limit: applied here, because the instances have lanes instead of clients."""

import re
from typing import Final

from threadis import _core

NAME: Final = "client-output-buffer-limit"
UNITS: Final = {
    "": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3,
}  # fmt: skip
# Hard and soft limit in bytes, seconds over the soft one: the servers' own defaults.
DEFAULTS: Final = {
    "normal": (0, 0, 0),
    "replica": (256 * 1024**2, 64 * 1024**2, 60),
    "pubsub": (32 * 1024**2, 8 * 1024**2, 60),
}


class OutputLimits:
    """The limits of each class of clients; there are no replicas."""

    def __init__(self, core: _core.Proxy, initial: str) -> None:
        self._core = core
        self._limits = dict(DEFAULTS)
        self._apply({**DEFAULTS, **parse(initial.split())})

    def shown(self, instance_says: str) -> str:
        """Return what CONFIG GET shows, with the names and the order of an instance."""
        words = instance_says.split()
        return " ".join(
            " ".join(map(str, (name, *self._limits[_class(name)]))) for name in words[::4]
        )

    def set(self, value: str) -> None:
        """Change what is named; ValueError with the server's text."""
        self._apply(parse(value.split()))

    def _apply(self, limits: dict[str, tuple[int, int, int]]) -> None:
        self._limits.update(limits)
        for name in ("normal", "pubsub"):
            self._core.set_output_limit(name, *self._limits[name])


def parse(words: list[str]) -> dict[str, tuple[int, int, int]]:
    """Parse ``class hard soft seconds …``; ValueError with the server's text."""
    if len(words) % 4:
        raise ValueError("Wrong number of arguments in buffer limit configuration.")
    limits = {}
    for name, hard, soft, seconds in zip(*(iter(words),) * 4, strict=True):
        if _class(name) not in DEFAULTS:
            raise ValueError("Invalid client class specified in buffer limit configuration.")
        try:
            sizes = _bytes(hard), _bytes(soft)
        except ValueError as error:
            raise _unreadable() from error
        if not re.fullmatch(r"\+?[0-9]{1,18}", seconds):
            raise _unreadable()
        limits[_class(name)] = (*sizes, int(seconds))
    return limits


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,18})([a-z]*)", text.lower())
    if not found or found[2] not in UNITS:
        raise ValueError(text)
    return int(found[1]) * UNITS[found[2]]


def _unreadable() -> ValueError:
    return ValueError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")


def _class(name: str) -> str:
    lower = name.lower()
    return "replica" if lower == "slave" else lower
