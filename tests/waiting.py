"""How tests wait: for a condition, up to a deadline, never for a time."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

INTERVAL = 0.01  # seconds between looks
LIMIT = 45.0  # seconds; on a quiet machine nothing takes as long


def until(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(INTERVAL)


async def until_async(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
    """Wait until the condition holds, while the loop runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        await asyncio.sleep(INTERVAL)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The children of a process, in order of their start."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def command_line(pid: int) -> str:
    """A process's arguments, or what it made of them."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
