"""Owns one instance: starts the stock server, watches it, starts it again, and stops it."""

import asyncio
import logging
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from threadis import control, health, instance_config
from threadis.config import Config
from threadis.control import State
from threadis.data_dir import DataDir
from threadis.errors import DataError
from threadis.leaving import Leaving
from threadis.process import Backoff, Child, describe_status, wrong_affinity
from threadis.server import Server

log = logging.getLogger("threadis")

HOPELESS = 5  # starts in a row that came to nothing; it is tried on, but called failed
ASK_LIMIT = 1.0  # seconds for an answer at the end
LOG_TAIL = 4096  # bytes of server.log that are searched for the last lines


class Instance:
    """One stock server of the plan, through all its processes."""

    def __init__(
        self,
        index: int,
        cpus: list[int],
        config: Config,
        server: Server,
        data: DataDir,
        password: str,
        instances: int,
        on_change: Callable[["Instance"], None],
    ) -> None:
        self.index, self.cpus = index, cpus
        self.state = State.STARTING
        self.settled = asyncio.Event()  # the first process is ready, or has died
        self._config, self._server, self._data = config, server, data
        self._password, self._instances = password, instances
        self._on_change = on_change
        self._backoff = Backoff()
        self.ending = ""  # what became of the last process, for people
        self._starts = 0
        self._fruitless = 0  # processes in a row that were never ready
        self._log_start = 0  # bytes of server.log that earlier processes wrote
        self._child: Child | None = None
        self._socket = ""

    async def run(self) -> None:
        """Keep it running, until cancelled."""
        while True:
            started = time.monotonic()
            self._fruitless += 1
            try:
                self._child = self._spawn()
                status = await self._watch(self._child)
                self.ending = f"died ({describe_status(status)})"
                if status > 0 or self._fruitless:
                    self.ending += f"; its log ends: {self._log_end()}"
            except (OSError, subprocess.SubprocessError, DataError) as error:
                # no process to be had; files have vanished
                self.ending = f"cannot start: {error}"
            lived = time.monotonic() - started
            pause = self._backoff.after(lived, was_of_use=not self._fruitless)
            self._become(State.FAILED if self._fruitless >= HOPELESS else State.RESTARTING)
            log.warning(
                "instance %d %s; restarting in %.0f ms", self.index, self.ending, pause * 1000
            )
            self.settled.set()
            await asyncio.sleep(pause)

    def message(self) -> control.Instance:
        """Its present state, for the proxy."""
        pid = self._child.pid if self._child else 0
        return control.Instance(self.index, self.state, self._socket, pid, self.cpus)

    def _log_end(self, lines: int = 3) -> str:
        """The last lines that the present process, or the last one, wrote to server.log."""
        text = self._new_log()[-LOG_TAIL:]
        found = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(found[-lines:]) or "(nothing)"

    async def stop(self, fast: asyncio.Event, *, saves: bool = True) -> bool:
        """End the server, saving as configured; whether that went well. ``fast`` cuts it short."""
        child = self._child
        if child is None or child.exited.done():
            return True
        good = await self._writes_are_safe()
        self._log_start = self._log_size()
        # One that has not begun to serve has nothing to save, and may not hear us yet
        by_signal = saves or self.state in (State.STARTING, State.LOADING)
        leaving = Leaving(
            f"instance {self.index}", child, self._ask, self._new_log, saves=by_signal
        )
        obstacle = await leaving.wait(fast)
        return await self._ended(child, obstacle) and good

    async def _ask(self, *words: str) -> bytes | None:
        pid = self.message().pid
        return await health.ask(self._socket, self._password, pid, list(words), ASK_LIMIT)

    async def _ended(self, child: Child, obstacle: str) -> bool:
        """Make sure that the process is gone; whether it went by itself."""
        if child.exited.done():
            status = child.exited.result()
            if status == -signal.SIGTERM and self.state is State.STARTING:
                return True  # before it could catch the signal; it has not had anything to lose
            if status == 0:
                self._data.record_files(self.index, instance_config.dump_name(self._config))
            if status == 0 and not obstacle:
                return True
            if status != 0:
                log.error(
                    "instance %d ended with %s; its log ends: %s",
                    self.index,
                    describe_status(status),
                    self._log_end(),
                )
                return False
        child.send(signal.SIGKILL)
        await child.exited
        why = f" ({obstacle})" if obstacle else ""
        log.error(
            "instance %d was killed; what it had not written to disk is lost%s", self.index, why
        )
        return False

    # -- one process --

    def _spawn(self) -> Child:
        self._starts += 1
        self._socket = self._data.socket_path(self.index, self._starts)
        self._log_start = self._log_size()
        self._data.check_files(self.index)
        folder = self._data.folder(self.index)
        text = instance_config.text(
            self._config,
            self._server,
            instances=self._instances,
            folder=folder,
            socket=self._socket,
            password=self._password,
        )
        return Child(
            [self._server.path, "-"],
            cpus=self.cpus,
            stdin=text,
            log=folder / "server.log",  # what it says before it opens its log goes there too
            pass_fds=[self._data.lock_fd],
            environment=self._server.environment,
        )

    async def _watch(self, child: Child) -> int:
        """Tell of its state until it ends; its exit status."""
        self._become(State.STARTING)
        probe = health.Health(self._socket, self._password, child.pid, self._become)
        watching = asyncio.create_task(probe.watch())
        try:
            return await asyncio.shield(child.exited)
        finally:
            watching.cancel()

    def _become(self, state: State) -> None:
        before, self.state = self.state, state
        if state is before and state is not State.STARTING:
            return
        if state is State.READY:
            self._fruitless = 0
            self.settled.set()
        if state in (State.READY, State.LOADING) and before is State.STARTING:
            self._came_up()
        elif state is State.STOPPED:
            log.warning("instance %d does not answer: it is stopped", self.index)
        elif before is State.STOPPED and state is State.READY:
            log.info("instance %d answers again", self.index)
        self._on_change(self)

    def _came_up(self) -> None:
        """First answer of a process: check what only the kernel knows."""
        if self._child and (wrong := wrong_affinity(self._child.pid, self.cpus)):
            log.warning(
                "instance %d should run on CPU %s, but the kernel lets it run on %s",
                self.index,
                self.cpus,
                sorted(wrong),
            )
        if self._starts > 1:
            log.info("instance %d is back, process %d", self.index, self.message().pid)
        self._data.record_files(self.index, instance_config.dump_name(self._config))

    # -- its end --

    async def _writes_are_safe(self) -> bool:
        """Whether the append-only file is whole; a server with a full disk ends as if it were."""
        if self.state is not State.READY:
            return True
        info = await self._ask("INFO", "persistence")
        if info is None or b"aof_last_write_status:err" not in info:
            return True
        log.error(
            "instance %d could not write its append-only file: the last writes are not on disk; "
            "free disk space",
            self.index,
        )
        return False

    @property
    def _log_path(self) -> Path:
        return self._data.folder(self.index) / "server.log"

    def _log_size(self) -> int:
        try:
            return self._log_path.stat().st_size
        except OSError:
            return 0

    def _new_log(self) -> str:
        try:
            with self._log_path.open("rb") as file:
                file.seek(max(self._log_start, self._log_size() - 16 * LOG_TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""
