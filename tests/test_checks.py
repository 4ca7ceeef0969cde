"""``plan`` refuses what ``serve`` would refuse, in the same words, and changes nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Threadis
from test_data_dir import contents
from threadis.data.data_dir import DataDir

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Flags, and a part of the sentence that both say
WRONG = [
    ("--server /nonexistent", "cannot run /nonexistent"),
    ("--server /bin/true", "/bin/true is neither redis-server nor valkey-server"),
    ("--allocator nosuch.so", "allocator: "),
    ("--host nosuchhost.invalid", "is not an address of this machine"),
    ("--host 192.0.2.1", "is not an address of this machine"),
    ("--instances 4 --pin-database 3=9", "there is no instance 9"),
    ("--pin-database 99=0", "there is no database 99"),
    ("--instances 8 --dir of-two", "holds the data of 2 instances, not 8"),
    ("--dir foreign", "foreign holds letter but no data of threadis"),
    ("--dir damaged", "damaged/instance-1/dump.rdb"),
    ("--dir no/such", "no does not exist; create it first"),
    ("--dir anyones", "everybody may write to"),
    ("--dir of-two --placement a{*} --instances 3", "holds the data of 2 instances, not 3"),
    (f"--dir {'x' * 120}", "too long for the Unix sockets in it"),
    ("--port 0", "add --unixsocket PATH"),
    ("--unixsocket foreign/letter", "foreign/letter is not a socket"),
    ("--unixsocket no/such/folder/s", "no/such/folder does not exist; create it first"),
    (f"--unixsocket {'x' * 120}", "its path is longer than 107 bytes"),
    ("--unixsocket s --unixsocketgroup no-such-group", "there is no group no-such-group"),
    ("--unixsocket s --unixsocketgroup 99999999999999999999", "there is no group 99999999999"),
    ("--host a..b", "host: 'a..b' is not an address of this machine; check --host"),
    (f"--host {'x' * 80}", "is not an address of this machine; check --host"),
    ("--dir d\udcff", "--dir: 'd\\udcff' is not UTF-8; use another name"),
    ("--set hz=\udcff", "set hz: '\\udcff' is not UTF-8"),
    ("--unixsocketgroup root", "unixsocketgroup: there is no Unix socket"),
    ("--unixsocketperm 770", "unixsocketperm: there is no Unix socket"),
    ("--host *,127.0.0.1", "separate the addresses with spaces"),
    ("--dir file", "file is not a directory; choose another --dir"),
    ("--dir tools", "tools holds bin but no data of threadis"),
    ("--aclfile nosuch.acl", "nosuch.acl is not there"),
    ("--set nosuch=1", "it does not accept 'nosuch 1'"),
    ("--set hz=20 --set loglevel=nonsense", "it does not accept 'loglevel nonsense'"),
    ("--set loadmodule=/nope.so", "/nope.so is not there; check --set loadmodule"),
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
    (tmp_path / "file").touch()
    (tmp_path / "tools" / "bin").mkdir(parents=True)
    (tmp_path / "tools" / "bin" / "id").touch()
    (tmp_path / "anyones").mkdir()
    (tmp_path / "anyones").chmod(0o777)
    return tmp_path


@pytest.mark.sample
@pytest.mark.parametrize(("flags", "words"), WRONG)
def test_plan_refuses_what_serve_refuses(
    run_threadis: Run, folders: Path, flags: str, words: str
) -> None:
    given = flags.split()
    for name, value in (("--port", "auto"), ("--dir", "d")):
        if name not in given:
            given += [name, value]
    before = contents(folders)
    planned = run_threadis("plan", *given)
    assert contents(folders) == before
    served = run_threadis("serve", *given)
    assert served.returncode == planned.returncode != 0
    assert planned.stderr.splitlines()[-1] == served.stderr.splitlines()[-1]
    assert words in served.stderr
    assert served.stderr.count("\n") == 1
    assert planned.stdout == ""


def test_a_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    program = f'rmdir ../gone; exec {sys.executable} -m threadis "$0"'
    for command in ("plan", "serve", "--version"):
        done = subprocess.run(
            ["sh", "-c", program, command],
            cwd=tmp_path / "gone", capture_output=True, text=True, check=False,
        )  # fmt: skip
        (tmp_path / "gone").mkdir()
        said = "threadis: the current directory does not exist any more; change to another one\n"
        assert (done.returncode, done.stderr) == (1, said)


def test_plan_beside_one_that_runs(threadis: Callable[..., Threadis], run_threadis: Run) -> None:
    running = threadis("--instances", "2", "--appendonly", "yes")
    flags = ["--port", str(running.port), "--dir", str(running.folder), "--appendonly", "yes"]
    planned = run_threadis("plan", *flags)
    assert (planned.returncode, planned.stderr) == (0, "")
    holder = f"{running.folder} is in use by another threadis (process {running.process.pid})"
    assert f"note: {holder}\n" in planned.stdout
    assert run_threadis("plan", *flags, "--instances", "3").returncode == 1


def test_the_plan_says_that_the_number_of_instances_stays(run_threadis: Run, folders: Path) -> None:
    first = run_threadis("plan", "--dir", "new", "--workers", "1").stdout
    assert "there is no resharding yet; choose their number with --instances" in first
    DataDir(str(folders / "of-7")).open(7)
    moved = run_threadis("plan", "--dir", "of-7").stdout
    assert "note: the data has 7 instance(s); a new --dir would have" in moved
