"""Draws docs/architecture.md from the code: its rooms, what each is for, and who imports whom.

python -m tools.architecture_page
"""

import ast
from pathlib import Path
from typing import Final

from tools import rust_rooms

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "architecture.md"
PACKAGE: Final = ROOT / "src" / "threadis"
HEAD: Final = """# Architecture

`make docs` draws this page from the code; `tests/test_architecture.py` checks the rule. A **room**
is a folder, or a file next to the folders. A room imports only rooms that stand below it. An arrow
that follows from others is left out. [The life of a request](life-of-a-request.md) says what
happens to a command on its way through the Rust code.
"""
OWN: Final = "threadis"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """The page, as the code is."""
    parts = [HEAD]
    for title, folder in (("Python", PACKAGE), ("The coordinator", PACKAGE / "coordinator")):
        rooms = {path.stem: path for path in folder.iterdir() if is_room(path)}
        below = {
            name: imported(path, folder) & rooms.keys() - {name} for name, path in rooms.items()
        }
        parts += ["", f"## {title}", "", drawing(below), "", "| room | what is in it | imports |"]
        parts += ["| --- | --- | --- |"]
        parts += [
            f"| `{name}` | {purpose(rooms[name])} | {', '.join(sorted(below[name]))} |"
            for floor in reversed(floors(below))
            for name in floor
        ]
    below = rust_rooms.room_imports()
    parts += ["", "## Rust", "", drawing(below), "", "| room | what is in it |", "| --- | --- |"]
    parts += [f"| `{room}` | {rust_rooms.purpose(room)} |" for room in reversed(rust_rooms.ROOMS)]
    return "\n".join(parts) + "\n"


def is_room(path: Path) -> bool:
    """Whether a path is a room: a package, or a module that is not a package's own."""
    if path.is_dir():
        return (path / "__init__.py").exists()
    return path.suffix == ".py" and not path.stem.startswith("__")


def sources(path: Path) -> list[Path]:
    """The files of a room."""
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def purpose(path: Path) -> str:
    """The first paragraph of a room's docstring."""
    text = (path / "__init__.py" if path.is_dir() else path).read_text()
    words = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split()
    return " ".join(words).replace("``", "`").removesuffix("::")


def imported(path: Path, folder: Path) -> set[str]:
    """The rooms of a folder that a room imports, ``TYPE_CHECKING`` or not."""
    package = ".".join((OWN, *folder.relative_to(PACKAGE).parts))
    found = set()
    for source in sources(path):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module == package:
                found |= {alias.name for alias in node.names}
            elif node.module.startswith(package + "."):
                found.add(node.module.removeprefix(package + ".").split(".")[0])
    return found


def floors(below: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by floor, the ground first: each stands right above the highest that it imports."""
    height: dict[str, int] = {}
    while left := below.keys() - height.keys():
        ready = {name for name in left if below[name] <= height.keys()}
        if not ready:
            raise SystemExit(f"a circle: {', '.join(sorted(left))}")
        for name in ready:
            height[name] = 1 + max((height[one] for one in below[name]), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(height.values()) + 1)]
    for name in sorted(height):
        rows[height[name]].append(name)
    return rows


def drawing(below: dict[str, set[str]]) -> str:
    """A graph of the rooms; an arrow that others imply is left out."""
    reach: dict[str, set[str]] = {}
    for floor in floors(below):
        for name in floor:
            reach[name] = below[name].union(*(reach[one] for one in below[name]))
    lines = ["```mermaid", "graph TD"]
    for floor in reversed(floors(below)):
        for name in floor:
            implied = set().union(*(reach[one] for one in below[name]))
            lines.append(f"  {name}")
            lines += [f"  {name} --> {one}" for one in sorted(below[name] - implied)]
    return "\n".join([*lines, "```"])


if __name__ == "__main__":
    main()
