"""Placement rules and pinned databases: how they are parsed, and what they mean.

A rule ``bull:{*}:*`` names the keys that it applies to (each ``*`` is any text, as short as
possible) and, in braces, the part of such a key that determines its instance: the key is placed as
if that part were the whole key. The first rule that matches counts; it takes precedence over a
``{hash tag}``. A rule does not match a key of which that part would be empty.

A pinned database is on one instance as a whole, whatever its keys are.
"""

import dataclasses
import re
from collections.abc import Sequence

from threadis.config import values
from threadis.errors import ConfigError

EXAMPLE = "as in bull:{*}:*"
# By product, with its default key prefix; the rules are recorded.
PRESETS: dict[str, tuple[str, ...]] = {
    "bullmq": ("bull:{*}:*",),  # a queue's keys
    "bull": ("bull:{*}:*",),
    "bee-queue": ("bq:{*}:*",),
    "dramatiq": (
        "{dramatiq}*",
    ),  # its script does not declare its queues as keys: all live together
    "rsmq": ("{rsmq}:*",),
}
Edge = tuple[int, int]  # a place in a rule's text: which literal, and how far in


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule as the literals between its ``*``, and the positions of its braces."""

    text: str
    literals: tuple[bytes, ...]
    open: Edge
    close: Edge

    def parts(self) -> tuple[list[bytes], Edge, Edge]:
        """Return what the workers need."""
        return list(self.literals), self.open, self.close

    def tail(self) -> list[bytes]:
        """Return the literals behind the closing brace, with a ``*`` between each two."""
        index, offset = self.close
        return [self.literals[index][offset:], *self.literals[index + 1 :]]


def parse(name: str, text: str) -> Rule:
    """Parse a rule; ConfigError if it is wrong."""
    for brace in "{}":
        if text.count(brace) != 1:
            raise ConfigError(
                f"{name}: {text!r} needs one pair of braces, around the part of the key that "
                f"decides, {EXAMPLE}"
            )
    head, _, rest = text.partition("{")
    inside, closed, tail = rest.partition("}")
    if not closed or not inside:
        raise ConfigError(f"{name}: {text!r} has nothing in its braces; write a * there, {EXAMPLE}")
    if "**" in head + inside + tail:
        raise ConfigError(
            f"{name}: {text!r} has two * side by side, so the end of the first one is not defined; "
            f"write text between them, {EXAMPLE}"
        )
    literals = tuple(one.encode() for one in (head + inside + tail).split("*"))
    return Rule(text, literals, _edge(head), _edge(head + inside))


def read(texts: Sequence[str]) -> list[Rule]:
    """Parse rules that were checked before."""
    return [parse("placement", text) for text in texts]


def _edge(before: str) -> Edge:
    return before.count("*"), len(before.rpartition("*")[2].encode())


def read_rules(name: str, raw: object) -> tuple[str, ...]:
    """Parse the rules of a repeated flag, or of a list in TOML."""
    found = [
        one
        for text in _texts(name, raw, 'placement = ["bull:{*}:*"]')
        for one in _expand(name, text)
    ]
    for text in found:
        parse(name, text)
        if found.count(text) > 1:
            raise ConfigError(f"{name}: {text!r} is given twice; write it once")
    return tuple(found)


def _expand(name: str, text: str) -> tuple[str, ...]:
    """Return a rule as it is; for products separated by commas, their rules."""
    if "{" in text or "}" in text:
        parts = text.split(",")
        if any(part.strip() in PRESETS for part in parts) or sum("{" in part for part in parts) > 1:
            raise ConfigError(f"{name}: {text!r} is several; give each rule by itself")
        return (text,)
    rules: dict[str, None] = {}  # Bull and BullMQ share one
    for product in text.split(","):
        if product not in PRESETS:
            raise ConfigError(
                f"{name}: {product!r} is not a known product ({', '.join(PRESETS)}), and a "
                f"rule needs one pair of braces, around the part of the key that decides, {EXAMPLE}"
            )
        rules.update(dict.fromkeys(PRESETS[product]))
    return tuple(rules)


def read_pins(name: str, raw: object) -> tuple[tuple[int, int], ...]:
    """Parse databases and their instances, from a repeated flag or a list in TOML."""
    pins: dict[int, int] = {}
    for text in _texts(name, raw, 'pin-database = ["3=0"]'):
        match = re.fullmatch(r"([0-9]{1,9})=([0-9]{1,9})", text)
        if not match:
            raise ConfigError(
                f"{name}: {text!r} is not a database and its instance; write 3=0 for database 3 "
                "on instance 0"
            )
        db, instance = int(match[1]), int(match[2])
        if db in pins:
            raise ConfigError(f"{name}: database {db} is given twice; write it once")
        pins[db] = instance
    return tuple(sorted(pins.items()))


def _texts(name: str, raw: object, example: str) -> list[str]:
    if not isinstance(raw, list | tuple):
        raise ConfigError(f"{name}: {raw!r} is not a list; write {example}")
    return [values.text(name, one) for one in raw]


def check_pins(pins: tuple[tuple[int, int], ...], databases: int, instances: int) -> None:
    """Refuse databases and instances that do not exist."""
    for db, instance in pins:
        if db >= databases:
            raise ConfigError(
                f"pin-database: there is no database {db}; the last one is {databases - 1} "
                "(--databases)"
            )
        if instance >= instances:
            raise ConfigError(
                f"pin-database: there is no instance {instance}; the last one is {instances - 1} "
                "(--instances)"
            )
