"""Checks an instance's files before it is started: complete, its own, nothing missing.

A server starts empty, without a warning, if its append-only file was deleted, and loads whatever is
in the place of its snapshot. So the files are recorded in ``instance-N/files``: while the instance
runs, whenever they change, and at an orderly stop, after which nothing may change them. The next
start compares. Only the record is written here.
"""

import contextlib
import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from threadis.data.rdb_files import holds_keys, snapshot_fault, snapshot_time
from threadis.errors import DataError
from threadis.system import file_errors
from threadis.system.files import write_atomically

RECORD = "files"
BLOCK, BLOCKS = 4096, 256  # bytes and number of the pieces of a file that its seal covers


@dataclass(frozen=True)
class FileConfig:
    """What the configuration says of an instance's files."""

    dump: str = "dump.rdb"
    folder: str = "appendonlydir"
    log: str = "appendonly.aof"
    is_logged: bool = False  # appendonly yes
    databases: int = 16


class FileDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was: its length, and a digest of its content up to there."""

    size: int
    digest: str


class LogFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the append-only log, from its manifest."""

    name: str
    number: int  # rises with each rewrite
    kind: str  # b: base; i: increment; h: history, on its way out
    seal: FileDigest


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``instance-N/files``."""

    is_clean: bool  # written after an orderly end: nothing may have changed since
    boot: str  # of the machine; until its next one files do not get shorter by themselves
    is_logged: bool  # the append-only log has the newest data, not the snapshot
    databases: int
    dump: str
    snapshot: FileDigest | None
    time: int  # of the snapshot, as it says itself; seconds
    folder: str
    log: str
    manifest: str | None  # digest
    parts: list[LogFile]


class DataSource(NamedTuple):
    """What an instance is to load, and how certain it is that this is its own."""

    is_log: bool | None  # the append-only log, or the snapshot; None: there is neither
    is_proved: bool  # it is, byte by byte, what the record says
    grew: bool  # it is, but for what the log has been given since
    databases: int | None  # with how many it was written


def check(folder: Path, wanted: FileConfig) -> DataSource:
    """Return what to load; DataError if that is damaged, incomplete, older, or another's."""
    before, now = _read_record(folder), read_files(folder, wanted)
    if before is not None:
        _check_names(folder, wanted, before)
    _refuse_strangers(folder, wanted)
    if before is not None:
        return _compare(folder, wanted, before, now)
    is_log = now.manifest is not None and (wanted.is_logged or now.snapshot is None)
    if is_log:
        _check_parts(folder, wanted, now)
    else:
        _check_whole(folder / wanted.dump, now.snapshot)
    is_there = is_log or now.snapshot is not None
    return DataSource(is_log if is_there else None, is_proved=False, grew=False, databases=None)


def read_files(folder: Path, wanted: FileConfig) -> FileRecord:
    """Describe the present files."""
    dump = folder / wanted.dump
    is_there = dump.is_file()
    manifest, parts = _read_manifest(folder / wanted.folder, wanted)
    return FileRecord(
        is_clean=False,
        boot=_boot(),
        is_logged=wanted.is_logged,
        databases=wanted.databases,
        dump=wanted.dump,
        snapshot=digest(dump) if is_there else None,
        time=snapshot_time(dump) if is_there else 0,
        folder=wanted.folder,
        log=wanted.log,
        manifest=manifest,
        parts=parts,
    )


def record(folder: Path, wanted: FileConfig, *, is_clean: bool) -> None:
    """Write the record of the present files; OSError if the disk refuses."""
    _write(folder, msgspec.structs.replace(read_files(folder, wanted), is_clean=is_clean))


def _write(folder: Path, record: FileRecord) -> None:
    write_atomically(folder / RECORD, msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def mark_running(folder: Path) -> None:
    """Note, before a server starts, that files may change from now on."""
    with contextlib.suppress(DataError):
        before = _read_record(folder)
        if before is None or not before.is_clean:
            return
        try:
            _write(folder, msgspec.structs.replace(before, is_clean=False, boot=_boot()))
        except OSError:  # a full disk: no record asks for less than one that is wrong
            (folder / RECORD).unlink()


def signature(folder: Path, wanted: FileConfig) -> tuple[tuple[int, ...], int]:
    """Return what changes when files are added, removed or replaced; and the log's length."""
    found: list[int] = []
    for path in (folder / wanted.dump, folder / wanted.folder / f"{wanted.log}.manifest"):
        with contextlib.suppress(OSError):
            known = path.stat()
            found += [known.st_ino, known.st_size, known.st_mtime_ns]
        found.append(-1)
    return tuple(found), log_size(folder, wanted)


def log_size(folder: Path, wanted: FileConfig) -> int:
    """Return the length of the append-only log, in bytes."""
    size = 0
    for path in (folder / wanted.folder).glob("*.aof"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return size


def digest(path: Path, size: int | None = None) -> FileDigest:
    """Compute a file's digest, or that of its first ``size`` bytes."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size if size is None else size
        hasher = hashlib.sha256()
        step = max(BLOCK, (length - BLOCK) // (BLOCKS - 1)) if length > BLOCK else BLOCK
        starts = [*range(0, length - BLOCK, step), max(0, length - BLOCK)]
        for start in starts:
            file.seek(start)
            hasher.update(file.read(min(BLOCK, length - start)))
    return FileDigest(length, hasher.hexdigest()[:32])


# -- comparing --


def _compare(folder: Path, wanted: FileConfig, before: FileRecord, now: FileRecord) -> DataSource:
    """Compare with the record; return what to load."""
    if wanted.databases < before.databases and holds_keys(folder):
        raise DataError(
            f"databases: {folder} holds data of {before.databases} databases, not "
            f"{wanted.databases}; start with --databases {before.databases} or more"
        )
    if before.is_clean:
        _check_untouched(folder, wanted, before, now)
        is_log = before.is_logged
    else:
        # While no log is written its manifest does not change: it was switched on since. It has
        # none before it is first written: until then there is no log
        had_log = before.is_logged and before.manifest is not None
        is_log = had_log or now.manifest not in (None, before.manifest)
        if is_log and _was_switched_off(before, now):
            # Then BGREWRITEAOF has written a base; a snapshot may be newer
            base = next(one.name for one in now.parts if one.kind == "b")
            written = snapshot_time(folder / wanted.folder / base)
            is_log = now.snapshot is None or written > now.time
    if not is_log and wanted.is_logged and now.snapshot is None and before.snapshot is None:
        is_log = bool(now.parts)  # it was switched off, and is all there is
    if is_log:
        proved, grew = _check_parts(folder, wanted, now, before)
    else:
        _check_snapshot(folder / wanted.dump, before, now)
        proved, grew = now.snapshot == before.snapshot, False
    is_there = is_log or now.snapshot is not None or now.manifest is not None
    return DataSource(is_log if is_there else None, proved, grew, before.databases)


def _check_names(folder: Path, wanted: FileConfig, before: FileRecord) -> None:
    """Refuse other file names than those that hold the data."""
    if before.snapshot and not before.is_logged and before.dump != wanted.dump:
        raise DataError(
            f"dir: the data of {folder} is in {before.dump}, not in {wanted.dump}; start with "
            f"--set dbfilename={before.dump}, or rename it and delete {folder / RECORD}"
        )
    names = (before.folder, before.log)
    if before.manifest and before.is_logged and names != (wanted.folder, wanted.log):
        raise DataError(
            f"dir: the data of {folder} is in {before.folder}/{before.log}.*, not in "
            f"{wanted.folder}/{wanted.log}.*; start with --set appenddirname={before.folder} "
            f"--set appendfilename={before.log}"
        )


def _check_untouched(folder: Path, wanted: FileConfig, before: FileRecord, now: FileRecord) -> None:
    """After an orderly stop everything must be exactly as it was left."""
    dump, log = folder / wanted.dump, folder / wanted.folder
    if before.dump == wanted.dump:
        _check_same(folder, dump, before.snapshot, now.snapshot)
    if (before.folder, before.log) == (wanted.folder, wanted.log):
        _check_same(folder, log / f"{wanted.log}.manifest", before.manifest, now.manifest)
        for old, new in zip(before.parts, now.parts, strict=True):
            if old.kind != "h":
                _check_same(folder, log / old.name, old.seal, new.seal)


def _check_same(
    folder: Path, path: Path, old: FileDigest | str | None, new: FileDigest | str | None
) -> None:
    if old == new:
        return
    if new is None or (isinstance(new, FileDigest) and not new.digest):
        raise DataError(_gone(folder, path))
    if old is None:
        raise DataError(
            f"dir: {path} did not exist when this instance was stopped; move it away, or, to "
            f"start with it, delete {folder / RECORD}"
        )
    raise DataError(_strange(folder, path, old, new))


def _check_snapshot(dump: Path, before: FileRecord, now: FileRecord) -> None:
    """Refuse a snapshot that is missing, damaged, or older than the recorded one."""
    if before.dump == dump.name and before.snapshot:
        if now.snapshot is None:
            raise DataError(_gone(dump.parent, dump))
        if now.time < before.time:
            raise DataError(
                f"dir: {dump} is older than the snapshot that was there; put that one back, or, "
                f"to start with this one, delete {dump.parent / RECORD}"
            )
    _check_whole(dump, now.snapshot)


def _check_whole(dump: Path, found: FileDigest | None) -> None:
    if found and (fault := snapshot_fault(dump)):
        raise DataError(_damaged(dump, fault))


def _check_parts(
    folder: Path, wanted: FileConfig, now: FileRecord, before: FileRecord | None = None
) -> tuple[bool, bool]:
    """Whether the log is what was recorded, and whether it is but for what came behind."""
    log = folder / wanted.folder
    manifest = log / f"{wanted.log}.manifest"
    if now.manifest is None:
        raise DataError(_gone(folder, manifest))
    if not now.parts:
        raise DataError(_damaged(manifest, "it is empty, or not a manifest"))
    # History files do not count: a server deletes them, and then removes them from the manifest
    parts = [one for one in now.parts if one.kind != "h"]
    for one in parts:
        if not one.seal.digest:
            raise DataError(
                f"dir: {log / one.name} is missing, although {manifest.name} names it; "
                "restore it from a backup"
            )
        if one.name.endswith(".rdb") and (fault := snapshot_fault(log / one.name)):
            raise DataError(_damaged(log / one.name, fault))
    if before is None:
        return False, False
    for kind in "b" if _was_switched_off(before, now) else "bi":
        if _newest(now, kind) < _newest(before, kind):
            raise DataError(_strange(folder, manifest))
    known = {one.name: one for one in before.parts if one.kind != "h"}
    proved, grew = True, True
    for one in parts:
        old = known.get(one.name)
        if old:
            _check_part(folder, log / one.name, old, one, before)
        proved = proved and old is not None and old.seal == one.seal
        grew = grew and old is not None
    return proved, grew


def _was_switched_off(before: FileRecord, now: FileRecord) -> bool:
    """Whether the log was rewritten since, while nothing was written to it."""
    return _newest(now, "b") > _newest(before, "b") and _newest(now, "i") == 0


def _newest(record: FileRecord, kind: str) -> int:
    return max((one.number for one in record.parts if one.kind == kind), default=0)


def _check_part(folder: Path, path: Path, old: LogFile, new: LogFile, before: FileRecord) -> None:
    """A file of the log may only grow beyond what was recorded; a base not even that."""
    if new.kind == "i" and new.seal.size < old.seal.size and before.boot != _boot():
        return  # a machine that fails loses the end; the server judges that
    if new.seal.size >= old.seal.size:
        start = new.seal if new.kind == "b" else digest(path, old.seal.size)
        if start == old.seal:
            return
    raise DataError(_strange(folder, path, old.seal, new.seal))


def _gone(folder: Path, path: Path) -> str:
    return (
        f"dir: {path} existed when this instance was stopped and is missing; put it back, or, to "
        f"start without its data, delete {folder / RECORD}"
    )


def _strange(folder: Path, path: Path, old: object = None, new: object = None) -> str:
    what = "is not what this instance left there"
    if isinstance(old, FileDigest) and isinstance(new, FileDigest) and new.size < old.size:
        what = f"has {new.size} bytes and had {old.size} when this instance left it"
    return (
        f"dir: {path} {what}; put its own back (from a backup), or, to start with what is there "
        f"now, delete {folder / RECORD}"
    )


def _damaged(path: Path, fault: str) -> str:
    return f"dir: {path} is damaged ({fault}); restore it from a backup"


# -- reading --


def _read_record(folder: Path) -> FileRecord | None:
    path = folder / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=FileRecord)
    except FileNotFoundError:
        return None
    except OSError as error:
        otherwise = "restore it from a backup"
        raise DataError(f"dir: {file_errors.explain('read', path, error, otherwise)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DataError(
            f"dir: {path} is damaged; restore it from a backup, or, to start with whatever data "
            "is there, delete it"
        ) from None


def _read_manifest(log: Path, wanted: FileConfig) -> tuple[str | None, list[LogFile]]:
    """Return the manifest's digest, and its files: none if it is damaged."""
    try:
        content = (log / f"{wanted.log}.manifest").read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None, []
    parts = []
    try:
        for line in content.decode().splitlines():
            if not line.startswith("#"):
                words = shlex.split(line)
                fields = dict(zip(words[::2], words[1::2], strict=True))
                file = log / fields["file"]
                there = digest(file) if file.is_file() else FileDigest(0, "")
                parts.append(LogFile(fields["file"], int(fields["seq"]), fields["type"], there))
    except (ValueError, KeyError):
        parts = []
    return hashlib.sha256(content).hexdigest()[:32], parts


def _refuse_strangers(folder: Path, wanted: FileConfig) -> None:
    """Refuse data files under other names: they were put there on purpose."""
    for path in sorted(folder.iterdir()):
        is_data = path.suffix in (".rdb", ".aof") and path.name != wanted.dump
        if is_data and path.is_file() and not path.name.startswith("temp-"):
            raise DataError(
                f"dir: {path} is not this instance's (its snapshot is {wanted.dump}, its log "
                f"{wanted.folder}/{wanted.log}.*); move it away"
            )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
