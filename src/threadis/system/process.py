"""Child processes: pinned, tied to our life, their end a future; and what /proc shows."""

import asyncio
import contextlib
import ctypes
import dataclasses
import errno
import io
import os
import random
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: the child of a fork must not load things

FIRST_PAUSE = 0.05  # seconds before the first restart
LONGEST_PAUSE = 30.0  # seconds; a broken disk needs no faster tries
LONGEST_ABSENCE = 1.0  # seconds; for one that has served: whatever killed it, clients need it
JITTER = 0.2  # share; so that children which died together do not come back together
HEALTHY = 60.0  # seconds of life after which old failures are forgotten


_running: set[int] = set()  # process ids of children that are waited for here


def running() -> Set[int]:
    """Return the process ids of our children."""
    return _running


class Child:
    """A running child process. Start it from the main thread: the kernel ties its life to the
    thread that forks, and kills it when that thread ends.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cpus: Sequence[int] = (),
        stdin: bytes = b"",
        log: Path | None = None,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,  # in addition to ours
    ) -> None:
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(_open_log(log)) if log else None
            self._process = subprocess.Popen(
                argv,
                stdin=stack.enter_context(_filled_pipe(stdin)),
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                pass_fds=pass_fds,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor only
                preexec_fn=_prepare(os.getpid(), cpus),
            )
        self.pid = self._process.pid
        _running.add(self.pid)
        self._pidfd = os.pidfd_open(self.pid)
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def ended_within(self, seconds: float) -> bool:
        """Wait for its end, at most so long; whether it has ended."""
        await asyncio.wait([self.exited], timeout=seconds)
        return self.exited.done()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Its own children too: a snapshot that outlives its server would replace newer data.
        # Before the wait, while the process id cannot have been given to another.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self._process.wait()
        _running.discard(self.pid)
        os.close(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(status)


async def first_of(exited: asyncio.Future[int], fast: asyncio.Event, seconds: float) -> None:
    """Wait until the process has ended, ``fast`` is set, or the time is up."""
    hurry = asyncio.ensure_future(fast.wait())
    try:
        waits: list[asyncio.Future[Any]] = [exited, hurry]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurry.cancel()


def describe_status(status: int) -> str:
    """Describe an exit status."""
    if status >= 0:
        return f"exit status {status}"
    return f"signal {-status}, {signal.Signals(-status).name}"


def _prepare(parent: int, cpus: Sequence[int]) -> Callable[[], None]:
    """Return what the child does between fork and exec."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        if cpus:
            with contextlib.suppress(OSError):  # the supervisor checks, and says so
                os.sched_setaffinity(0, cpus)

    return prepare


@contextlib.contextmanager
def _filled_pipe(content: bytes) -> Iterator[int]:
    """Open a pipe that holds ``content``, then end of file; yield its reading end."""
    reader, writer = os.pipe()
    try:
        try:
            os.set_blocking(writer, False)
            if content and os.write(writer, content) < len(content):
                raise OSError(errno.E2BIG, "its configuration is longer than a pipe holds")
        finally:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)


def _open_log(path: Path) -> io.FileIO:
    """Open a log for appending, readable by its owner."""
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab", 0
    )


class Backoff:
    """How long to wait before each restart."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._deaths = 0  # in a row, of processes that had served
        self._fruitless = 0  # in a row, of processes that had not
        self._chance = chance or random.Random()  # noqa: S311  # spreads load, guards nothing

    def after(self, lived: float, *, was_of_use: bool) -> float:
        """Return the seconds to wait after a process that lived for ``lived`` seconds."""
        if lived >= HEALTHY:
            self._deaths = self._fruitless = 0
        if was_of_use:
            self._fruitless = 0
            before, longest = self._deaths, LONGEST_ABSENCE
            self._deaths += 1
        else:
            before, longest = self._fruitless, LONGEST_PAUSE
            self._fruitless += 1
        pause: float = min(longest, FIRST_PAUSE * 2.0 ** min(before, 20))
        return pause * self._chance.uniform(1 - JITTER, 1 + JITTER)


@dataclasses.dataclass(frozen=True)
class Activity:
    """The kernel's state of a process."""

    state: str  # R running, S sleeping, D waiting for the disk, T and t stopped, Z dead
    cpu_ticks: int  # user and system time so far

    def is_stopped(self, before: "Activity") -> bool:
        """Whether a process that does not answer is stopped, not busy."""
        if self.state in "Tt":
            return True
        return self.state == "S" and self.cpu_ticks == before.cpu_ticks


def activity(pid: int) -> Activity:
    """Read /proc/PID/stat; a process that has ended counts as dead."""
    try:
        # the name in parentheses may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return Activity("Z", 0)
    return Activity(fields[0], int(fields[11]) + int(fields[12]))


def cpu_seconds(pid: int) -> float:
    """Return how long a process's main thread has run; 0 if unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def bytes_written(pid: int) -> int:
    """Return how many bytes a process has written, to files and sockets; 0 if that is secret."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text("utf-8").splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


def wrong_affinity(pid: int, cpus: Sequence[int], tids: Sequence[int] | None = None) -> set[int]:
    """Return CPUs that threads of a process may use, although they are not planned."""
    allowed: set[int] = set()
    if not cpus:  # it is not pinned
        return allowed
    if tids is None:
        with contextlib.suppress(OSError):
            tids = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    for tid in tids or ():
        with contextlib.suppress(ProcessLookupError):
            allowed |= os.sched_getaffinity(tid)
    return allowed if allowed - set(cpus) else set()


def raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files, as far as possible; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < wanted:
        soft = wanted if hard == infinite else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == infinite else soft
