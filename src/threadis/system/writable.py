"""Owns the question whether we may write where the servers will."""

import os
from collections.abc import Iterable
from pathlib import Path

from threadis.errors import DataError


def check(paths: Iterable[Path]) -> None:
    """Refuse what is there and cannot be written to; a server would end with half a reason."""
    for path in paths:
        if path.exists() and not os.access(path, os.W_OK):
            raise DataError(
                f"dir: user {os.geteuid()} may not write to {path}; give it back the owner and "
                f"the rights that {path.parent} has"
            )


def is_mounted_for_reading(path: Path) -> bool:
    """Whether nobody can write there."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
