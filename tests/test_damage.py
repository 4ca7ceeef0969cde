"""Data never silently starts empty or foreign: whatever happened to the files, a start serves all
of the data, or refuses in one line that names the file and what to do.

Each damage is done to a copy of a data directory that was stopped in order, and of one that was
killed. What is refused from the files alone costs no start.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from conftest import Threadis
from threadis.config import config
from threadis.data.data_dir import DataDir
from threadis.errors import DataError
from threadis.supervisor import instance_config, server
from waiting import until

FULL = os.environ.get("THREADIS_TORTURE") == "full"
SEED = int(os.environ.get("THREADIS_SEED", "1"))
KEYS = {f"key:{number}": f"value {number}" for number in range(200)}
REMEDY = re.compile(r"restore it|put \S+ (own |one )?(file )?back|delete|move it away|start with")
FLAGS = {"snapshots": ["--save", "3600 1"], "log": ["--appendonly", "yes", "--save", ""]}
ENDS = ("stopped", "killed")


class Start:
    """How thREaDIS is started on a copy."""

    def __init__(self, folder: Path, path: str, flags: list[str]) -> None:
        self.folder, self.path, self.flags = folder, path, flags

    def refusal(self) -> str | None:
        """The line with which it is refused, or None after all keys were found."""
        given = dict(zip(self.flags[::2], self.flags[1::2], strict=True))
        sets = [given.pop("--set")] if "--set" in given else []
        knobs = {name[2:].replace("-", "_"): value for name, value in given.items()}
        settings = config.load(knobs, sets)
        data = DataDir(str(self.folder), instance_config.wanted(settings))
        try:
            data.open(2)
        except DataError as error:
            return str(error)
        data.close()
        running = self.serve()
        try:
            until(
                lambda: "serving " in running.log() or running.process.poll() is not None,
                "it serves or is refused",
                30,
            )
            if running.process.poll() is not None:
                assert "Traceback" not in running.log()
                assert "serving" not in running.log()
                return running.log().splitlines()[-1]
            assert found_keys(running) == KEYS
            assert running.stop() == 0
        finally:
            running.close()
        return None

    def serve(self) -> Threadis:
        log = self.folder.with_suffix(".log")
        return Threadis(self.folder, log, ["--server", self.path, "--instances", "2",
                                           "--workers", "1", *self.flags])  # fmt: skip


def write_all(client: redis.Redis) -> None:
    for name, value in KEYS.items():
        client.set(name, value)


def found_keys(running: Threadis) -> dict[str, str]:
    with running.client(decode_responses=True) as client:
        names = sorted(client.scan_iter(count=1000))
        assert client.dbsize() == len(names)
        return {name: client.get(name) for name in names}


@pytest.fixture(scope="module")
def originals(stock_server: server.ServerBinary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of both kinds, stopped and killed, and what strangers would lay into it."""
    folder = tmp_path_factory.mktemp("originals")
    for kind, flags in FLAGS.items():
        for end in ENDS:
            running = Start(folder / f"{kind}-{end}", stock_server.path, flags).serve()
            try:
                running.wait_until_serving()
                fill(running, kind)
                if end == "stopped":
                    assert running.stop() == 0
                else:
                    os.kill(running.process.pid, signal.SIGKILL)
            finally:
                running.close()
    stranger(folder / "stranger", stock_server.path)
    return folder


def fill(running: Threadis, kind: str) -> None:
    """Write the keys, and wait until what is on disk is recorded."""
    with running.client() as client:
        write_all(client)
        if kind == "snapshots":
            client.save()

    def is_recorded() -> bool:
        for index in range(2):
            instance = running.folder / f"instance-{index}"
            record = json.loads((instance / "files").read_bytes())
            if kind == "snapshots":
                if not record["snapshot"]:
                    return False
                continue
            size = sum(path.stat().st_size for path in instance.glob("appendonlydir/*.incr.aof"))
            if sum(one["seal"]["size"] for one in record["parts"] if one["kind"] == "i") < size:
                return False
        return True

    until(is_recorded, "the files are recorded")


def copy(original: Path, folder: Path) -> None:
    """As a backup would: without the sockets of those that were killed."""
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("sockets"))


def stranger(folder: Path, path: str) -> None:
    """What a stock server leaves that has other keys."""
    folder.mkdir()
    process = subprocess.Popen(
        [path, "--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder),
         "--appendonly", "yes", "--logfile", str(folder / "log")]
    )  # fmt: skip
    try:
        until((folder / "s").exists, "the socket")
        with redis.Redis(unix_socket_path=str(folder / "s")) as client:
            for number in range(200):
                client.set(f"other:{number}", "theirs")
            client.save()
    finally:
        process.terminate()
        process.wait()


# -- damages: to files of the first instance --


def log_file(folder: Path, kind: str, index: int = 0) -> Path:
    (found,) = (folder / f"instance-{index}" / "appendonlydir").glob(f"*.{kind}*")
    return found


def cut(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


def spoil(path: Path, share: float) -> None:
    """Change a few bytes in the middle."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * share)
    content[at : at + 4] = bytes(byte ^ 0xFF for byte in content[at : at + 4])
    path.write_bytes(content)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def dump(folder: Path, index: int = 0) -> Path:
    return folder / f"instance-{index}" / "dump.rdb"


def edit_layout(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = folder / "threadis.json"
    layout = json.loads(path.read_bytes())
    change(layout)
    path.write_text(json.dumps(layout))


def replace_tree(one: Path, other: Path) -> None:
    shutil.rmtree(one)
    shutil.copytree(other, one)


SNAPSHOTS: dict[str, Callable[[Path, Path], object]] = {
    "dump gone": lambda d, s: dump(d).unlink(),
    "dump empty": lambda d, s: cut(dump(d), 0),
    "dump of one byte": lambda d, s: os.truncate(dump(d), 1),
    "dump cut in half": lambda d, s: cut(dump(d), 0.5),
    "dump without its last byte": lambda d, s: os.truncate(dump(d), dump(d).stat().st_size - 1),
    "dump without its first byte": lambda d, s: dump(d).write_bytes(dump(d).read_bytes()[1:]),
    "dump spoilt early": lambda d, s: spoil(dump(d), 0.2),
    "dump spoilt late": lambda d, s: spoil(dump(d), 0.9),
    "dump spoilt at its header": lambda d, s: spoil(dump(d), 0),
    "dump with something behind": lambda d, s: dump(d).write_bytes(dump(d).read_bytes() + b"x" * 9),
    "dump is text": lambda d, s: dump(d).write_text("hello\n" * 100),
    "dump is a directory": lambda d, s: make_directory(dump(d)),
    "dump is a stranger's": lambda d, s: shutil.copyfile(s / "dump.rdb", dump(d)),
    "dump is that of the other": lambda d, s: shutil.copyfile(dump(d, 1), dump(d)),
    "dumps exchanged": lambda d, s: exchange(dump(d), dump(d, 1)),
    "dump renamed": lambda d, s: dump(d).rename(dump(d).with_name("dump2.rdb")),
    "a stranger's log beside": lambda d, s: shutil.copytree(
        s / "appendonlydir", d / "instance-0" / "appendonlydir"
    ),
}
LOG: dict[str, Callable[[Path, Path], object]] = {
    "increment gone": lambda d, s: log_file(d, "incr").unlink(),
    "increment empty": lambda d, s: cut(log_file(d, "incr"), 0),
    "increment cut in half": lambda d, s: cut(log_file(d, "incr"), 0.5),
    "increment without its last byte": lambda d, s: cut(log_file(d, "incr"), 0.9999),
    "increment spoilt early": lambda d, s: spoil(log_file(d, "incr"), 0.2),
    "increment spoilt late": lambda d, s: spoil(log_file(d, "incr"), 0.9),
    "increment is text": lambda d, s: log_file(d, "incr").write_text("hello\n" * 9000),
    "increment with the other's behind": lambda d, s: log_file(d, "incr").write_bytes(
        log_file(d, "incr").read_bytes() + log_file(d, "incr", 1).read_bytes()
    ),
    "increments exchanged": lambda d, s: exchange(log_file(d, "incr"), log_file(d, "incr", 1)),
    "base gone": lambda d, s: log_file(d, "base").unlink(),
    "base empty": lambda d, s: cut(log_file(d, "base"), 0),
    "base cut in half": lambda d, s: cut(log_file(d, "base"), 0.5),
    "base spoilt": lambda d, s: spoil(log_file(d, "base"), 0.5),
    "base is a stranger's snapshot": lambda d, s: shutil.copyfile(
        s / "dump.rdb", log_file(d, "base")
    ),
    "manifest gone": lambda d, s: log_file(d, "manifest").unlink(),
    "manifest empty": lambda d, s: cut(log_file(d, "manifest"), 0),
    "manifest cut in half": lambda d, s: cut(log_file(d, "manifest"), 0.5),
    "manifest is text": lambda d, s: log_file(d, "manifest").write_text("hello\n"),
    "manifest names no increment": lambda d, s: log_file(d, "manifest").write_text(
        log_file(d, "manifest").read_text().splitlines(keepends=True)[0]
    ),
    "log directory gone": lambda d, s: shutil.rmtree(d / "instance-0" / "appendonlydir"),
    "log directory empty": lambda d, s: replace_tree(
        d / "instance-0" / "appendonlydir", make_empty(d.with_name("empty"))
    ),
    "log directory is a stranger's": lambda d, s: replace_tree(
        d / "instance-0" / "appendonlydir", s / "appendonlydir"
    ),
    "log directories exchanged": lambda d, s: exchange(
        d / "instance-0" / "appendonlydir", d / "instance-1" / "appendonlydir"
    ),
    "log directory renamed": lambda d, s: (d / "instance-0" / "appendonlydir").rename(
        d / "instance-0" / "aof"
    ),
    "a log of an older version beside": lambda d, s: (
        d / "instance-0" / "appendonly.aof"
    ).write_text("*1\r\n$4\r\nPING\r\n"),
}
EITHER: dict[str, Callable[[Path, Path], object]] = {
    "instance directory gone": lambda d, s: shutil.rmtree(d / "instance-0"),
    "instance directory empty": lambda d, s: replace_tree(
        d / "instance-0", make_empty(d.with_name("empty"))
    ),
    "instance directories exchanged": lambda d, s: exchange(d / "instance-0", d / "instance-1"),
    "a third instance's directory": lambda d, s: shutil.copytree(
        d / "instance-1", d / "instance-2"
    ),
    "id gone": lambda d, s: (d / "instance-0" / "id").unlink(),
    "id spoilt": lambda d, s: spoil(d / "instance-0" / "id", 0.5),
    "layout gone": lambda d, s: (d / "threadis.json").unlink(),
    "layout empty": lambda d, s: cut(d / "threadis.json", 0),
    "layout cut in half": lambda d, s: cut(d / "threadis.json", 0.5),
    "layout with another slot map": lambda d, s: edit_layout(
        d, lambda layout: layout.update(slot_map=list(reversed_map(layout)))
    ),
    "layout with half a slot map": lambda d, s: edit_layout(
        d, lambda layout: layout.update(slot_map=reversed_map(layout)[:1])
    ),
    "layout with rules": lambda d, s: edit_layout(d, lambda layout: layout.update(rules=["a{*}"])),
    "record empty": lambda d, s: cut(d / "instance-0" / "files", 0),
    "record cut in half": lambda d, s: cut(d / "instance-0" / "files", 0.5),
    "a dump where stock would have it": lambda d, s: shutil.copyfile(
        s / "dump.rdb", d / "dump.rdb"
    ),
    "a log where stock would have it": lambda d, s: shutil.copytree(
        s / "appendonlydir", d / "appendonlydir"
    ),
    "nothing": lambda d, s: None,
}


def make_empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def reversed_map(layout: dict[str, object]) -> list[dict[str, int]]:
    ranges = layout["slot_map"]
    assert isinstance(ranges, list)
    return [{**one, "instance": 1 - one["instance"]} for one in ranges]


CASES = [
    *(("snapshots", end, *one) for one in SNAPSHOTS.items() for end in ENDS),
    *(("log", end, *one) for one in LOG.items() for end in ENDS),
    *((*how, *one) for one in EITHER.items() for how in zip(FLAGS, ENDS, strict=True)),
]
# The sample has every damage, after one of the two ends.
SAMPLE = [case for at, case in enumerate(CASES) if at % 2 == (at // 2 + SEED) % 2]


@pytest.mark.torture
@pytest.mark.parametrize(
    ("kind", "end", "damage"),
    [
        pytest.param(k, e, d, id=f"{n}, {k}, {e}".replace(" ", "-"))
        for k, e, n, d in (CASES if FULL else SAMPLE)
    ],
)
def test_a_damage_is_refused_or_harmless(
    originals: Path,
    stock_server: server.ServerBinary,
    tmp_path: Path,
    kind: str,
    end: str,
    damage: Callable[[Path, Path], object],
) -> None:
    folder = tmp_path / "data"
    copy(originals / f"{kind}-{end}", folder)
    damage(folder, originals / "stranger")
    line = Start(folder, stock_server.path, FLAGS[kind]).refusal()
    if line is not None:
        assert str(folder) in line or "instance-0" in line
        assert REMEDY.search(line), line


@pytest.mark.parametrize(
    ("kind", "end", "flags"),
    [
        ("snapshots", "stopped", FLAGS["log"]),
        ("log", "killed", FLAGS["snapshots"]),
        ("log", "stopped", ["--save", ""]),
    ],
    ids=["snapshots to log", "log to snapshots", "log to nothing"],
)
def test_data_follows_where_it_is_to_be(
    originals: Path,
    stock_server: server.ServerBinary,
    tmp_path: Path,
    kind: str,
    end: str,
    flags: list[str],
) -> None:
    """With another ``--appendonly`` than before, and back again."""
    folder = tmp_path / "data"
    copy(originals / f"{kind}-{end}", folder)
    for given in (flags, FLAGS[kind]):
        assert Start(folder, stock_server.path, given).refusal() is None


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("snapshots", "dbfilename=other.rdb"),
        ("log", "appenddirname=other"),
        ("log", "appendfilename=other.aof"),
    ],
)
def test_another_name_for_files_is_refused(
    originals: Path, stock_server: server.ServerBinary, tmp_path: Path, kind: str, flag: str
) -> None:
    folder = tmp_path / "data"
    copy(originals / f"{kind}-stopped", folder)
    line = Start(folder, stock_server.path, [*FLAGS[kind], "--set", flag]).refusal()
    assert line and "start with --set" in line


@pytest.mark.parametrize("kind", FLAGS)
def test_more_databases_are_taken_and_fewer_refused(
    originals: Path, stock_server: server.ServerBinary, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "data"
    copy(originals / f"{kind}-stopped", folder)
    more = [*FLAGS[kind], "--databases", "17"]
    assert Start(folder, stock_server.path, more).refusal() is None
    line = Start(folder, stock_server.path, [*FLAGS[kind], "--databases", "4"]).refusal()
    assert line and "holds data of 17 databases, not 4; start with --databases 17" in line
