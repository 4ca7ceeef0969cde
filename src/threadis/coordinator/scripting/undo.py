"""Scripts that can be undone: run on the real keys, although they might need others.

The code of ``undo.lua`` is put in front of the script, on its first line, and the script's commands
go through it. Before a key is written for the first time, it stores how to restore the key: a copy
of a small one, for a large one the inverse of a usual command. If the sandbox user is refused a key
or a command, or anything fails, everything is restored. The refusal of ``UNDONE`` then tells us,
and the script is run on copies. Messages are published at the end: a script that publishes becomes
a function that the code in front calls, and its errors are left to the run on copies.

A script that could reach the server in another way is not run like this.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tree_sitter import Node

from threadis import own_names
from threadis.catalog.commands import KeySpec, Row
from threadis.coordinator.lua.analysis import CALLS, HARMLESS, parse_lua
from threadis.coordinator.lua.scopes import text

UNDONE: Final = own_names.MARK + b":undone"  # refused when everything was restored
# Ways around the code in front, or to change what it does.
ESCAPES: Final = frozenset({
    b"_G", b"_ENV", b"getfenv", b"setfenv", b"loadstring", b"load", b"loadfile", b"dofile",
    b"require", b"module", b"package", b"rawget", b"rawset", b"getmetatable", b"setmetatable",
    b"debug", b"coroutine", b"newproxy", b"server",
})  # fmt: skip
MEMBERS: Final = (CALLS | HARMLESS) - {b"setresp", b"set_repl", b"replicate_commands"}
# Commands on several keys: the last key, or 0 for all arguments.
SEVERAL: Final = {"del": 0, "unlink": 0, "rename": 3, "renamenx": 3, "rpoplpush": 3, "lmove": 3,
                  "smove": 3}  # fmt: skip
ONE: Final = (1, 0)  # where the key is, and the last
PUBLISH: Final = b"publish"
# Takes KEYS and ARGV out of arguments that are the number of keys, the keys, and the rest.
CUT: Final = (
    b"local KEYS, ARGV = (function(all) local keys, rest = {}, {} for at = 2, #all do "
    b"local to = at <= all[1] + 1 and keys or rest to[#to + 1] = all[at] end "
    b"return keys, rest end)(ARGV) "
)


class UndoWrapper:
    """Puts the undo code in front of a script."""

    def __init__(self, rows: Iterable[Row]) -> None:
        known = [row for row in rows if row.route in ("keys", "split")]
        singles = {row.name for row in known if _is_single(row) and "|" not in row.name}
        reads = {row.name for row in known if row.keys and not row.writes and not row.special_words}
        reads = {name for name in reads if not name.startswith("pf")} | {"time", "echo", "ping"}
        source = Path(__file__).with_suffix(".lua").read_text()
        lines = (line.strip() for line in source.splitlines())
        line = " ".join(line for line in lines if not line.startswith("--"))
        line = line.replace("@READS@", ",".join(f"['{name}']=true" for name in sorted(reads)))
        line = line.replace("@SINGLES@", ",".join(f"['{name}']=true" for name in sorted(singles)))
        several = ",".join(f"['{name}']={last}" for name, last in SEVERAL.items())
        have_times = any(row.name == "hpexpiretime" for row in known)
        line = (
            line.replace("@MARK@", own_names.MARK.decode())
            .replace("@ALLS@", several)
            .replace("@TIMES@", str(have_times).lower())
            .replace("@UNDONE@", UNDONE.decode())
        )
        self._maker = line.encode()

    def wrap(self, script: bytes, *, is_apart: bool = False) -> bytes:
        """Return the script with the undo code; ``is_apart``: its keys are passed as arguments."""
        body = without_shebang(script)
        head = script.removesuffix(body) + CUT * is_apart
        if PUBLISH in script.lower():
            call = b"return (select(2, " + self._maker + b"(redis, true)))(function(redis, ...) "
            return head + call + body + b"\nend, ...)"
        return head + b"local redis = " + self._maker + b"(redis); " + body


def without_shebang(script: bytes) -> bytes:
    """Return a script without its shebang line."""
    return script[script.find(b"\n") + 1 :] if script.startswith(b"#!") else script


def is_undoable(script: bytes) -> bool:
    """Whether all commands of a script go through the code in front of it."""
    root = parse_lua(script)
    return root is not None and _is_undoable(root)


def _is_single(row: Row) -> bool:
    if not row.writes or len(row.keys) != 1 or row.special_words or row.blocks:
        return False
    spec: KeySpec = row.keys[0]
    return (spec.index, spec.last) == ONE and not (spec.keyword or spec.is_count or spec.limit)


def _is_undoable(root: Node) -> bool:
    left = [root]
    while left:
        node = left.pop()
        if node.type == "string" and text(node)[1:-1].lower() == PUBLISH:
            if not _is_statement(node):
                return False
        elif node.type == "identifier":
            name, parent = text(node), node.parent
            if name in ESCAPES or parent is None:
                return False
            if name == b"redis":
                around = parent.parent
                is_member = (
                    parent.type == "dot_index_expression"
                    and parent.child_by_field_name("table") == node
                    and text(parent.child_by_field_name("field")) in MEMBERS
                )
                if not is_member or around is None or around.type == "variable_list":
                    return False
        left.extend(node.named_children)
    return True


def _is_statement(name: Node) -> bool:
    """Whether the reply of the command of this name, a number of receivers, is not used."""
    arguments = name.parent
    call = arguments.parent if arguments is not None else None
    if arguments is None or call is None or call.parent is None:
        return False
    is_name = call.type == "function_call" and arguments.named_children[0] == name
    return is_name and call.parent.type in ("chunk", "block")
