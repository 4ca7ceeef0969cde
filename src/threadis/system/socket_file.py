"""Keeps an instance reachable when its socket's file, or the folder, is deleted.

A server cannot bind its socket again. But the socket lives as long as the server, and an open
descriptor of the file leads to it: a link to that descriptor replaces the file.
"""

import logging
import os
from pathlib import Path

log = logging.getLogger("threadis")


class SocketFile:
    """The file of one process's socket."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._fd: int | None = None
        self._obstacle = ""  # why it could not be put back, as it was told last

    def hold(self) -> None:
        """The server has bound it: open the file, so that it cannot be lost."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_PATH | os.O_CLOEXEC)

    def mend(self) -> None:
        """Restore the file if it was deleted."""
        if self._fd is None or self._path.exists():
            return
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.unlink(missing_ok=True)
            self._path.symlink_to(f"/proc/{os.getpid()}/fd/{self._fd}")
        except OSError as error:
            if error.strerror != self._obstacle:
                self._obstacle = error.strerror or ""
                log.error(
                    "%s was deleted and cannot be restored (%s): its instance may soon be "
                    "unreachable; create that folder, or restart thREaDIS",
                    self._path,
                    error.strerror,
                )
        else:
            self._obstacle = ""
            log.warning("%s was deleted; it was replaced by a link to the socket", self._path)

    def close(self) -> None:
        """The process is gone, or another object takes over."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
