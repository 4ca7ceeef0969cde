"""Checks whether we may write where the servers will."""

import os
from collections.abc import Iterable
from pathlib import Path

from threadis.errors import DataError


def check_writable(paths: Iterable[Path]) -> None:
    """Refuse existing files that we cannot write to; a server would fail with a vague error."""
    for path in paths:
        if path.exists() and not os.access(path, os.W_OK):
            raise DataError(
                f"dir: user {os.geteuid()} may not write to {path}; give it back the owner and "
                f"the rights that {path.parent} has"
            )


def is_mounted_for_reading(path: Path) -> bool:
    """Whether the file system is mounted read-only."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
