"""Writes small files atomically; the length limit of socket paths."""

import os
from pathlib import Path
from typing import Final

SOCKET_PATH_LIMIT: Final = 107  # bytes; the kernel's sun_path, less its closing NUL


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by the new content, or not at all; on disk when this returns."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
