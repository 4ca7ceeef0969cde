"""Database numbers in commands.

Instances have more databases than clients may use; the others are ours. A number that is out of
range for clients is replaced by one that is out of range for every instance, which then returns the
error.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,8}")  # as the servers read one
OUTSIDE: Final = 999_999_999  # no server has as many


def confine_databases(args: Sequence[bytes], databases: int) -> Sequence[bytes]:
    """Replace database numbers that are not the client's by ``OUTSIDE``."""
    beyond = {at for at in _places(args) if _is_beyond(args[at], databases)}
    if not beyond:
        return args
    return [b"%d" % OUTSIDE if at in beyond else word for at, word in enumerate(args)]


def is_flush_syntax(options: Sequence[bytes]) -> bool:
    """Whether FLUSHDB and FLUSHALL accept these options."""
    return not options or (len(options) == 1 and options[0].lower() in (b"async", b"sync"))


def renumber_databases(
    args: Sequence[bytes], numbers: Mapping[int, int], db: int
) -> Sequence[bytes]:
    """Replace database numbers by others; numbers without a replacement get that of ``db``.

    Numbers that no client may use stay as they are.
    """
    places = [at for at in _places(args) if NUMBER.fullmatch(args[at])]
    if not places:
        return args
    changed = list(args)
    for at in places:
        if (number := int(args[at])) != OUTSIDE:
            changed[at] = b"%d" % numbers.get(number, numbers[db])
    return changed


def database_after_select(word: bytes, db: int, databases: int) -> int:
    """Return the database after a SELECT, which fails if the number is not the client's."""
    return int(word) if are_client_databases([word], databases) else db


def are_client_databases(words: Sequence[bytes], databases: int) -> bool:
    """Whether all are numbers of databases that clients have."""
    return all(NUMBER.fullmatch(word) and int(word) < databases for word in words)


def _places(args: Sequence[bytes]) -> Collection[int]:
    """Return the positions of database numbers in a command."""
    places: Collection[int] = ()
    match args[0].lower():
        case b"select":
            places = (1,)
        case b"move":
            places = (2,)
        case b"swapdb":
            places = (1, 2)
        case b"copy":
            places = [at for at in range(4, len(args)) if args[at - 1].upper() == b"DB"]
    return [at for at in places if at < len(args)]


def _is_beyond(word: bytes, databases: int) -> bool:
    return NUMBER.fullmatch(word) is not None and int(word) >= databases
