"""The data directory: its lock, its layout, and the refusal to start on wrong data.

    DIR/threadis.lock        flock, held by the supervisor and by every instance
    DIR/threadis.json        the number of instances, their ids, the slot map, placement rules
    DIR/sockets/             Unix sockets of the running instances
    DIR/instance-N/id        says which instance this directory belongs to
    DIR/instance-N/files     what its persistence files are like: ``data/integrity.py``
    DIR/instance-N/...       the stock server's own files, and server.log

Nothing is written before the lock is held, except that DIR itself is created if it does not exist.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from threadis.data import integrity, saved_settings
from threadis.data.layout import FORMAT, LAYOUT, PLACEMENT, Layout, even_slot_map, read_layout
from threadis.data.rdb_files import holds_keys
from threadis.errors import DataError
from threadis.system import file_errors, writable
from threadis.system.files import SOCKET_PATH_LIMIT, write_atomically
from threadis.system.process import activity

log = logging.getLogger("threadis")

ORPHANS_END = 5.0  # seconds; the kernel kills a dead supervisor's instances within milliseconds
Pin = tuple[int, int]  # a database, and the instance it lives on
LOCK, SOCKETS = "threadis.lock", "sockets"


class DataDir:
    """A locked data directory, fit for its instances."""

    def __init__(self, path: str, wanted: integrity.FileConfig | None = None) -> None:
        self.path = Path(path).absolute()
        self.wanted = wanted or integrity.FileConfig()
        self.lock_fds: list[int] = []  # of the directory itself, and of the file in it
        self.layout = Layout(FORMAT, PLACEMENT, 0, [], [])
        self._start_id = secrets.token_hex(4)

    def open(self, instances: int, rules: Sequence[str] = (), pins: Sequence[Pin] = ()) -> None:
        """Lock it and prepare it for so many instances and this placement of keys; or refuse, and
        change nothing.
        """
        self._check_socket_path(instances)
        try:
            self._lock()
            layout = read_layout(self.path)
            if layout is None:
                layout = self._create(instances, rules, pins)
            self.layout = layout
            self._check_instances(instances)
            self._check_all_files()
            self._check_strangers()
            self._place(list(rules), list(pins))
            self._clear_sockets()
        except OSError as error:
            self.close()
            raise self._unusable(error) from None
        except BaseException:
            self.close()
            raise

    def examine(self, instances: int, rules: Sequence[str] = (), pins: Sequence[Pin] = ()) -> str:
        """Refuse what ``open`` would refuse, unless it is in use, and change nothing; return its
        user.

        The files of running instances are not checked.
        """
        self._check_socket_path(instances)
        try:
            return self._examine(instances, list(rules), list(pins))
        except OSError as error:
            raise self._unusable(error) from None

    def _examine(self, instances: int, rules: list[str], pins: list[Pin]) -> str:
        if not os.path.lexists(self.path):
            self._check_can_be_made()
            return ""
        _check_folder(self.path)
        layout = read_layout(self.path)
        if layout is None:
            self._check_unused()
            return ""
        self.layout = layout
        self._check_instances(instances)
        self._check_strangers()
        self._is_placed(rules, pins)
        if self._is_in_use():
            return _holder(self.path / LOCK)
        self._check_all_files()
        return ""

    def _unusable(self, error: OSError) -> DataError:
        path = error.filename or self.path
        return DataError(f"dir: {file_errors.explain('use', path, error, 'choose another --dir')}")

    def _check_can_be_made(self) -> None:
        if why := file_errors.explain_create(self.path, "choose another --dir"):
            raise DataError(f"dir: {why}")

    def _is_in_use(self) -> bool:
        for path in (self.path, self.path / LOCK):
            with contextlib.suppress(FileNotFoundError), _opened(path) as fd:
                if not _try_lock(fd, fcntl.LOCK_SH):
                    return True
        return False

    def close(self) -> None:
        """Remove the sockets and release the lock, which running children still hold."""
        if self.lock_fds:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.path / SOCKETS)
        self._unlock()

    def _unlock(self) -> None:
        while self.lock_fds:
            os.close(self.lock_fds.pop())

    def folder(self, index: int) -> Path:
        """Return the directory of an instance."""
        return self.path / f"instance-{index}"

    def socket_path(self, index: int, start: int) -> str:
        """Return a name for one process: a server that ends late unlinks its socket by name."""
        return str(self.path / SOCKETS / f"i{index}-{self._start_id}-{start}.sock")

    def make_socket_folder(self) -> None:
        """Create the directory of sockets again, if it was deleted."""
        (self.path / SOCKETS).mkdir(mode=0o700, exist_ok=True)

    def check_files(self, index: int) -> integrity.DataSource:
        """Check an instance's files, and return what it is to load."""
        folder, wanted = self.folder(index), self.wanted
        source = integrity.check(folder, wanted)
        log = folder / wanted.folder
        is_logged = wanted.is_logged or source.is_log
        logs = [log, *log.glob("*.incr.aof")] if is_logged else []
        writable.check_writable([folder, folder / "server.log", *logs])
        return source

    # -- opening --

    def _check_socket_path(self, instances: int) -> None:
        """Refuse a path that is too long for the kernel, before anything is written."""
        longest = os.fsencode(self.socket_path(instances - 1, 999_999_999))
        if len(longest) > SOCKET_PATH_LIMIT:
            over = len(longest) - SOCKET_PATH_LIMIT
            raise DataError(
                f"dir: {self.path} is {over} bytes too long for the Unix sockets in it; "
                "choose a shorter --dir"
            )

    def _lock(self) -> None:
        """Lock the directory and ``threadis.lock``, which names the holder; create the directory if
        needed.

        The file alone is not enough: it may be deleted.
        """
        if not os.path.lexists(self.path):
            self._check_can_be_made()
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        _check_folder(self.path)
        path = self.path / LOCK
        try:
            self._take(self.path, os.O_RDONLY | os.O_DIRECTORY)
            if not path.exists() and read_layout(self.path) is None:
                self._check_unused()
            fd = self._take(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        except BaseException:
            self._unlock()
            raise
        with contextlib.suppress(OSError):  # a full disk; the name of the holder is a courtesy
            os.truncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _take(self, path: Path, flags: int) -> int:
        """Lock one of them, or refuse; return its descriptor."""
        try:
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        self.lock_fds.append(fd)
        if not _lock_soon(fd, self.path / LOCK):
            raise DataError(
                f"dir: {self.path} is in use by another threadis (process "
                f"{_holder(self.path / LOCK)}); stop that one, or choose another --dir"
            )
        return fd

    def _check_unused(self) -> None:
        """Refuse a directory that holds something else."""
        for path in self._entries():
            if path.name.startswith("instance-") and (path / "id").is_file():
                raise DataError(
                    f"dir: {self.path / LAYOUT} is missing, but {path.name} exists; restore it "
                    "from a backup, or choose another --dir"
                )
            raise DataError(
                f"dir: {self.path} holds {path.name} but no data of threadis; "
                "choose another --dir, or a new one"
            )

    def _entries(self) -> Iterator[Path]:
        """Yield what is in the directory and is not ours."""
        saved = (saved_settings.USERS, saved_settings.SETTINGS)
        ours = {LOCK, LAYOUT, LAYOUT + ".new", SOCKETS, "lost+found", *saved}
        for path in sorted(self.path.iterdir()):
            if path.name not in ours and not self._is_fresh(path):
                yield path

    def _is_fresh(self, path: Path) -> bool:
        """Whether it is an instance's directory of a first start that was interrupted."""
        if not path.name.startswith("instance-") or not path.is_dir():
            return False
        return all(inside.name in ("id", "id.new") for inside in path.iterdir())

    def _create(self, instances: int, rules: Sequence[str], pins: Sequence[Pin]) -> Layout:
        """First start: create the instances' directories and then, last, the layout."""
        self._check_unused()
        ids = [secrets.token_hex(8) for _ in range(instances)]
        for index, identity in enumerate(ids):
            self.folder(index).mkdir(mode=0o700, exist_ok=True)
            write_atomically(self.folder(index) / "id", f"{identity}\n".encode())
        slot_map = even_slot_map(instances)
        layout = Layout(FORMAT, PLACEMENT, instances, ids, slot_map, list(rules), list(pins))
        return self._record(layout)

    def _record(self, layout: Layout) -> Layout:
        layout = msgspec.structs.replace(layout, checksum=layout.sum())
        content = msgspec.json.format(msgspec.json.encode(layout), indent=1)
        write_atomically(self.path / LAYOUT, content + b"\n")
        return layout

    def _place(self, rules: list[str], pins: list[Pin]) -> None:
        """Record another placement of keys; refuse it if there are keys."""
        if not self._is_placed(rules, pins):
            changed = msgspec.structs.replace(self.layout, rules=rules, pins=pins)
            self.layout = self._record(changed)

    def _is_placed(self, rules: list[str], pins: list[Pin]) -> bool:
        """Whether keys are placed like that; otherwise there must be none."""
        layout = self.layout
        if (layout.rules, layout.pins) == (rules, pins):
            return True
        if any(holds_keys(self.folder(index)) for index in range(layout.instances)):
            raise DataError(
                f"placement: {self.path} holds keys that were placed "
                f"{_flags(layout.rules, layout.pins)}; start it like that, or choose a new --dir "
                "(resharding is not available yet)"
            )
        return False

    def _check_instances(self, instances: int) -> None:
        """Refuse another number of instances, and missing or swapped directories."""
        recorded = self.layout.instances
        if instances != recorded:
            raise DataError(
                f"instances: {self.path} holds the data of {recorded} instances, not {instances}; "
                f"start with --instances {recorded}, or choose a new --dir "
                "(resharding is not available yet)"
            )
        for index, identity in enumerate(self.layout.ids):
            folder = self.folder(index)
            try:
                found = (folder / "id").read_text("ascii").strip()
            except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
                raise DataError(
                    f"dir: {folder} is missing, or has lost its file id; restore it from a backup"
                ) from None
            if found != identity:
                raise DataError(
                    f"dir: {folder} belongs elsewhere (its id is {found}, not {identity}); "
                    "directories were swapped or mixed, put them back"
                )

    def _check_all_files(self) -> None:
        for index in range(self.layout.instances):
            self.check_files(index)

    def _check_strangers(self) -> None:
        """Refuse data in places where no instance reads it."""
        for path in self._entries():
            number = path.name.removeprefix("instance-")
            is_instance = number != path.name and number.isdecimal()
            if is_instance and int(number) >= self.layout.instances:
                raise DataError(
                    f"dir: {path} belongs to no instance: {LAYOUT} has {self.layout.instances}; "
                    f"move it away, or restore {LAYOUT} from a backup"
                )
            is_log = path.is_dir() and any(path.glob("*.manifest"))
            if not is_instance and (is_log or path.suffix in (".rdb", ".aof")):
                raise DataError(
                    f"dir: {path} is not read by any instance; move it away, and bring its data "
                    "in through clients (docs/configuration.md)"
                )

    def _clear_sockets(self) -> None:
        """Remove sockets of a killed start; the lock proves that they are not in use."""
        folder = self.path / SOCKETS
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        self.make_socket_folder()


def _flags(rules: Sequence[str], pins: Sequence[Pin]) -> str:
    """Format a placement as flags."""
    flags = [f"--placement '{rule}'" for rule in rules]
    flags += [f"--pin-database {db}={instance}" for db, instance in pins]
    return f"with {' '.join(flags)}" if flags else "without --placement and --pin-database"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _try_lock(fd: int, how: int) -> bool:
    """Try to lock; some file systems cannot lock directories."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    return True


def _lock_soon(fd: int, name: Path) -> bool:
    """Lock; wait only for the instances of a supervisor that was just killed."""
    deadline = time.monotonic() + ORPHANS_END
    while not _try_lock(fd, fcntl.LOCK_EX):
        holder = _holder(name)
        if not holder.isdecimal() or activity(int(holder)).state != "Z":
            return False
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _holder(path: Path) -> str:
    """Return the process id that the holder has written into the file."""
    try:
        return path.read_bytes()[:32].decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


def _check_folder(path: Path) -> None:
    """Refuse a directory that we cannot write to, or that everybody may write to.

    A volume may belong to another user, and be writable through its group, or because we are root.
    """
    found, us = path.stat(), os.geteuid()
    if not stat.S_ISDIR(found.st_mode):
        raise DataError(f"dir: {path} is not a directory; choose another --dir")
    if path.lstat().st_uid not in (us, 0, found.st_uid):
        raise DataError(
            f"dir: {path} is a link of user {path.lstat().st_uid}; name the directory itself"
        )
    is_ours = found.st_uid == us and not found.st_mode & stat.S_ISVTX
    if found.st_mode & stat.S_IWOTH:
        if is_ours and (path / LAYOUT).exists():
            raise DataError(f"dir: everybody may write to {path}; run: chmod o-w {path}")
        raise DataError(
            f"dir: everybody may write to {path}; name a directory in it, which is made: "
            f"--dir {path / 'threadis-data'}"
        )
    if writable.is_mounted_for_reading(path):
        raise DataError(
            f"dir: {path} is in a file system that is mounted read-only; mount it for writing, or "
            "choose another --dir"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataError(
            f"dir: {path} belongs to user {found.st_uid} and cannot be written to by user {us}; "
            "choose another --dir, or change its owner or group"
            if not is_ours
            else f"dir: {path} is not writable; run: chmod u+rwx {path}"
        )
    if found.st_uid not in (us, 0):
        log.warning("dir: %s belongs to user %d, who can change what is in it", path, found.st_uid)
