"""The data directory: one owner, recorded layout, nothing changed by a refusal."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from threadis.data import integrity
from threadis.data.data_dir import DataDir
from threadis.data.layout import SLOTS, even_slot_map, read_layout
from threadis.errors import DataError
from waiting import until


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below, with its time of change and its bytes."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def opened(folder: Path, instances: int = 2) -> DataDir:
    data = DataDir(str(folder))
    data.open(instances)
    return data


def refusal(folder: Path, instances: int = 2) -> str:
    """Why it does not open; proves that nothing was changed."""
    before = contents(folder)
    with pytest.raises(DataError) as caught:
        opened(folder, instances)
    after = contents(folder)
    after.pop(str(folder / "threadis.lock"), None)
    before.pop(str(folder / "threadis.lock"), None)
    assert after == before
    return str(caught.value)


@pytest.mark.parametrize("instances", [1, 2, 3, 7, 256])
def test_the_slot_map_covers_all(instances: int) -> None:
    ranges = even_slot_map(instances)
    assert [r.instance for r in ranges] == list(range(instances))
    assert (ranges[0].first, ranges[-1].last) == (0, SLOTS - 1)
    assert all(a.last + 1 == b.first for a, b in itertools.pairwise(ranges))
    sizes = {r.last - r.first + 1 for r in ranges}
    assert max(sizes) - min(sizes) <= 1


def test_it_is_made_private_and_reopened(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    data = opened(folder)
    layout = data.layout
    for path in (folder, folder / "sockets", folder / "instance-0", folder / "instance-1"):
        assert path.stat().st_mode & 0o777 == 0o700
    first = data.socket_path(0, 1)
    data.close()
    assert not (folder / "sockets").exists()
    again = opened(folder)
    assert again.layout == layout == read_layout(folder)
    assert again.socket_path(0, 1) != first
    again.close()


def test_a_second_one_is_refused_at_once(tmp_path: Path) -> None:
    data = opened(tmp_path / "data")
    lock = tmp_path / "data" / "threadis.lock"
    before = lock.stat().st_mtime_ns, lock.read_bytes()
    assert f"is in use by another threadis (process {os.getpid()})" in refusal(tmp_path / "data")
    assert (lock.stat().st_mtime_ns, lock.read_bytes()) == before
    data.close()
    opened(tmp_path / "data").close()


def test_a_lock_file_that_is_deleted_lets_nobody_in(tmp_path: Path) -> None:
    data = opened(tmp_path / "data")
    (tmp_path / "data" / "threadis.lock").unlink()
    assert "is in use by another threadis (process unknown)" in refusal(tmp_path / "data")
    assert not (tmp_path / "data" / "threadis.lock").exists()
    data.close()
    opened(tmp_path / "data").close()


def test_a_child_keeps_the_lock(tmp_path: Path) -> None:
    data = opened(tmp_path / "data")
    child = subprocess.Popen(["sleep", "60"], pass_fds=data.lock_fds)
    data.close()
    assert "in use" in refusal(tmp_path / "data")
    child.kill()
    child.wait()
    opened(tmp_path / "data").close()


def test_the_orphans_of_a_killed_owner_are_waited_for(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, os\n"
        "from threadis.data.data_dir import DataDir\n"
        "data = DataDir(sys.argv[1]); data.open(2)\n"
        "subprocess.Popen(['sleep', '0.3'], pass_fds=data.lock_fds)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    folder = tmp_path / "data"
    owner = subprocess.Popen([sys.executable, "-c", script, str(folder)])
    assert owner.wait() == -9
    opened(folder).close()


@pytest.mark.parametrize("instances", [1, 3])
def test_another_number_of_instances_is_refused(tmp_path: Path, instances: int) -> None:
    opened(tmp_path / "data").close()
    words = refusal(tmp_path / "data", instances)
    assert f"holds the data of 2 instances, not {instances}" in words
    assert "start with --instances 2, or choose a new --dir" in words


def test_swapped_directories_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    opened(folder).close()
    (folder / "instance-0").rename(folder / "x")
    (folder / "instance-1").rename(folder / "instance-0")
    (folder / "x").rename(folder / "instance-1")
    assert "instance-0 belongs elsewhere" in refusal(folder)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    opened(folder).close()
    (folder / "instance-1").rename(tmp_path / "elsewhere")
    assert "instance-1 is missing" in refusal(folder)


def test_a_vanished_file_is_refused_until_it_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    data = opened(folder)
    manifest = folder / "instance-1" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir()
    manifest.touch()
    integrity.record(folder / "instance-1", integrity.FileConfig(), is_clean=True)
    data.close()
    manifest.unlink()
    assert "appendonly.aof.manifest existed when this instance was stopped" in refusal(folder)
    (folder / "instance-1" / "files").unlink()
    opened(folder).close()


@pytest.mark.parametrize("content", ["", "{", '{"format":1}', '{"format":2}'])
def test_a_damaged_layout_is_refused(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "data"
    opened(folder).close()
    (folder / "threadis.json").write_text(content)
    assert "threadis.json" in refusal(folder)


def test_a_lost_layout_beside_data_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    opened(folder).close()
    (folder / "instance-0" / "dump.rdb").touch()
    (folder / "threadis.json").unlink()
    assert "threadis.json is missing, but instance-0 exists" in refusal(folder)


def test_a_first_start_that_was_cut_short_is_taken_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    opened(folder).close()
    (folder / "threadis.json").unlink()
    opened(folder).close()


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    assert "holds letter.txt but no data of threadis" in refusal(tmp_path)
    assert not (tmp_path / "threadis.lock").exists()


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in refusal(tmp_path / "file")
    assert "does not exist; create it first" in refusal(tmp_path / "no" / "data")


def test_an_open_one_is_refused(tmp_path: Path) -> None:
    """The advice never is to change a directory that is not ours, as /tmp."""
    folder = tmp_path / "data"
    folder.mkdir()
    for mode in (0o777, 0o1777, 0o2777):
        folder.chmod(mode)
        words = refusal(folder)
        assert f"everybody may write to {folder}; name a directory in it" in words
        assert f"--dir {folder}/threadis-data" in words
    opened(folder / "d").close()
    opened(tmp_path / "ours").close()
    (tmp_path / "ours").chmod(0o777)
    assert f"run: chmod o-w {tmp_path / 'ours'}" in refusal(tmp_path / "ours")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2775])
def test_a_volume_of_another_user_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    """As root; a bind mount, say."""
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    folder.chmod(mode)
    opened(folder).close()
    assert "belongs to user 12345, who can change what is in it" in caplog.text
    opened(folder).close()


AS_USER = """
import os, sys
from threadis.data.data_dir import DataDir
import codecs; codecs.lookup('ascii')  # now, while it can be read
os.setgroups([12346]); os.setgid(12346); os.setuid(12345)
data = DataDir(sys.argv[1]); data.open(2); data.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "words"),
    [
        (0, 12346, 0o2775, ""),  # a volume with fsGroup
        (0, 12346, 0o770, ""),
        (12345, 12346, 0o700, ""),
        (777, 12346, 0o770, ""),
        (0, 0, 0o755, "cannot be written to by user 12345"),
        (0, 12346, 0o755, "cannot be written to by user 12345"),
        (12345, 12346, 0o500, "run: chmod u+rwx"),
        (0, 12346, 0o777, "everybody may write"),
    ],
)
def test_a_volume_that_can_be_written_to_is_taken(
    owner: int, group: int, mode: int, words: str
) -> None:
    """As an ordinary user."""
    base = Path(tempfile.mkdtemp(dir="/tmp"))  # the user must get there
    try:
        base.chmod(0o755)
        folder = base / "data"
        folder.mkdir()
        os.chown(folder, owner, group)
        folder.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", AS_USER, str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert words in done.stderr if words else done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(base)


LOGGED_AS_USER = AS_USER.replace(
    "DataDir(sys.argv[1])",
    """DataDir(
    sys.argv[1], integrity.FileConfig(is_logged=True)
)""",
).replace("import os, sys", "import os, sys; from threadis.data import integrity")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    "name", ["server.log", "appendonlydir", "appendonlydir/appendonly.aof.1.incr.aof", "."]
)
def test_a_file_that_a_server_could_not_write_to_is_named(name: str) -> None:
    """Of a start as root, say, which an ordinary user's follows."""
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        base.chmod(0o755)
        folder = base / "data"
        opened(folder).close()
        log = folder / "instance-0" / "appendonlydir"
        log.mkdir()
        (log / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i")
        for path in (log / "appendonly.aof.1.incr.aof", folder / "instance-0" / "server.log"):
            path.touch()
        strange = folder / "instance-0" / name
        start = [sys.executable, "-c", LOGGED_AS_USER, str(folder)]
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 12345, 12346)
        assert subprocess.run(start, check=False).returncode == 0
        os.chown(strange, 0, 0)
        strange.chmod(0o755 if strange.is_dir() else 0o644)
        done = subprocess.run(start, capture_output=True, text=True, check=False)
        assert f"user 12345 may not write to {strange}; give it back" in done.stderr
    finally:
        shutil.rmtree(base)


def test_a_long_path_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    assert "bytes too long for the Unix sockets" in refusal(folder)
    assert not folder.exists()


def test_stale_sockets_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    opened(folder).close()
    (folder / "sockets").mkdir()
    (folder / "sockets" / "i0-old-1.sock").touch()
    data = opened(folder)
    assert list((folder / "sockets").iterdir()) == []
    data.close()
    until(lambda: not (folder / "sockets").exists(), "the sockets are gone")
