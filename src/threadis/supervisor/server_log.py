"""Reads an instance's server.log: what the present process has logged, and why it ended."""

import contextlib
import re
from pathlib import Path

LIMIT = 16 * 1024 * 1024  # bytes of the file; then it becomes the old one, beside which it begins
TAIL = 4096  # bytes that are searched for the last lines
OLD = "server.log.1"  # what became too long
LINE = re.compile(r"\d+:\S+ .* (?P<level>[.*#-]) (?P<text>.*)")  # pid:role, date, level, text
USUAL = re.compile(r"WARNING.*overcommit")  # on most machines; not why it ended
DIRECTIVE = re.compile(
    r"FATAL CONFIG FILE ERROR[^\n]*\n[^\n]*\n>>> '(?P<line>(?P<name>\S+)[^\n]*)'\n(?P<why>[^\n]*)"
)
MODULE = re.compile(r" [.*#-] (?P<why>Module [^\n]*)\n(?:[^\n]*\n)*?[^\n]*Can't load module from")
SECRET = ("requirepass", "user")  # directives that are not shown
ABOUT_DATA = re.compile(r"RDB|loading (the )?DB|AOF|append only file", re.IGNORECASE)
NAMED = re.compile(r"(?:Checking RDB file|append only file|the AOF file|AOF file) ([^\s:!]+)")
REASON = re.compile(r"-> (.*)|(Bad file format)|(Can't handle RDB format version .*)")


class ServerLog:
    """The file, and where in it the present process began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = 0  # bytes that earlier processes wrote

    def begin(self) -> None:
        """Note where the present process begins."""
        self._start = self._size()

    def bound(self) -> None:
        """Rotate a long file; servers open it for each line."""
        if self._size() > LIMIT:
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_name(OLD))
                self._start = 0

    def end(self, lines: int = 3) -> str:
        """Return the last lines, for people."""
        found = [line.strip() for line in self.new()[-TAIL:].splitlines() if line.strip()]
        found = [line for line in found if not USUAL.search(line)]
        return " | ".join(found[-lines:]) or "(nothing)"

    def refused_directive(self) -> str:
        """Return which directive the server refused, and why; empty if none."""
        return refused_directive(self.new())

    def fault(self, files: list[Path]) -> str:
        """Return which file the server could not read, and why; empty if none.

        ``files`` are the files that it loads; the log may say which of them.
        """
        text = self.new()
        warnings = [found["text"] for line in text.splitlines() if (found := LINE.match(line))
                    and found["level"] == "#"]  # fmt: skip
        last = next((one for one in reversed(warnings) if ABOUT_DATA.search(one)), "")
        if not last or not files:
            return ""
        names = NAMED.findall(text)
        named = [path for path in files if names and path.name == names[-1]]
        reason = next((one for found in REASON.findall(text) for one in found if one), last)
        return f"{(named or files)[0]} is damaged ({reason.strip()})"

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def new(self) -> str:
        """Return what the present process has logged, or the end of that."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(self._start, self._size() - 16 * TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""


def refused_directive(text: str) -> str:
    """Return which directive this output says was refused, and why; empty if none."""
    if module := MODULE.search(text):
        return f"{module['why'].strip()}; check --set loadmodule"
    found = DIRECTIVE.search(text)
    if not found:
        return ""
    shown = found["name"] if found["name"] in SECRET else found["line"]
    return f"it does not accept {shown!r}: {found['why'].strip()}; check --set"
