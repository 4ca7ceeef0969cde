"""What cannot be read or made is said in one line, by ``plan`` as by ``serve``: why, what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from threadis.data.data_dir import DataDir

IS_ROOT = os.geteuid() == 0
# Even root is to need what the modes of files grant
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if IS_ROOT else []
READ_ONLY = [
    "unshare", "--mount",
    "sh", "-c", 'mount -t tmpfs -o ro,mode=755 none "$0" && exec "$@"', "read-only",
]  # fmt: skip

# A flag, and what is said; FULL is the file of the flag, or what is named beside it
DENIED = [
    ("--config", "locked", "config: user U may not read FULL: it belongs to user U, with mode 0; "),
    ("--requirepass-file", "locked", "requirepass-file: user U may not read FULL: it belongs to "),
    ("--aclfile", "locked", "aclfile: user U may not read FULL: it belongs to user U, with mode 0"),
    ("--aclfile", "closed/file", "may not read FULL: TOP/closed belongs to user U, with mode 0; "),
    ("--requirepass-file", "none", "cannot read FULL: No such file or directory; check --requirep"),
    ("--requirepass-file", "closed/f", "may not read FULL: TOP/closed belongs to user U, with mod"),
    ("--config", "none", "config: cannot read FULL: No such file or directory; check --config"),
    ("--aclfile", "ours.acl", "FULL, line 2: threadis-me: names that begin with threadis- are res"),
    ("--unixsocket", "closed/s", "unixsocket: user U may not make FULL: TOP/closed belongs to "),
    ("--unixsocket", "closed/in/s", "unixsocket: user U may not make FULL: TOP/closed belongs to "),
    ("--unixsocket", "file/s", "unixsocket: TOP/file is not a directory; choose another --unixsoc"),
    ("--unixsocket", "file/in/s", "unixsocket: cannot make FULL: Not a directory; choose another "),
    ("--dir", "closed/d", "may not read FULL/users.acl: TOP/closed belongs to user U, with mode 0"),
    ("--dir", "file/d", "dir: TOP/file is not a directory; choose another --dir"),
    ("--dir", "dangling", "dir: cannot use FULL: No such file or directory; choose another --dir"),
    (
        "--dir",
        "loop",
        "FULL/users.acl: Too many levels of symbolic links; choose another --dir",
    ),
    *(
        ("--dir", "data", f"dir: user U may not {what} FULL/{name}: it ")
        for name, what in (
            ("users.acl", "read"),
            ("settings.json", "read"),
            ("threadis.json", "read"),
            ("instance-0/id", "use"),
            ("instance-0/files", "read"),
            ("instance-0/dump.rdb", "use"),
        )
    ),
]


def words(top: Path, flag: str, name: str, before: list[str]) -> str:
    """What both say: the same line."""
    given = [
        word for pair in {"--dir": "new", "--port": "auto", flag: name}.items() for word in pair
    ]
    both = [  # one after the other: a directory in use is all that ``plan`` would say of it
        subprocess.run(
            [*before, sys.executable, "-m", "threadis", command, *given],
            cwd=top, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60,
            check=False,
        )
        for command in ("plan", "serve")
    ]  # fmt: skip
    planned, served = (one.stderr for one in both)
    assert [one.returncode for one in both] in ([1, 1], [2, 2])
    assert re.fullmatch(r"threadis: .*\n", served), served
    assert planned == served
    return served


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nobody may use; in a folder with a short name, because sockets' names have a limit."""
    top = tmp_path_factory.mktemp("d")
    (top / "locked").write_text("x")
    (top / "locked").chmod(0)
    (top / "file").touch()
    (top / "dangling").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "ours.acl").write_text("user bob on nopass\nuser threadis-me on nopass ~* +@all\n")
    for name in ("closed", "read-only"):
        (top / name).mkdir()
    (top / "closed").chmod(0)
    return top


@pytest.mark.sample
@pytest.mark.parametrize(("flag", "name", "said"), DENIED)
def test_what_we_may_not_is_said_with_what_to_do(
    folders: Path, flag: str, name: str, said: str
) -> None:
    if name == "data":
        data = DataDir(str(folders / name))
        data.open(1)
        data.close()
        locked = folders / name / said.partition("FULL/")[2].partition(":")[0]
        with locked.open("a"):
            locked.chmod(0)
    said = said.replace(" U", f" {os.geteuid()}").replace("FULL", str(folders / name))
    told = words(folders, flag, name, BOUND)
    assert said.replace("TOP", str(folders)) in told
    if "may not" in told:
        assert told.endswith("change its owner or its mode\n")


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
@pytest.mark.parametrize(
    ("flag", "name"),
    [("--dir", "read-only/d"), ("--dir", "read-only"), ("--unixsocket", "read-only/s")],
)
def test_what_is_mounted_for_reading_is_said(folders: Path, flag: str, name: str) -> None:
    told = words(folders, flag, name, READ_ONLY)
    assert f"{folders}/read-only is in a file system that is mounted read-only; " in told
    assert told.endswith(f"choose another {flag}\n")
