"""Error texts about files that cannot be read or created: the reason, and what to do."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from threadis.system import writable

DENIED: Final = (errno.EACCES, errno.EPERM)


def explain(what: str, path: Path | str, error: OSError, otherwise: str) -> str:
    """Say why we cannot do that with a file; ``otherwise``: what to do if permissions are not the
    reason.
    """
    full = Path(path).absolute()
    if error.errno not in DENIED:
        return f"cannot {what} {full}: {error.strerror}; {otherwise}"
    barrier = _barrier(full)
    try:
        found = barrier.stat()
    except OSError:
        return f"user {os.geteuid()} may not {what} {full}; change its owner or its mode"
    it = f"{barrier} belongs" if barrier != full else "it belongs"
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"user {os.geteuid()} may not {what} {full}: {it} to user {found.st_uid}, with mode "
        f"{mode:o}; change its owner or its mode"
    )


def explain_create(path: Path, otherwise: str) -> str:
    """Say why a file cannot be created, and what to do; an empty text if that is unknown."""
    parent = path.parent
    try:
        if not stat.S_ISDIR(parent.stat().st_mode):
            return f"{parent} is not a directory; {otherwise}"
    except FileNotFoundError:
        return f"{parent} does not exist; create it first"
    except OSError as error:
        return explain("make", path, error, otherwise)
    if writable.is_mounted_for_reading(parent):
        return f"{parent} is in a file system that is mounted read-only; {otherwise}"
    if not os.access(parent, os.W_OK | os.X_OK):
        return explain("make", path, PermissionError(errno.EACCES, ""), otherwise)
    return ""


def _barrier(path: Path) -> Path:
    """Return the directory that denies access, or the path itself, or its future parent."""
    above = [one for one in reversed(path.parents) if not os.access(one, os.X_OK)]
    return above[0] if above else path if os.path.lexists(path) else path.parent
