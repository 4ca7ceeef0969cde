"""What the Rust code says of its rooms: who imports whom, and who calls whose methods.

A room is a folder of ``rust/src``. Tests in the files do not count.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

SOURCE: Final = Path(__file__).resolve().parents[1] / "rust" / "src"
# From the ground up: each imports only those before it.
ROOMS: Final = (
    "base", "net", "resp", "catalog", "routing", "tables", "lane", "client", "threads", "work",
    "core", "commands", "turn", "load", "fuzzed", "python",
)  # fmt: skip
# The one room where a type of everybody's may have methods.
HOMES: Final = {"Client": "client", "Lanes": "lane", "Shared": "threads"}
_TESTS: Final = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[path.*\n)?mod ", re.M)
_BLOCK: Final = re.compile(r"^impl (\w+) \{\n(.*?)^\}\n", re.M | re.S)


class File(NamedTuple):
    """A file of a room: what it is called (``core/send``), and its text without comments."""

    name: str
    text: str

    @property
    def room(self) -> str:
        """The folder."""
        return self.name.split("/")[0]


def files() -> Iterator[File]:
    """All files in rooms, but those of tests."""
    for room in ROOMS:
        for path in sorted((SOURCE / room).glob("*.rs")):
            if not path.stem.endswith("_tests"):
                text = _TESTS.split(path.read_text())[0]
                yield File(f"{room}/{path.stem}", re.sub(r"//.*", "", text))


def purpose(room: str) -> str:
    """What the first lines of a room's ``mod.rs`` say."""
    head = re.match(r"(?://!.*\n)+", (SOURCE / room / "mod.rs").read_text())
    lines = head[0].splitlines() if head else []
    words = " ".join(line.removeprefix("//!").strip() for line in lines if line != "//!")
    return words.split("```")[0].strip()


def imports() -> dict[str, set[str]]:
    """The files that each file names."""
    all_files = list(files())
    known = {file.name for file in all_files}
    found = {}
    for file in all_files:
        paths = re.findall(r"\bcrate::(\w+)::(\w+)", file.text)
        named = {f"{room}/{name}" for room, name in paths}
        rooms = {f"{room}/mod" for room in re.findall(r"\bcrate::(\w+)", file.text)}
        found[file.name] = (named | rooms) & known - {file.name}
    return found


def room_imports() -> dict[str, set[str]]:
    """The rooms that each room names."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for file in files():
        found[file.room] |= set(re.findall(r"\bcrate::(\w+)", file.text)) & set(ROOMS)
    return {room: others - {room} for room, others in found.items()}


def methods(owner: str) -> dict[str, str]:
    """The methods of a type, and the file of each."""
    return {
        name: file.name
        for file in files()
        for of, body in _BLOCK.findall(file.text)
        if of == owner
        for name in re.findall(r"^    (?:pub(?:\(crate\))? )?fn (\w+)", body, re.M)
    }


def calls(owner: str) -> dict[str, set[tuple[str, str]]]:
    """For each file with methods of a type: those of them that it calls, and the file of each."""
    known = methods(owner)
    found = defaultdict(set)
    for file in files():
        for of, body in _BLOCK.findall(file.text):
            if of == owner:
                for name in re.findall(r"\b(?:self|worker)\s*\.(\w+)\(", body):
                    if known.get(name, file.name) != file.name:
                        found[file.name].add((name, known[name]))
    return found


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of files that reach each other."""
    reach = {name: set(others) for name, others in arrows.items()}
    for middle in reach:
        for name in reach:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    groups = {
        frozenset({name, *(one for one in reach[name] if name in reach.get(one, ()))})
        for name in reach
    }
    return [set(group) for group in groups if len(group) > 1]
