"""Rewrites a library function as a script, so that it can be analysed as one.

Its first parameter becomes KEYS, its registration becomes a call of something harmless, and other
registrations are removed. What a library keeps between two calls may be keys of an earlier call: if
a function assigns to an outer variable, or an inner function may outlive the call, the library is
not analysed.
"""

from typing import Final

from tree_sitter import Node

from threadis.coordinator.lua.analysis import SERVERS, parse_lua
from threadis.coordinator.lua.scopes import Scopes, Variable, text, values

REGISTER: Final = b"register_function"
FUNCTIONS: Final = ("function_definition", "function_declaration")
CATCHES: Final = (b"pcall", b"xpcall")
KEYS: Final = b"KEYS"
NOTHING: Final = b"type"  # a global function that accepts any arguments

UNCERTAIN: Final = b"?"

Edit = tuple[int, int, bytes]


def as_script(library: bytes, function: bytes) -> bytes:
    """Rewrite a function as a script; UNCERTAIN if that is not possible."""
    root = parse_lua(library)
    if root is None:
        return UNCERTAIN
    scopes = Scopes(root)
    if _assigns_outer(root, scopes) or not all(_is_never_kept(one, scopes) for one in _nodes(root)):
        return UNCERTAIN
    edits: list[Edit] = []
    found = None
    for call in root.named_children:
        if not _registers(call):
            continue
        name, callback = _registration(call)
        body = _function(callback, root, scopes)
        if name == function.lower() and found is None:
            found = body
            callee = call.child_by_field_name("name")
            if callee is not None:
                edits.append((callee.start_byte, callee.end_byte, NOTHING))
        else:
            edits.append(_blank(call))
            if body is not None and body.type == "function_declaration":
                edits.append(_blank(body))
    if found is None:
        return UNCERTAIN
    edits += _as_keys(found, root, scopes)
    code = library
    if library.startswith(b"#!"):
        code = b" " * library.find(b"\n") + library[library.find(b"\n") :]
    for begin, end, new in sorted(edits, reverse=True):
        code = code[:begin] + new + code[end:]
    return code


def _nodes(root: Node) -> list[Node]:
    found, left = [], [root]
    while left:
        node = left.pop()
        found.append(node)
        left += node.named_children
    return found


def _assigns_outer(root: Node, scopes: Scopes) -> bool:
    """Whether a function assigns to a variable outside of all functions."""
    outer: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if node.type in FUNCTIONS:
            name = node.child_by_field_name("name")
            left += [name] if name is not None else []
            continue
        if (variable := scopes.find(node)) is not None:
            outer.add(id(variable))
        left += node.named_children
    return any(
        id(scopes.find(target)) in outer
        for node in _nodes(root)
        if node.type == "assignment_statement" and _is_inside(node)
        for target in node.named_children[0].named_children
    )


def _is_never_kept(node: Node, scopes: Scopes) -> bool:
    """Whether an inner function is only called, and stored nowhere."""
    if node.type not in FUNCTIONS or not _is_inside(node.parent):
        return True
    around = node.parent
    if around is not None and around.type == "arguments" and around.parent is not None:
        callee = around.parent.child_by_field_name("name")
        return callee is not None and text(callee) in CATCHES and scopes.find(callee) is None
    name = node.child_by_field_name("name")
    variable = scopes.find(name) if name is not None else scopes.declared_by(node)
    return variable is not None and variable.is_only_called and not variable.is_assigned


def _is_inside(node: Node | None) -> bool:
    while node is not None and node.type not in FUNCTIONS:
        node = node.parent
    return node is not None


def _registers(call: Node) -> bool:
    member = call.child_by_field_name("name") if call.type == "function_call" else None
    if member is None or member.type != "dot_index_expression":
        return False
    field = text(member.child_by_field_name("field"))
    return field == REGISTER and text(member.child_by_field_name("table")) in SERVERS


def _registration(call: Node) -> tuple[bytes, Node | None]:
    """Return the registered name and function; empty if they are not literals."""
    args: list[Node | None] = list(values(call))
    if len(args) == 1 and args[0] is not None and args[0].type == "table_constructor":
        fields = {
            text(one.child_by_field_name("name")): one.child_by_field_name("value")
            for one in args[0].named_children
            if one.type == "field"
        }
        args = [fields.get(b"function_name"), fields.get(b"callback")]
    if len(args) != 2 or args[0] is None or args[0].type != "string":
        return b"", None
    word = text(args[0])
    return (b"" if word[:1] == b"[" or b"\\" in word else word[1:-1].lower()), args[1]


def _function(callback: Node | None, root: Node, scopes: Scopes) -> Node | None:
    """Return the function itself; None if it is used in another way, too."""
    if callback is None or callback.type == "function_definition":
        return callback
    variable = scopes.find(callback)
    if variable is None or variable.function is None or variable.is_assigned:
        return None
    return variable.function if len(_uses(variable, root, scopes)) == 2 else None


def _uses(variable: Variable, root: Node, scopes: Scopes) -> list[Node]:
    """Return all occurrences of a variable, its declaration first."""
    found = [one for one in _nodes(root) if scopes.find(one) is variable]
    return sorted(found, key=lambda one: one.start_byte)


def _as_keys(function: Node, root: Node, scopes: Scopes) -> list[Edit]:
    """Rename its first parameter to the global KEYS."""
    parameters = function.child_by_field_name("parameters")
    named = parameters.named_children if parameters is not None else []
    variable = scopes.find(named[0]) if named else None
    if variable is None or variable.is_assigned:
        return []
    first, *others = _uses(variable, root, scopes)
    edits = [(one.start_byte, one.end_byte, KEYS) for one in others]
    return [(first.start_byte, first.end_byte, b"_unused"), *edits]


def _blank(node: Node) -> Edit:
    """Remove a statement; line numbers stay."""
    around = node.parent
    if (
        node.type == "function_declaration"
        and around is not None
        and around.type == "local_declaration"
    ):
        node = around
    return node.start_byte, node.end_byte, b";"
