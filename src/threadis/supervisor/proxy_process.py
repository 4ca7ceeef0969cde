"""The proxy as a child process: starts it, informs it of the instances, restarts it."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from threadis import control
from threadis.data import saved_settings
from threadis.errors import ListenError, ServerError
from threadis.system.process import Backoff, Child, describe_status, first_of, wrong_affinity

log = logging.getLogger("threadis")

SERVING_LIMIT = 30.0  # seconds for a proxy to serve; then it is replaced
LAST_WORDS = 1.0  # seconds to take in what a proxy has said before its end
EXIT_MARGIN = 2.0  # seconds beyond the grace for the proxy to end


class ProxyProcess:
    """The proxy of this supervisor, through all its processes."""

    def __init__(
        self,
        start: control.Start,
        instances: Callable[[], list[control.Instance]],
        shut_down: Callable[[list[int]], None],
        was_set: Callable[[dict[str, str]], None],
    ) -> None:
        self.serving = asyncio.Event()  # clients have been served at least once
        self._start, self._instances, self._shut_down = start, instances, shut_down
        self._was_set = was_set  # what CONFIG SET has changed since the start
        self._backoff = Backoff()
        self._child: Child | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._is_serving = False  # the present process
        self._obstacle = ""  # why none will ever serve
        self._settings: dict[str, str] = {}  # changed by CONFIG SET
        self._facts: control.ServerFacts | None = None

    async def run(self) -> None:
        """Keep it running, until cancelled; if it never served, raise ServerError."""
        while True:
            started = time.monotonic()
            try:
                ending = f"died ({describe_status(await self._live())})"
            except OSError as error:  # no process to be had
                ending = f"cannot start: {error}"
            if self._obstacle:
                raise ListenError(self._obstacle)
            if not self.serving.is_set():
                raise ServerError(f"the proxy {ending} before it served; see what it printed above")
            lived = time.monotonic() - started
            pause = self._backoff.after(lived, was_of_use=self._is_serving)
            log.warning("proxy %s; restarting in %.0f ms", ending, pause * 1000)
            await asyncio.sleep(pause)

    def tell(self, message: control.ToProxy) -> None:
        """Send a message to the present process, if there is one."""
        if self._writer and not self._writer.is_closing():
            self._writer.write(control.encode(message))

    async def stop(self, grace: float, fast: asyncio.Event) -> bool:
        """Let it finish running commands and end; whether it ended by itself."""
        child = self._child
        if child is None or child.exited.done():
            return True
        if not self._is_serving:  # it has no client yet, and may not read messages yet
            child.send(signal.SIGKILL)
            await child.exited
            return True
        self.tell(control.Stop(grace))
        await first_of(child.exited, fast, grace + EXIT_MARGIN)
        if not child.exited.done():
            log.warning("the proxy did not end in time and is killed")
            child.send(signal.SIGKILL)
        status = await child.exited
        if status != 0:
            log.warning("the proxy ended with %s", describe_status(status))
        return status == 0

    async def _live(self) -> int:
        """Run one process, from its start to its end."""
        self._is_serving = False
        ours, theirs = control.pair()
        fds = [listener.fd for listener in self._start.listeners]
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours, limit=control.MESSAGE_LIMIT)
            self._writer = writer
            self._child = child = Child(
                # -P: no module is taken from the directory in which we were started.
                [sys.executable, "-P", "-m", "threadis.proxy", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *fds],
            )
        start = saved_settings.restarted(self._start, self._settings)
        self.tell(structs.replace(start, facts=self._facts))
        for message in self._instances():
            self.tell(message)
        listening = asyncio.create_task(self._listen(reader, child))
        timer = asyncio.get_running_loop().call_later(SERVING_LIMIT, self._replace, child)
        cancelled = False
        try:
            status = await asyncio.shield(child.exited)
            await asyncio.wait([listening], timeout=LAST_WORDS)
            return status
        except asyncio.CancelledError:
            cancelled = True  # the channel stays open for ``stop``
            raise
        finally:
            listening.cancel()
            timer.cancel()
            if not cancelled:
                writer.close()

    def _replace(self, child: Child) -> None:
        """End a process that does not serve in time, so that another one is started."""
        if not self._is_serving:
            log.error(
                "the proxy does not serve clients after %.0f s; it is replaced", SERVING_LIMIT
            )
            child.send(signal.SIGKILL)

    async def _listen(self, reader: asyncio.StreamReader, child: Child) -> None:
        """Handle its messages; a proxy that sends invalid ones is replaced."""
        try:
            while line := await reader.readline():
                self._hear(control.decode_for_supervisor(line), child)
        except OSError:
            return  # it has ended
        except Exception:
            log.exception("a message of the proxy could not be decoded; the proxy is replaced")
            child.send(signal.SIGKILL)

    def _hear(self, message: control.ToSupervisor, child: Child) -> None:
        match message:
            case control.Shutdown():
                self._shut_down(message.unsaving)
                return
            case control.CannotServe():
                self._obstacle = message.why
                return
            case control.Users():
                self._start = structs.replace(self._start, users=message.rules)
                return
            case control.Settings():
                self._settings = message.values
                self._was_set(message.values)
                return
        self._check_workers(child.pid, message.worker_tids)
        self._facts = message.facts
        self._is_serving = True
        if self.serving.is_set():
            log.info("proxy serves again, process %d", child.pid)
        self.serving.set()

    def _check_workers(self, pid: int, tids: list[int]) -> None:
        """Check whether each worker runs on its planned CPUs, under its name."""
        if len(tids) != len(self._start.workers):
            log.warning("%d workers were planned, %d run", len(self._start.workers), len(tids))
        for index, (tid, cpus) in enumerate(zip(tids, self._start.workers, strict=False)):
            if wrong := wrong_affinity(pid, cpus, [tid]):
                log.warning(
                    "worker %d should run on CPU %s, but the kernel lets it run on %s",
                    index,
                    cpus,
                    sorted(wrong),
                )
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/task/{tid}/comm").read_text("utf-8").strip()
                if name != f"worker-{index}":
                    log.warning("worker %d runs under the name %s", index, name)

    def close(self) -> None:
        """Close the channel; a proxy that still runs ends then."""
        if self._writer:
            self._writer.close()
