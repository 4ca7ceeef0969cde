"""The rules of CONTRIBUTING that a machine can check."""

import re
from pathlib import Path

import pytest

from tools.rust_rooms import HOMES, ROOMS, calls, circles, files, imports, methods, room_imports

ROOT = Path(__file__).parent.parent
LINES = 400
SOURCES = sorted([*ROOT.glob("rust/src/**/*.rs"), *ROOT.glob("src/threadis/**/*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES


def test_python_is_met_in_few_rust_files() -> None:
    rust = ROOT / "rust/src"
    found = {
        str(path.relative_to(rust))
        for path in rust.rglob("*.rs")
        if "pyo3" in path.read_text() and path.parent.name != "python"
    }
    assert found == {"load/python.rs", "client/session.rs"}


def test_rust_rooms_look_only_down() -> None:
    folders = {path.name for path in (ROOT / "rust/src").iterdir() if path.is_dir()}
    assert folders == set(ROOMS)
    upward = {
        (room, other)
        for room, others in room_imports().items()
        for other in others
        if ROOMS.index(other) > ROOMS.index(room)
    }
    assert not upward


def test_rust_files_import_in_no_circle() -> None:
    assert circles(imports()) == []


def test_methods_of_a_worker_call_only_down() -> None:
    called = calls("Worker")
    upward = {
        (file, name)
        for file, names in called.items()
        for name, where in names
        if ROOMS.index(where.split("/")[0]) > ROOMS.index(file.split("/")[0])
    }
    assert not upward
    arrows = {file: {where for _, where in names} for file, names in called.items()}
    # Reading takes a queued command, which is read like any other.
    assert circles(arrows) == [{"turn/read", "turn/queued_commands"}]


def test_no_worker_knows_a_command_by_its_name() -> None:
    compared = re.compile(r"row\.name[\w.()]* *[=!]=|row\.name\.starts_with|table\.find\(b\"")
    assert not {file.name for file in files() if compared.search(file.text)}


@pytest.mark.parametrize("owner", HOMES)
def test_types_of_everybody_have_their_methods_in_one_room(owner: str) -> None:
    rooms = {file.split("/")[0] for file in methods(owner).values()}
    assert rooms - {"load"} == {HOMES[owner]}  # the load generator has clients of its own


def test_unsafe_is_one_line() -> None:
    unsafe = re.compile(r"\bunsafe\s*(\{|fn|impl)")
    found = [
        (path.name, line.strip())
        for path in (ROOT / "rust/src").rglob("*.rs")
        for line in path.read_text().splitlines()
        if unsafe.search(line)
    ]
    assert found == [("mod.rs", "unsafe { OwnedFd::from_raw_fd(fd) }")]


def test_few_know_the_core() -> None:
    core = re.compile(
        r"^(from threadis import .*\b_core\b|from threadis\._core|import threadis\._core)", re.M
    )
    package = ROOT / "src/threadis"
    found = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if core.search(path.read_text())
    }
    assert found == {"proxy.py", "data", "own_names.py", "coordinator", "bench"}


# Who may import whom, from the ground up: each room, and each file beside the rooms, only those
# before it. ``TYPE_CHECKING`` is no way around.
PACKAGE = (
    "errors", "resp", "own_names", "system", "catalog", "control", "config", "data", "coordinator",
    "server_facts", "supervisor", "bench", "proxy", "cli",
)  # fmt: skip
COORDINATOR = (
    "base", "instances", "keys", "sessions", "acl", "lua", "multikey", "blocking", "scripting",
    "transactions", "admin", "coordinator",
)  # fmt: skip


@pytest.mark.parametrize(
    ("package", "rooms"),
    [("threadis", PACKAGE), ("threadis.coordinator", COORDINATOR)],
    ids=["threadis", "coordinator"],
)
def test_rooms_look_only_down(package: str, rooms: tuple[str, ...]) -> None:
    folder = ROOT / "src" / package.replace(".", "/")
    imported = re.compile(rf"^ *from {package}(?:\.(\w+)[\w.]* import| import (.+))", re.M)
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__main__", "__pycache__"} == set(rooms)
    upward = set()
    for at, room in enumerate(rooms):
        below = {*rooms[: at + 1], "_core", "__version__"}
        single = folder / f"{room}.py"
        for path in [single] if single.exists() else (folder / room).rglob("*.py"):
            for inside, names_of in imported.findall(path.read_text()):
                found = {inside} if inside else set(re.findall(r"(\w+)(?: as \w+)?", names_of))
                upward |= {(str(path.relative_to(folder)), one) for one in found - below}
    assert not upward


def test_few_know_the_coordinator() -> None:
    imported = re.compile(r"^ *from threadis\.coordinator\.(\w+)", re.M)
    package = ROOT / "src/threadis"
    found = {
        (path.relative_to(package).parts[0], other)
        for path in package.rglob("*.py")
        if package / "coordinator" not in path.parents
        for other in imported.findall(path.read_text())
    }
    assert found == {
        ("proxy.py", "coordinator"), ("proxy.py", "instances"), ("proxy.py", "admin"),
        ("server_facts.py", "instances"),
    }  # fmt: skip


def test_the_changelog_begins_with_this_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "rust/Cargo.toml").read_text(), re.M)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert version and newest and newest[1] == version[1]
