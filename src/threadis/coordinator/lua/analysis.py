"""Static analysis of scripts: what a script can touch, whatever its arguments are.

A proof covers every run, also branches that were never taken. It is found if each command has a
literal name, and its keys are taken from KEYS, or are one of KEYS with a suffix. What cannot be
followed (other globals, KEYS or ``redis`` in another variable, a table of keys) proves nothing. Lua
is parsed by tree-sitter; ``scopes`` finds the variable of a name.
"""

import enum
import re
from collections.abc import Callable, Sequence
from typing import Final

import tree_sitter
import tree_sitter_lua
from tree_sitter import Node

from threadis.catalog.commands import Row
from threadis.coordinator.lua.scopes import LOOP, Scopes, Variable, text, values

LENGTH_MOST: Final = 64 * 1024  # bytes of a script that is read; it takes some 10 µs a word
DEPTH_MOST: Final = 100  # of expressions and blocks


class Reach(enum.IntEnum):
    """What a script can touch; higher means more."""

    DECLARED = 0  # its KEYS
    PREFIXED = 1  # also keys that begin with one of its KEYS
    ANYTHING = 2


CALLS: Final = frozenset({b"call", b"pcall"})
SERVERS: Final = frozenset({b"redis", b"server"})
# Members of these that neither run commands nor tell of a user's rights.
HARMLESS: Final = frozenset({
    b"sha1hex", b"error_reply", b"status_reply", b"log", b"setresp", b"replicate_commands",
    b"set_repl", b"LOG_DEBUG", b"LOG_VERBOSE", b"LOG_NOTICE", b"LOG_WARNING", b"REPL_ALL",
    b"REPL_AOF", b"REPL_SLAVE", b"REPL_REPLICA", b"REPL_NONE", b"REDIS_VERSION",
    b"REDIS_VERSION_NUM", b"VALKEY_VERSION_NUM", b"VALKEY_VERSION", b"SERVER_NAME",
})  # fmt: skip
LIBRARIES: Final = frozenset({
    b"math", b"string", b"table", b"cjson", b"cmsgpack", b"struct", b"bit", b"os",
})  # fmt: skip
FUNCTIONS: Final = frozenset({
    b"tonumber", b"tostring", b"type", b"pairs", b"ipairs", b"next", b"select", b"unpack",
    b"error", b"assert", b"pcall", b"xpcall",
})  # fmt: skip
# They take KEYS as a whole and do not change it.
TAKE_KEYS: Final = frozenset({b"unpack", b"table.getn", b"table.concat"})
LOOPS: Final = frozenset({b"ipairs", b"pairs"})
KEYLESS: Final = frozenset({"ping", "echo", "time", "publish", "spublish"})
# Statements and expressions whose parts are looked at one by one.
PLAIN: Final = frozenset({
    "chunk", "block", "variable_declaration", "assignment_statement", "variable_list",
    "expression_list", "function_declaration", "function_definition", "parameters",
    "return_statement", "for_statement", "for_numeric_clause", "for_generic_clause",
    "if_statement", "elseif_statement", "else_statement", "while_statement",
    "repeat_statement", "do_statement", "break_statement", "empty_statement", "function_call",
    "arguments", "parenthesized_expression", "binary_expression", "unary_expression",
    "bracket_index_expression", "dot_index_expression", "method_index_expression",
    "identifier", "number", "string", "string_content", "escape_sequence", "nil", "true",
    "false", "table_constructor", "field", "vararg_expression", "comment", "comment_content",
})  # fmt: skip

OPEN: Final = ("function_call", "vararg_expression")  # as last arguments they may be several

_LANGUAGE: Final = tree_sitter.Language(tree_sitter_lua.language())


def _stays_here(args: list[Node], words: list[bytes]) -> bool:
    """Whether COPY names no other database: only REPLACE, or nothing, follows its keys."""
    is_open = bool(args) and args[-1].type in OPEN
    return not is_open and [word.upper() for word in words[3:]] in ([], [b"REPLACE"])


class UnprovenError(Exception):
    """Something cannot be followed."""


def parse_lua(script: bytes) -> Node | None:
    """Parse a script, without its shebang line; None if it is not Lua."""
    if len(script) > LENGTH_MOST:
        return None
    if script.startswith(b"#!"):
        end = script.find(b"\n")
        script = b" " * end + script[end:] if end >= 0 else b""
    root = tree_sitter.Parser(_LANGUAGE).parse(script).root_node
    return None if root.has_error else root


def script_reach(
    script: bytes, find: Callable[[Sequence[bytes]], Row | None], databases: int
) -> Reach:
    """Find out what a script can touch; ``find`` looks up a command.

    It may go to so many databases, in which the same keys live on the same instance.
    """
    root = parse_lua(script)
    if root is None:
        return Reach.ANYTHING
    try:
        return _Analysis(root, find, databases).read()
    except (UnprovenError, RecursionError):
        return Reach.ANYTHING


# A command whose name is not a literal, or may be called in another way.
_UNNAMED = re.compile(
    rb"""\bp?call\b(?!\s*\(?\s*(["'])[\w.|-]+\1\s*[,)])"""
    rb"|\b(?:_G|load\w*|[gs]etfenv)\b|\b(?:redis|server)\s*\["
)


_SELECT = re.compile(rb"""["']select["']""", re.IGNORECASE)


def names_commands(script: bytes) -> bool:
    """Whether all command names of a script are literals in its text."""
    return bool(script) and _UNNAMED.search(script.replace(b"pcall(function", b"")) is None


def may_select(script: bytes) -> bool:
    """Whether a proved script may go to another database: the literal is in its text."""
    return _SELECT.search(script) is not None


class _Analysis:
    def __init__(
        self, root: Node, find: Callable[[Sequence[bytes]], Row | None], databases: int
    ) -> None:
        self._root, self._find, self._databases = root, find, databases
        self._reach = Reach.DECLARED
        self._under_way: set[int] = set()

    def read(self) -> Reach:
        self._scopes = Scopes(self._root)
        self._look(self._root, 0)
        return self._reach

    def _look(self, node: Node, depth: int) -> None:
        if node.type not in PLAIN or depth > DEPTH_MOST:
            raise UnprovenError
        if node.type == "identifier":
            self._look_at_name(node)
        elif node.type == "function_call":
            self._look_at_call(node)
        elif node.type == "assignment_statement":
            self._look_at_targets(node)
        elif node.type == "function_declaration" and not self._scopes.is_local(node):
            raise UnprovenError
        for child in node.named_children:
            self._look(child, depth + 1)

    def _global(self, node: Node | None) -> bytes:
        """Return the name of a global; empty for anything else."""
        if node is None or node.type != "identifier" or self._scopes.find(node):
            return b""
        return text(node)

    def _member(self, node: Node | None) -> bytes:
        """Return ``library.member`` of a global; empty for anything else."""
        if node is None or node.type != "dot_index_expression":
            return b""
        library = self._global(node.child_by_field_name("table"))
        return library + b"." + text(node.child_by_field_name("field")) if library else b""

    def _look_at_name(self, node: Node) -> None:
        name = self._global(node)
        if not name or self._scopes.is_no_variable(node):
            return
        parent = node.parent
        if parent is None:
            raise UnprovenError
        if name == b"ARGV" or name in FUNCTIONS:
            return
        if name in SERVERS:
            member = self._member(parent).partition(b".")[2]
            if member in HARMLESS or (member in CALLS and self._is_command(parent)):
                return
        elif name in LIBRARIES:
            if self._member(parent):
                return
        elif name == b"KEYS" and self._is_only_read(node, parent):
            return
        raise UnprovenError

    def _is_command(self, callee: Node) -> bool:
        """Whether redis.call is called here, or is the value of a variable that is only called."""
        parent = callee.parent
        if parent is not None and parent.type == "function_call":
            return parent.child_by_field_name("name") == callee
        variable = self._scopes.declared_by(callee)
        return variable is not None and variable.is_only_called and len(variable.values) == 1

    def _is_only_read(self, node: Node, parent: Node) -> bool:
        if parent.type == "bracket_index_expression":
            return parent.child_by_field_name("table") == node
        if parent.type == "unary_expression":
            return True
        if parent.type != "arguments" or parent.parent is None:
            return False
        name = parent.parent.child_by_field_name("name")
        callee = self._member(name) or self._global(name)
        # pairs returns KEYS itself, but a loop does not expose it.
        around = parent.parent.parent and parent.parent.parent.parent
        is_loop = around is not None and around.type == "for_generic_clause"
        return callee in TAKE_KEYS or (callee in LOOPS and is_loop)

    def _look_at_targets(self, node: Node) -> None:
        for target in node.named_children[0].named_children:
            base: Node | None = target
            while base is not None and base.type in (
                "dot_index_expression",
                "bracket_index_expression",
            ):
                base = base.child_by_field_name("table")
            # ARGV is not a key.
            if base is None or (not self._scopes.find(base) and self._global(base) != b"ARGV"):
                raise UnprovenError

    def _look_at_call(self, node: Node) -> None:
        callee = node.child_by_field_name("name")
        if callee is None:
            raise UnprovenError
        variable = self._scopes.find(callee) if callee.type == "identifier" else None
        if variable and len(variable.values) == 1 and isinstance(variable.values[0], Node):
            callee = variable.values[0]
        library, _, member = self._member(callee).partition(b".")
        if library in SERVERS and member in CALLS:
            self._look_at_command(node)

    def _look_at_command(self, node: Node) -> None:
        args = values(node)
        words: list[bytes] = []
        for arg in args:
            content = text(arg)[1:-1] if arg.type in ("string", "number") else b""
            if arg.type == "number":
                content = text(arg)
            if arg.type == "string" and (b"\\" in content or text(arg)[:1] == b"["):
                content = b""
            words.append(content)
        if not words or not words[0]:
            raise UnprovenError
        row = self._find(words)
        if row is None:
            raise UnprovenError
        if row.name in KEYLESS:
            return
        if row.name == "select" and len(words) == 2 and words[1].isdigit():
            if int(words[1]) < self._databases:
                return
            raise UnprovenError
        is_copy = row.name == "copy"
        if not row.keys or row.name == "move" or (row.special_words and not is_copy):
            raise UnprovenError
        if row.route not in ("keys", "split") or (is_copy and not _stays_here(args, words)):
            raise UnprovenError
        self._look_at_keys(row, args, words)

    def _look_at_keys(self, row: Row, args: list[Node], words: list[bytes]) -> None:
        is_open = bool(args) and args[-1].type in OPEN
        known = len(args) - is_open
        for spec in row.keys:
            if spec.keyword or spec.limit:
                raise UnprovenError
            if spec.is_count:
                at = spec.index + spec.number
                if at >= known or not words[at].isdigit():
                    raise UnprovenError
                first = spec.index + spec.first
                places = range(first, first + int(words[at]) * spec.step, spec.step)
            elif spec.last >= 0:
                places = range(spec.index, spec.index + spec.last + 1, spec.step)
            else:
                places = range(spec.index, len(args) + spec.last + 1, spec.step)
                if is_open and (spec.last != -1 or spec.step != 1):
                    raise UnprovenError
            for at in places:
                if at < known:
                    self._note(self._reach_of(args[at]))
                elif at < len(args) and self._are_keys(args[at]) and spec.step == 1:
                    break  # the last of them and all that follow
                elif is_open:
                    raise UnprovenError

    def _note(self, found: Reach) -> None:
        if found is Reach.ANYTHING:
            raise UnprovenError
        self._reach = max(self._reach, found)

    def _are_keys(self, node: Node) -> bool:
        """``unpack(KEYS)``."""
        if node.type != "function_call":
            return False
        args = values(node)
        is_unpack = self._global(node.child_by_field_name("name")) == b"unpack"
        return is_unpack and bool(args) and self._global(args[0]) == b"KEYS"

    def _reach_of(self, node: Node) -> Reach:
        """Return what an expression can be as a key."""
        if node.type in ("nil", "false"):
            return Reach.DECLARED  # refused by the server
        if node.type == "parenthesized_expression":
            return self._reach_of(node.named_children[0])
        if node.type == "bracket_index_expression":
            is_key = self._global(node.child_by_field_name("table")) == b"KEYS"
            return Reach.DECLARED if is_key else Reach.ANYTHING
        if node.type == "identifier":
            variable = self._scopes.find(node)
            return self._reach_of_variable(variable) if variable else Reach.ANYTHING
        if node.type == "binary_expression":
            left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
            if left is None or right is None:
                raise UnprovenError
            operator = next((one.type for one in node.children if not one.is_named), "")
            if operator == "..":
                return max(self._reach_of(left), Reach.PREFIXED)
            if operator == "and":
                return self._reach_of(right)
            if operator == "or":
                return max(self._reach_of(left), self._reach_of(right))
        return Reach.ANYTHING

    def _reach_of_variable(self, variable: Variable) -> Reach:
        if id(variable) in self._under_way:
            return Reach.DECLARED  # decided by the other values
        if not variable.is_followed:
            return Reach.ANYTHING
        self._under_way.add(id(variable))
        try:
            return max(map(self._reach_of_value, variable.values), default=Reach.DECLARED)
        finally:
            self._under_way.discard(id(variable))

    def _reach_of_value(self, value: Node | tuple[Node, int]) -> Reach:
        if isinstance(value, Node):
            return self._reach_of(value)
        several, at = value
        if at != LOOP:
            return Reach.DECLARED if self._are_keys(several) else Reach.ANYTHING
        if several.type != "function_call":
            return Reach.ANYTHING
        callee, args = self._global(several.child_by_field_name("name")), values(several)
        is_over_keys = len(args) == 1 and self._global(args[0]) == b"KEYS"
        return Reach.DECLARED if callee in LOOPS and is_over_keys else Reach.ANYTHING
