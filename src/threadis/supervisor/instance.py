"""One instance: starts the stock server, watches it, restarts it, and stops it."""

import asyncio
import logging
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from threadis import control
from threadis.config.config import Config
from threadis.control import State
from threadis.data import integrity
from threadis.data.data_dir import DataDir
from threadis.errors import DataError
from threadis.supervisor import admission, health, instance_config
from threadis.supervisor.instance_stop import InstanceStop
from threadis.supervisor.server import ServerBinary
from threadis.supervisor.server_log import ServerLog
from threadis.system.process import Backoff, Child, describe_status, wrong_affinity

log = logging.getLogger("threadis")

HOPELESS = 5  # starts in a row that came to nothing; it is tried on, but called failed
ASK_LIMIT = 1.0  # seconds for an answer at the end
RECORD_INTERVAL = 5.0  # seconds between records of a log that only grows


class Instance:
    """One stock server of the plan, through all its processes."""

    def __init__(
        self,
        index: int,
        cpus: list[int],
        config: Config,
        server: ServerBinary,
        data: DataDir,
        password: str,
        instances: int,
        owner: admission.Owner,
        on_change: Callable[["Instance"], None],
    ) -> None:
        self.index, self.cpus = index, cpus
        self.state = State.STARTING
        self.settled = asyncio.Event()  # the first process is ready, or has died
        self.judged = asyncio.Event()  # how that went was looked at; a dead one is started again
        self._config, self._server, self._data = config, server, data
        self._password, self._instances = password, instances
        self._owner = owner
        self._on_change = on_change
        self._backoff = Backoff()
        self.ending = ""  # what became of the last process, for people
        self.refusal = ""  # why its data cannot be served, for people
        self._starts = 0
        self._fruitless = 0  # processes in a row that were never ready
        self._log = ServerLog(data.folder(index) / "server.log")
        self._source = integrity.DataSource(None, is_proved=False, grew=False, databases=None)
        self._is_logged = data.wanted.is_logged  # appendonly, as it was last
        self._recorded: tuple[tuple[tuple[int, ...], int], bool] | None = None
        self._recorded_at = 0.0  # monotonic time
        self._one_record = asyncio.Lock()
        self._recording: asyncio.Task[None] | None = None
        self._log_size = 0  # bytes of the append-only file before it was loaded
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
                    self._explain()
            except (OSError, subprocess.SubprocessError) as error:  # no process to be had
                self.ending = f"cannot start: {error}"
            except DataError as error:
                self.refusal = str(error)
                self.ending = f"cannot start: {error}"
            lived = time.monotonic() - started
            pause = self._backoff.after(lived, was_of_use=not self._fruitless)
            self._become(State.FAILED if self._fruitless >= HOPELESS else State.RESTARTING)
            if self.settled.is_set():  # how the first one ended is told when all have been seen
                log.warning(
                    "instance %d %s; restarting in %.0f ms", self.index, self.ending, pause * 1000
                )
            self.settled.set()
            await self.judged.wait()
            await asyncio.sleep(pause)

    def message(self) -> control.Instance:
        """Return its present state, for the proxy."""
        pid = self._child.pid if self._child else 0
        return control.Instance(self.index, self.state, self._socket, pid, self.cpus)

    def _explain(self) -> None:
        """Find out from its log why a process ended."""
        wanted, folder = self._data.wanted, self._data.folder(self.index)
        files = [folder / wanted.dump]
        if self._source.is_log:
            log_folder = folder / wanted.folder
            files = [log_folder / f"{wanted.log}.manifest", *sorted(log_folder.glob("*"))]
        if self._fruitless and (fault := self._log.fault(files)):
            repair = ", or repair it with redis-check-aof --fix (or valkey-check-aof)"
            otherwise = repair if self._source.is_log else ""
            self.refusal = f"dir: {fault}; restore it from a backup{otherwise}"
            self.ending += f": {self.refusal}"
        elif self._fruitless and (refused := self._log.refused_directive()):
            self.ending += f": {refused}"
        else:
            self.ending += f"; its log ends: {self._log.end()}"

    async def stop(self, fast: asyncio.Event, *, saves: bool = True) -> bool:
        """End the server, saving as configured; whether that went well. ``fast`` cuts it short."""
        child = self._child
        if child is None:
            return True
        if child.exited.done():  # together with us: all processes got a signal to end
            if child.exited.result() == 0 and self._fruitless == 0:
                await self._record(is_clean=True)
            return True
        good = await self._writes_are_safe()
        self._log.begin()
        # One that has not begun to serve has nothing to save, and may not catch signals yet
        by_signal = saves or self.state in (State.STARTING, State.LOADING)
        leaving = InstanceStop(
            f"instance {self.index}", child, self.ask, self._log.new, saves=by_signal
        )
        obstacle = await leaving.wait(fast)
        return await self._ended(child, obstacle) and good

    async def ask(self, *words: str) -> bytes | None:
        """Send a command; None if it does not answer in time."""
        pid = self.message().pid
        return await health.ask(self._socket, self._password, pid, list(words), ASK_LIMIT)

    async def _ended(self, child: Child, obstacle: str) -> bool:
        """Make sure that the process is gone; whether it ended by itself."""
        if child.exited.done():
            status = child.exited.result()
            if status == -signal.SIGTERM and self.state is State.STARTING:
                return True  # before it could catch the signal; it has not had anything to lose
            if status == 0 and self._fruitless == 0:
                await self._record(is_clean=True)
            if status == 0 and not obstacle:
                return True
            if status != 0:
                log.error(
                    "instance %d ended with %s; its log ends: %s",
                    self.index,
                    describe_status(status),
                    self._log.end(),
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
        self._data.make_socket_folder()
        self._socket = self._data.socket_path(self.index, self._starts)
        folder = self._data.folder(self.index)
        self._source = self._data.check_files(self.index)
        if self._starts > 1 and self._source.is_log:
            self._is_logged = True  # switched on since the start
        self._log.bound()
        self._log.begin()
        self._log_size = integrity.log_size(folder, self._data.wanted)
        integrity.mark_running(folder)
        loads_log = self._is_logged if self._source.is_log is None else self._source.is_log
        text = instance_config.text(
            self._config,
            self._server,
            instances=self._instances,
            folder=folder,
            socket=self._socket,
            password=self._password,
            is_logged=loads_log,
        )
        return Child(
            [self._server.path, "-"],
            cpus=self.cpus,
            stdin=text,
            log=folder / "server.log",  # what it says before it opens its log goes there too
            pass_fds=self._data.lock_fds,
            environment=self._server.environment,
        )

    async def _watch(self, child: Child) -> int:
        """Report its state until it ends; return its exit status."""
        self._become(State.STARTING)
        probe = health.Health(
            self._socket, self._password, child.pid, self._become, self._admit, self._survey
        )
        watching = asyncio.create_task(probe.watch())
        try:
            ends: list[asyncio.Future[Any]] = [child.exited, watching]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not child.exited.done():  # its data is not its own; a signal would make it save
                child.send(signal.SIGKILL)
                await child.exited
                watching.result()
            return child.exited.result()
        finally:
            watching.cancel()

    async def _admit(self, connection: health.Connection) -> None:
        """Check data that was loaded: is it its own, and stored as configured?"""
        source, wanted, folder = self._source, self._data.wanted, self._data.folder(self.index)
        if (cut := self._log_size - integrity.log_size(folder, wanted)) > 0:
            log.warning(
                "instance %d: the last %d bytes of its append-only file, half a command, are "
                "lost (the machine or a process failed while it was written)",
                self.index,
                cut,
            )
        if source.databases not in (None, wanted.databases):
            await admission.move_own_databases(connection, source.databases, wanted.databases)
        if not source.is_proved:
            await admission.check_keys(self.index, self._owner, wanted, source, connection)
        if source.is_log is not None and source.is_log != self._is_logged:
            await admission.convert_persistence(
                self.index, connection.ask, is_logged=self._is_logged
            )
        await self._record()

    async def _survey(self, persistence_info: bytes) -> None:
        """Record its files if they have changed; limit its log."""
        self._log.bound()
        if persistence_info.startswith(b"-"):
            return  # a script runs there
        self._is_logged = b"aof_enabled:1" in persistence_info
        signature = integrity.signature(self._data.folder(self.index), self._data.wanted)
        before, was_logged = self._recorded or (None, None)
        is_other = before is None or (before[0], was_logged) != (signature[0], self._is_logged)
        is_longer = before != signature and time.monotonic() - self._recorded_at > RECORD_INTERVAL
        if is_other or is_longer:
            await self._record()

    def log_was_set(self, is_logged: bool) -> None:
        """Its append-only log was switched on or off: record that at once."""
        if is_logged != self._is_logged and self.state is State.READY:
            self._is_logged = is_logged
            self._recording = asyncio.create_task(self._record())

    async def _record(self, *, is_clean: bool = False) -> None:
        """Record its files, for the next start."""
        folder, wanted = self._data.folder(self.index), self._data.wanted
        self._recorded = integrity.signature(folder, wanted), self._is_logged
        self._recorded_at = time.monotonic()
        wanted = replace(wanted, is_logged=self._is_logged)
        try:
            async with self._one_record:
                await asyncio.to_thread(integrity.record, folder, wanted, is_clean=is_clean)
        except OSError as error:  # a full disk: the old record, which asks for less, stays
            log.warning("cannot write %s: %s", folder / integrity.RECORD, error.strerror)

    def _become(self, state: State) -> None:
        before, self.state = self.state, state
        if state is before and state is not State.STARTING:
            return
        if state is State.READY:
            if self._fruitless and self._starts > 1:
                log.info("instance %d is back, process %d", self.index, self.message().pid)
            self._fruitless, self.refusal = 0, ""
            self.settled.set()
        if state in (State.READY, State.LOADING) and before is State.STARTING:
            self._came_up()
        elif state is State.STOPPED:
            log.warning("instance %d does not answer: it is stopped", self.index)
        elif before is State.STOPPED and state is State.READY:
            log.info("instance %d answers again", self.index)
        self._on_change(self)

    def _came_up(self) -> None:
        """First answer of a process: check its CPU affinity."""
        if self._child and (wrong := wrong_affinity(self._child.pid, self.cpus)):
            log.warning(
                "instance %d should run on CPU %s, but the kernel lets it run on %s",
                self.index,
                self.cpus,
                sorted(wrong),
            )

    # -- its end --

    async def _writes_are_safe(self) -> bool:
        """Whether the append-only file is complete; a server with a full disk ends all the same."""
        if self.state is not State.READY:
            return True
        info = await self.ask("INFO", "persistence")
        if info is not None and not info.startswith(b"-"):
            self._is_logged = b"aof_enabled:1" in info
        if info is None or b"aof_last_write_status:err" not in info:
            return True
        log.error(
            "instance %d could not write its append-only file: the last writes are not on disk; "
            "free disk space",
            self.index,
        )
        return False
