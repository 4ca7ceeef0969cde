"""The keys that SORT reads: BY and GET patterns name one for each element."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from threadis.coordinator.base.command_table import CommandTable, KeyAccess, ParsedCommand
from threadis.coordinator.base.offload import offload
from threadis.coordinator.instances.links import value
from threadis.coordinator.keys.own_reads import OwnReads
from threadis.coordinator.lua.script_call import ScriptCall

# What a script names that may SORT by other keys, or get them.
SORTING: Final = re.compile(rb"""['"]sort(_ro)?['"]""", re.IGNORECASE)
SORTS: Final = frozenset((b"SORT", b"SORT_RO"))
LOOKS: Final = frozenset((b"BY", b"GET"))
LONGEST: Final = max(map(len, SORTS))
OPTIONS: Final = re.compile(rb"""['"](by|get)['"]""", re.IGNORECASE)


def reads_other_keys(call: ScriptCall) -> bool:
    """Whether a script may read keys that only SORT's patterns name: the literals are in its text,
    or in its arguments.
    """
    args = {word.upper() for word in call.words[3:] if len(word) <= LONGEST}
    sorts = SORTING.search(call.body) or not args.isdisjoint(SORTS)
    return bool(sorts and (OPTIONS.search(call.body) or not args.isdisjoint(LOOKS)))


def patterns(args: Sequence[bytes]) -> list[bytes]:
    """Return SORT's patterns that name keys; other commands have none."""
    if args[0].upper() not in SORTS:
        return []
    found, at = [], 2
    while at < len(args):
        word = args[at].upper()
        if word in (b"BY", b"GET") and at + 1 < len(args):
            if b"*" in args[at + 1]:
                found.append(args[at + 1])
            at += 2
        else:
            at += {b"LIMIT": 3, b"STORE": 2}.get(word, 1)
    return found


def store_key(args: Sequence[bytes]) -> bytes | None:
    """Return the key of STORE; the last one counts."""
    found, at = None, 2
    while at < len(args):
        word = args[at].upper()
        if word == b"STORE" and at + 1 < len(args):
            found = args[at + 1]
        at += {b"LIMIT": 3, b"STORE": 2, b"BY": 2, b"GET": 2}.get(word, 1)
    return found


def key_from_pattern(pattern: bytes, element: bytes) -> bytes:
    """Insert an element into a pattern: ``weight_*->field`` and ``1`` give ``weight_1``."""
    star = pattern.index(b"*")
    arrow = pattern.find(b"->", star + 1)
    is_field = arrow >= 0 and arrow + 2 < len(pattern)
    end = arrow if is_field else len(pattern)
    return pattern[:star] + element + pattern[star + 1 : end]


def with_store_key(parsed: ParsedCommand) -> ParsedCommand:
    """Add the key of STORE to SORT's keys."""
    store = store_key(parsed.args) if parsed.row.name == "sort" else None
    keys = [KeyAccess(parsed.args[1], reads=True, writes=False)]
    if store is not None:
        keys.append(KeyAccess(store, reads=False, writes=True))
    return replace(parsed, keys=keys)


async def sort_keys(
    table: CommandTable, own_reads: OwnReads, parsed: ParsedCommand, db: int
) -> list[KeyAccess]:
    """Return every key that SORT will read, as of now."""
    source, keys = parsed.args[1], list(with_store_key(parsed).keys)
    wanted = patterns(parsed.args)
    if wanted:
        index, question = table.owner(db, source), [b"SORT", source, b"BY", b"nosort"]
        elements = value((await own_reads.ask(index, [question], db=db))[0])
        if isinstance(elements, list):
            keys += await offload(len(elements), _looked_at, wanted, elements)
    return keys


def _looked_at(wanted: Iterable[bytes], elements: Sequence[bytes]) -> list[KeyAccess]:
    """Return the keys that patterns name with these elements."""
    names = {key_from_pattern(pattern, element) for pattern in wanted for element in elements}
    return [KeyAccess(name, reads=True, writes=False) for name in sorted(names)]
