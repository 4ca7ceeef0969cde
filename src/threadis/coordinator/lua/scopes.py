"""Finds the variable of each name in a Lua script, and its possible values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tree_sitter import Node

LOOP: Final = -1
# A value: an expression, or one of the several of a call: the call, and which (``LOOP``: what
# a loop over it has as its second).
Value = Node | tuple[Node, int]


@dataclass(eq=False, slots=True)
class Variable:
    """A local variable or a parameter."""

    values: list[Value] = field(default_factory=list)  # all that is ever put into it
    is_followed: bool = True  # these are all
    is_only_called: bool = True  # it is never used but as a function
    is_assigned: bool = False  # after its declaration
    function: Node | None = None  # what it is, if it is one function for ever


def text(node: Node | None) -> bytes:
    """Return the source text of a node."""
    return (node.text or b"") if node is not None else b""


def values(call: Node) -> list[Node]:
    """Return the arguments of a call."""
    arguments = call.child_by_field_name("arguments")
    if arguments is None:
        return []
    return [one for one in arguments.named_children if one.type != "comment"]


def names(root: Node) -> set[bytes]:
    """Return all names in a script."""
    found, left = set(), [root]
    while left:
        node = left.pop()
        if node.type == "identifier":
            found.add(text(node))
        left.extend(node.named_children)
    return found


class Scopes:
    """All names of a script."""

    def __init__(self, root: Node) -> None:
        self._open: list[dict[bytes, Variable]] = [{}]
        self._of: dict[int, Variable] = {}  # by the node of a name
        self._declared: dict[int, Variable] = {}  # by the node of its value
        self._local: set[int] = set()  # declarations of local functions
        self._no_variables: set[int] = set()  # names of fields
        self._calls: list[tuple[Variable, Node]] = []
        self._block(root)
        self._follow_parameters()

    def find(self, node: Node) -> Variable | None:
        """Return the variable of a name; None if it is global."""
        return self._of.get(node.id)

    def declared_by(self, value: Node) -> Variable | None:
        """Return the variable that this expression initialises."""
        return self._declared.get(value.id)

    def is_local(self, declaration: Node) -> bool:
        """Whether a function declaration is local."""
        return declaration.id in self._local

    def is_no_variable(self, node: Node) -> bool:
        """Whether a name is a field's name."""
        return node.id in self._no_variables

    def _declare(self, node: Node, variable: Variable) -> None:
        self._open[-1][text(node)] = variable
        self._of[node.id] = variable

    def _block(self, node: Node) -> None:
        self._open.append({})
        for child in node.named_children:
            self._any(child)
        self._open.pop()

    def _any(self, node: Node) -> None:
        visit = getattr(self, f"_{node.type}", None)
        if visit:
            visit(node)
        else:
            for child in node.named_children:
                self._any(child)

    def _repeat_statement(self, node: Node) -> None:  # its condition sees the block's variables
        self._open.append({})
        for child in node.named_children:
            for one in child.named_children if child.type == "block" else [child]:
                self._any(one)
        self._open.pop()

    def _identifier(self, node: Node) -> None:
        name = text(node)
        variable = next((one[name] for one in reversed(self._open) if name in one), None)
        if variable is None:
            return
        self._of[node.id] = variable
        call = node.parent
        is_call = call is not None and call.type == "function_call"
        if call is not None and is_call and call.child_by_field_name("name") == node:
            self._calls.append((variable, call))
        else:
            variable.is_only_called = False

    def _dot_index_expression(self, node: Node) -> None:
        table = node.child_by_field_name("table")
        name = node.child_by_field_name("field") or node.child_by_field_name("method")
        if name is not None:
            self._no_variables.add(name.id)
        if table is not None:
            self._any(table)

    _method_index_expression = _dot_index_expression

    def _field(self, node: Node) -> None:
        name = node.child_by_field_name("name")
        for child in node.named_children:
            # {name = value}, but not {[name] = value}
            if child == name and text(node)[:1] != b"[":
                self._no_variables.add(child.id)
            else:
                self._any(child)

    def _variable_declaration(self, node: Node) -> None:
        """``local a, b = …``"""
        inside = node.named_children[0]
        targets, found = inside, list[Node]()
        if inside.type == "assignment_statement":
            targets = inside.named_children[0]
            found = inside.named_children[1].named_children
        for value in found:
            self._any(value)
        declared = [one for one in targets.named_children if one.type == "identifier"]
        if inside.type == "identifier":
            declared = [inside]
        for at, name in enumerate(declared):
            variable = Variable()
            self._put(variable, found, at)
            if at < len(found):
                self._declared[found[at].id] = variable
                if found[at].type == "function_definition":
                    variable.function = found[at]
            self._declare(name, variable)

    def _put(self, variable: Variable, found: Sequence[Node], at: int) -> None:
        """Assign value number ``at`` of a list to a variable."""
        if at < len(found) and found[at].type not in ("function_call", "vararg_expression"):
            variable.values.append(found[at])
        elif found and found[-1].type == "function_call" and at >= len(found) - 1:
            variable.values.append((found[-1], at - len(found) + 1))
        elif at < len(found) or (found and found[-1].type == "vararg_expression"):
            variable.is_followed = False

    def _assignment_statement(self, node: Node) -> None:
        targets, found = node.named_children[0].named_children, node.named_children[1]
        self._any(found)
        for at, target in enumerate(targets):
            self._any(target)
            variable = self._of.get(target.id)
            if variable:
                self._put(variable, found.named_children, at)
                variable.function, variable.is_assigned = None, True

    def _function_declaration(self, node: Node) -> None:
        name = node.child_by_field_name("name")
        is_local = node.children[0].type == "local"
        if name is not None and is_local:
            self._local.add(node.id)
            self._declare(name, Variable(values=[node], function=node))
        elif name is not None:
            self._any(name)
            variable = self._of.get(name.id)
            if variable:  # function f() … of a local f
                variable.is_followed, variable.function = False, None
                variable.is_assigned = True
        self._function(node)

    def _function_definition(self, node: Node) -> None:
        self._function(node)

    def _function(self, node: Node) -> None:
        self._open.append({})
        parameters = node.child_by_field_name("parameters")
        for one in parameters.named_children if parameters is not None else []:
            if one.type == "identifier":
                self._declare(one, Variable(is_followed=False))
        body = node.child_by_field_name("body")
        if body is not None:
            self._block(body)
        self._open.pop()

    def _for_statement(self, node: Node) -> None:
        clause, body = node.child_by_field_name("clause"), node.child_by_field_name("body")
        self._open.append({})
        if clause is not None and clause.type == "for_numeric_clause":
            for child in clause.named_children[1:]:
                self._any(child)
            self._declare(clause.named_children[0], Variable(is_followed=False))
        elif clause is not None:
            found = clause.named_children[1]
            self._any(found)
            for at, name in enumerate(clause.named_children[0].named_children):
                is_second = at == 1 and len(found.named_children) == 1
                several: list[Value] = [(found.named_children[0], LOOP)] if is_second else []
                self._declare(name, Variable(several, is_followed=is_second))
        if body is not None:
            self._block(body)
        self._open.pop()

    def _follow_parameters(self) -> None:
        """Parameters of functions that are only called take the values of the call's arguments."""
        calls: dict[int, list[Node]] = {}
        functions: dict[int, Variable] = {}
        for variable, call in self._calls:
            functions[id(variable)] = variable
            calls.setdefault(id(variable), []).append(call)
        for number, variable in functions.items():
            function = variable.function
            if function is None or not variable.is_only_called or len(variable.values) != 1:
                continue
            parameters = function.child_by_field_name("parameters")
            for at, one in enumerate(parameters.named_children if parameters is not None else []):
                parameter = self._of.get(one.id)
                if parameter and not parameter.is_assigned:
                    parameter.is_followed = True
                    for call in calls[number]:
                        self._put(parameter, values(call), at)
