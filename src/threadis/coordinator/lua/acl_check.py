"""Scripts that ask ``acl_check_cmd`` what their caller may do.

The server answers for the sandbox user. So that must be allowed what the caller is allowed, even
what no sandbox user may do, if the script certainly does not do it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from tree_sitter import Node

from threadis.coordinator.lua.analysis import CALLS, HARMLESS, SERVERS, parse_lua
from threadis.coordinator.lua.functions import UNCERTAIN, as_script
from threadis.coordinator.lua.sandbox_user import PUBLISHING
from threadis.coordinator.lua.scopes import text, values
from threadis.coordinator.lua.script_call import ScriptCall

ACL_CHECK_CMD: Final = b"acl_check_cmd"
OTHERS: Final = HARMLESS | {b"register_function"}
# Other ways to what runs commands
ESCAPES: Final = frozenset({
    b"_G", b"_ENV", b"getfenv", b"setfenv", b"loadstring", b"load", b"getmetatable",
    b"setmetatable", b"debug",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class AclCheckUse:
    """The names of commands that a script runs and asks about; None if some are unknown."""

    runs: frozenset[bytes] | None
    asks: frozenset[bytes] | None

    @classmethod
    def of(cls, call: ScriptCall) -> "AclCheckUse | None":
        """Read a script; None if it does not ask."""
        script = call.body
        if ACL_CHECK_CMD not in script:
            return None
        if call.is_function and (alone := as_script(script, call.words[1])) != UNCERTAIN:
            script = alone
        if ACL_CHECK_CMD not in script:
            return None
        root = parse_lua(script)
        if root is None:
            return cls(None, None)
        runs, asks = set[bytes | None](), set[bytes | None]()
        left = [root]
        while left:
            node = left.pop()
            left += node.named_children
            if node.type == "identifier" and text(node) in ESCAPES | SERVERS:
                member = _member(node)
                if member is None:
                    return cls(None, None)
                field = text(member.child_by_field_name("field"))
                if field not in OTHERS:
                    (asks if field == ACL_CHECK_CMD else runs).add(_name(member, field))
        return cls(_all(runs), _all(asks))

    def may_run(self, denied: Collection[bytes]) -> list[bytes]:
        """Return what the sandbox user must be denied."""
        return [name for name in denied if _has(self.runs, name)]

    def denied(self, denied: Collection[bytes]) -> list[bytes]:
        """The same on copies; there publishing is allowed, because it takes effect once."""
        return self.may_run([name for name in denied if name not in PUBLISHING])

    def may_ask(self, denied: Collection[bytes]) -> set[bytes]:
        """Return the denied commands that the script may ask about, and would get a wrong answer
        for.

        A script that names no command at all is not refused: mostly it asks about what is allowed.
        """
        if self.asks is self.runs is None:
            return set()
        return {name for name in denied if _has(self.asks, name)}


def _member(name: Node) -> Node | None:
    """``redis.member``; None if the name is used in another way."""
    member = name.parent
    if text(name) in ESCAPES or member is None or member.type != "dot_index_expression":
        return None
    return member if member.child_by_field_name("table") == name else None


def _name(member: Node, field: bytes) -> bytes | None:
    """Return the command that is named right there; None if it is not."""
    call = member.parent
    if field not in CALLS | {ACL_CHECK_CMD} or call is None or call.type != "function_call":
        return None
    args = values(call) if call.child_by_field_name("name") == member else []
    word = text(args[0]) if args and args[0].type == "string" else b"["
    return None if b"\\" in word or word[:1] == b"[" else word[1:-1].lower()


def _all(names: set[bytes | None]) -> frozenset[bytes] | None:
    return None if None in names else frozenset(name for name in names if name is not None)


def _has(names: frozenset[bytes] | None, name: bytes) -> bool:
    """Whether a command, or one of its subcommands, is among the names."""
    return names is None or name.partition(b"|")[0] in {one.partition(b"|")[0] for one in names}
