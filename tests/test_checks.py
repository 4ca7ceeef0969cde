"""``plan`` refuses what ``serve`` would refuse, in the same words, and changes nothing."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Threadis
from test_data_dir import contents
from threadis.data_dir import DataDir

Run = Callable[..., "subprocess.CompletedProcess[str]"]

WRONG = [
    ["--server", "/nonexistent"],
    ["--server", "/bin/true"],
    ["--allocator", "nosuch.so"],
    ["--host", "nosuchhost.invalid"],
    ["--host", "192.0.2.1"],
    ["--instances", "4", "--pin-database", "3=9"],
    ["--pin-database", "99=0"],
    ["--instances", "8", "--dir", "of-two"],
    ["--dir", "foreign"],
    ["--dir", "damaged"],
    ["--dir", "no/such/data"],
    ["--dir", "everybodys"],
    ["--dir", "of-two", "--placement", "a{*}", "--instances", "3"],
    ["--dir", "x" * 120],
    ["--port", "0"],
    ["--unixsocket", "foreign/letter"],
    ["--aclfile", "nosuch.acl"],
]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("of-two", "damaged"):
        data = DataDir(str(tmp_path / name))
        data.open(2)
        data.close()
    (tmp_path / "damaged" / "instance-1" / "dump.rdb").write_text("hello")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter").touch()
    (tmp_path / "everybodys").mkdir()
    (tmp_path / "everybodys").chmod(0o777)
    return tmp_path


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_plan_refuses_what_serve_refuses(
    run_threadis: Run, folders: Path, flags: list[str]
) -> None:
    if "--port" not in flags:
        flags = [*flags, "--port", "auto"]
    before = contents(folders)
    planned = run_threadis("plan", *flags)
    assert contents(folders) == before
    served = run_threadis("serve", *flags)
    assert served.returncode == planned.returncode != 0
    assert planned.stderr.splitlines()[-1] == served.stderr.splitlines()[-1]
    assert planned.stdout == ""


def test_plan_beside_one_that_runs(threadis: Callable[..., Threadis], run_threadis: Run) -> None:
    running = threadis("--instances", "2", "--appendonly", "yes")
    flags = ["--port", str(running.port), "--dir", str(running.folder), "--appendonly", "yes"]
    planned = run_threadis("plan", *flags)
    assert (planned.returncode, planned.stderr) == (0, "")
    assert run_threadis("plan", *flags, "--instances", "3").returncode == 1


def test_the_plan_says_that_the_number_of_instances_stays(run_threadis: Run, folders: Path) -> None:
    first = run_threadis("plan", "--dir", "new", "--workers", "1").stdout
    assert "there is no resharding yet; choose their number with --instances" in first
    DataDir(str(folders / "of-7")).open(7)
    moved = run_threadis("plan", "--dir", "of-7").stdout
    assert "note: the data has 7 instance(s); a new --dir would have" in moved
