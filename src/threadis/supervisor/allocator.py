"""The memory allocator of the instances, if their server was built without jemalloc.

The server is not changed: a library is preloaded, or glibc's own allocator is tuned. Only the
instances get it; the proxy allocates nothing on its fast path.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from threadis.errors import ServerError
from threadis.supervisor.server import VERSION_TIMEOUT, ServerBinary

AUTO, NONE = "auto", "none"
PRELOAD, TUNABLES = "LD_PRELOAD", "GLIBC_TUNABLES"
JEMALLOC = "libjemalloc.so.2"  # jemalloc 4 and 5; the loader knows where libraries lie
# A batch of commands from a lane makes more small objects than the 7 of a size that glibc keeps
# at hand. So many cost a thread at most 35 MB (64 sizes of 24 to 1032 bytes).
TUNED = "glibc.malloc.tcache_count=1024"


def environment(choice: str, server: ServerBinary) -> dict[str, str]:
    """Return the additional environment of the instances."""
    has_jemalloc = not server.allocator.startswith("libc")
    if choice == AUTO:
        if has_jemalloc or PRELOAD in os.environ or TUNABLES in os.environ:
            return {}
        return {TUNABLES: TUNED} if _complaint(server, JEMALLOC) else {PRELOAD: JEMALLOC}
    if choice == NONE:
        return {}
    if has_jemalloc:
        raise ServerError(
            f"allocator: {server.path} has {server.allocator} built in, which no library can "
            "replace; leave --allocator out"
        )
    if complaint := _complaint(server, choice):
        raise ServerError(
            f"allocator: {server.path} does not run with {choice} ({complaint}); "
            "name a library of the same architecture, or leave --allocator out"
        )
    return {PRELOAD: choice}


def describe(added: Mapping[str, str], pid: int) -> str | None:
    """Return what a running instance really has of that; None if nothing."""
    if library := added.get(PRELOAD):
        path = _mapped(library, pid)
        return f"{path}, preloaded" if path else None
    return f"glibc, with {added[TUNABLES]}" if TUNABLES in added else None


def _complaint(server: ServerBinary, library: str) -> str:
    """Return why the server does not run with the library; empty if it does."""
    try:
        tried = subprocess.run(
            [server.path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT,
            check=False,
            env={**os.environ, PRELOAD: library},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    # glibc's loader starts the server without the library, and says so
    said = tried.stderr.decode("utf-8", "replace").strip()
    return said or (f"exit status {tried.returncode}" if tried.returncode else "")


def _mapped(library: str, pid: int) -> str | None:
    """Return the file of a library that a process has loaded, by /proc."""
    try:
        maps = os.fsdecode(Path(f"/proc/{pid}/maps").read_bytes())
    except OSError:  # it has just died
        return None
    # What was named may be a link: to another path, or from the loader's own folders to the
    # same name with more digits
    real, name = os.path.realpath(library), Path(library).name
    paths = (line.split(maxsplit=5)[-1] for line in maps.splitlines())
    return next((one for one in paths if one == real or Path(one).name.startswith(name)), None)
