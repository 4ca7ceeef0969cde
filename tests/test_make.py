"""The Makefile: what is missing is said in one line; a wrong virtual environment is made anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
OLD = "#!/bin/sh\nexit 1\n"  # a Python that says that it is too old


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The Makefile, in a place where nothing has been built."""
    folder = tmp_path / "clone"
    (folder / "rust" / "src").mkdir(parents=True)
    (folder / "src" / "threadis").mkdir(parents=True)
    for name in ("rust/Cargo.toml", "rust/Cargo.lock", "pyproject.toml"):
        (folder / name).touch()
    shutil.copy(TOP / "Makefile", folder)
    return folder


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def make(folder: Path, path: str) -> "subprocess.CompletedProcess[str]":
    # As from a shell: the make that runs this test leaves its own flags in the environment.
    shell = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "build"],
        cwd=folder, env={**shell, "PATH": path, "PIP_NO_INDEX": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_old_python_is_said_and_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin" / "python3", OLD)
    done = make(copy, f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode != 0
    assert done.stdout == "make: python3 is older than 3.11; put a newer one first in PATH\n"
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize("what", ["of an old Python", "cut short"])
def test_an_unusable_environment_is_made_anew(copy: Path, tmp_path: Path, what: str) -> None:
    if what == "cut short":  # pip comes last
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy / ".venv"], check=True)
    else:
        program(copy / ".venv" / "bin" / "python", OLD)
    program(copy / ".venv" / "leftover", "")
    program(tmp_path / "bin" / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    make(copy, f"{tmp_path / 'bin'}:{os.environ['PATH']}")  # there is nothing to be built
    assert not (copy / ".venv" / "leftover").exists()
    code = "import sys; print(sys.version_info[:2])"
    done = subprocess.run(
        [copy / ".venv" / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{sys.version_info[:2]}\n"


@pytest.mark.parametrize(
    ("missing", "hint"),
    [("cc", "apt install gcc"), ("cargo", "rustup.rs"), ("python3", "there is no python3")],
)
def test_what_is_missing_is_said(copy: Path, tmp_path: Path, missing: str, hint: str) -> None:
    for name in ("sh", "find", "python3", "rm", "cc", "cargo"):
        if name != missing:
            program(tmp_path / "bin" / name, f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n')
    program(tmp_path / "bin" / "make", f'#!/bin/sh\nexec {shutil.which("make")} "$@"\n')
    done = make(copy, str(tmp_path / "bin"))
    assert done.returncode != 0
    assert hint in done.stdout
    assert done.stdout.count("\n") == 1
    assert not (copy / ".venv").exists()
