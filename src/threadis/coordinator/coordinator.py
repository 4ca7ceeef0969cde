"""The coordinator: runs the commands that are rare or need judgement, one coroutine each.

A worker hands over a command once everything that its client sent before is answered, and takes
nothing more from that client until ``Proxy.reply``. So a coroutine delays no other client.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from threadis import _core, control, own_names, resp
from threadis.catalog.blocking import BLOCKING
from threadis.catalog.commands import FLUSHES, SCRIPTS, Row
from threadis.config import placement
from threadis.coordinator.acl.acl_file import AclFile
from threadis.coordinator.acl.authorization import Authorization
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.acl.commands import AclCommands
from threadis.coordinator.acl.users import Users
from threadis.coordinator.admin import modules
from threadis.coordinator.admin.command_stats import StatsCollector
from threadis.coordinator.admin.config import Configuration
from threadis.coordinator.admin.debug import Debug
from threadis.coordinator.admin.info import Info
from threadis.coordinator.admin.latency import Latency
from threadis.coordinator.admin.memory import Memory
from threadis.coordinator.admin.pause import Pause
from threadis.coordinator.admin.persistence import Persistence
from threadis.coordinator.admin.shutdown import Shutdown
from threadis.coordinator.admin.slowlog import CommandLogs
from threadis.coordinator.base import garbage
from threadis.coordinator.base.command_table import CommandTable
from threadis.coordinator.base.reply import INTERNAL_ERROR, Handler, HandlerResult, send
from threadis.coordinator.blocking.commands import BlockingCommands
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.links import LinkError, Links, is_for_a_client
from threadis.coordinator.instances.maxmemory import Maxmemory
from threadis.coordinator.instances.near_maxmemory import NearMaxmemory
from threadis.coordinator.instances.tasks import Tasks, retry_until_done
from threadis.coordinator.keys.colocation import Colocation
from threadis.coordinator.keys.locks import Locks, recheck
from threadis.coordinator.keys.waiters import client_key
from threadis.coordinator.lua.attribution import Attribution
from threadis.coordinator.lua.library import Library
from threadis.coordinator.lua.worker_scripts import WorkerScripts
from threadis.coordinator.multikey import scan
from threadis.coordinator.multikey.commits import Commits
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.flush import Flush
from threadis.coordinator.multikey.migrate import Migrate
from threadis.coordinator.scripting.commands import ScriptCommands
from threadis.coordinator.sessions.busy import BusyScripts
from threadis.coordinator.sessions.clients import Clients
from threadis.coordinator.sessions.departures import LEFT, Departures
from threadis.coordinator.sessions.monitor import Monitors
from threadis.coordinator.sessions.pubsub import Pubsub
from threadis.coordinator.sessions.tracking import Tracking
from threadis.coordinator.transactions.commands import Transactions

log = logging.getLogger(__name__)

RETRY = 0.05  # seconds between attempts to make an instance ready
RECOVERY_LIMIT = 3.0  # seconds for all to be ready; then we serve what there is
RECOVERY_LOOK = 0.01  # seconds between looks meanwhile


class Coordinator:
    """Finds the handler of a command, runs it, and sends the reply back."""

    def __init__(
        self,
        start: control.Start,
        core: _core.Proxy,
        links: Links,
        client_fields: list[str],
        rows: list[Row],
        placed: _core.Placement,
        tell: Callable[[control.ToSupervisor], None],
    ) -> None:
        self._core = core
        self._links = links
        self._tasks = Tasks()
        self._departures = Departures()
        self.clients = Clients(core, links, client_fields, len(start.workers), start.databases)
        self._pubsub = Pubsub(core, links)
        self.locks = Locks(core, links.count)
        worker_scripts = WorkerScripts(core)
        self._known_scripts = worker_scripts.workers
        self._busy = BusyScripts(core, links, self.locks, self._pubsub, worker_scripts.workers)
        self._library = Library(links, self.locks, worker_scripts, self._busy)
        is_valkey = self.clients.dialect.is_valkey
        # Servers with CLIENT NO-TOUCH (7.2) run a blocked command again when it is woken.
        is_7_2 = any(row.name == "client|no-touch" for row in rows)
        self._pause = Pause(core, self._library, takes_more=is_valkey, wraps=not is_7_2)
        self._monitors = Monitors(core, links, start.databases)
        attribution = Attribution(self._monitors)
        self._logs = CommandLogs(core, links, attribution)
        self._tracking = Tracking(core, links, self.clients, tracks_what_is_read=is_7_2)
        self._users = Users(core, links, self.locks, self.clients, start, tell)
        self.clients.has_user = self._users.has
        self._maxmemory = Maxmemory(links, start.maxmemory)
        acl_file = AclFile(start, links, self._users, kills_all=not is_7_2)
        self._configuration = Configuration(
            start, core, links, self._users, self._maxmemory, acl_file, tell
        )
        self._table = CommandTable(core, placed, rows, start.databases)
        self._near_maxmemory = NearMaxmemory(core, links, self._table, self._maxmemory)
        self._acl_checks = AclChecks(links, self._users, start.databases)
        self._authorization = Authorization(
            core, links, self._users, self._acl_checks, self._busy, self._near_maxmemory
        )
        self._commits = Commits(core, links, self.locks, self._table, start.databases)
        execution = self._execution = Execution(
            links,
            self.locks,
            self._table,
            Colocation(placed, placement.read(start.rules), start.pins),
            self._commits,
            start.databases,
            self._tracking,
            self._pubsub.events,
            self._near_maxmemory,
        )
        checks, served = self._acl_checks, self._logs.note_unblocked
        self.blocking = blocking = BlockingCommands(
            execution, core, checks, self._departures, served, runs_again=is_7_2
        )
        self._scripts = ScriptCommands(
            execution, self._library, self._busy, self._users, attribution, worker_scripts, blocking
        )
        self._transactions = Transactions(
            execution, core, checks, blocking, self._busy, self._scripts
        )
        self.clients.join(self.blocking, self._pause, self._transactions.watches)
        flush = Flush(start, links, self.locks, self._tracking, self._commits)
        self._stats_collector = StatsCollector(core, len(start.workers))
        self._info = info = Info(
            start,
            core,
            links,
            self._configuration,
            self.blocking,
            self._pause,
            self._library,
            self._pubsub,
            self._stats_collector,
            self._tracking,
            self._commits,
            self._users,
            self._execution.own_reads,
            self._held,
        )
        self._handlers: dict[str, Handler] = {
            "info": info.info,
            "config|get": self._configuration.get,
            "config|set": self._configuration.set,
            "config|rewrite": self._configuration.rewrite,
            "config|resetstat": info.reset,
            "client|list": self.clients.list,
            "client|info": self.clients.info,
            "client|kill": self.clients.kill,
            "client|unblock": self.clients.unblock,
            "client|import-source": self.clients.import_source,
            "client|pause": self._pause.pause,
            "client|unpause": self._pause.unpause,
            "debug": Debug(links, self.locks, self._table, self._pause).run,
            "shutdown": Shutdown(links, self.locks, self._busy, core, tell).shutdown,
            "memory|stats": Memory(links, start.databases).stats,
            **modules.handlers(),
            **AclCommands(core, links, self._users, start.databases).handlers(),
            **acl_file.handlers(),
            **Persistence(links, self._departures, start.databases).handlers(),
            **Latency(links, self._stats_collector).handlers(),
            **self._logs.handlers(),
            **self._tracking.handlers(),
            "migrate": Migrate(self._execution).migrate,
            "monitor": self._monitors.monitor,
            "watch": self._transactions.watch,
            "unwatch": self._transactions.unwatch,
            "discard": self._transactions.unwatch,
            "exec": self._transactions.exec,
            **dict.fromkeys(SCRIPTS, self._scripts.run),
            **self._library.handlers(),
            "flushall": flush.flush,
            "flushdb": flush.flush,
            "swapdb": flush.swap,
            **dict.fromkeys(BLOCKING, self.blocking.run),
            "scan": lambda command: scan.scan(command, links),
            "randomkey": lambda command: scan.random_key(command, links),
        }

    def receive(self, letter: object) -> None:
        """Handle a letter of the workers."""
        match letter:
            case _core.Command():
                self._begin(letter)
            case _core.Left() | _core.Ran():
                self._left(letter)
            case _core.Locked():
                self.locks.locked(letter)
            case _core.Unsettled():
                self._commits.unsettled(letter)
            case _core.Finished():
                self._commits.finished()
            case _core.Strayed():
                self._scripts.worker_script_refused(letter)
            case _core.Overdue():
                self._busy.overdue(letter)
            case _core.Heard():
                self._tracking.feeds.heard(letter)
            case _core.Logged():
                self._logs.workers_logged()
            case _core.SentTooMuch():
                self.clients.sent_too_much(letter)
            case _core.ClientList():
                self.clients.arrived(letter)
            case _core.Tally():
                self._stats_collector.receive(letter)
            case _core.Subscribe():
                self._tasks.start(self._pubsub.subscribe(letter), "a subscription")
            case _core.Subscribed():
                self._pubsub.subscribed(letter)
            case _core.Interest():
                self._pubsub.interest(letter)
            case _core.Said():
                self._pubsub.said(letter)

    def give_up(self, letter: object) -> None:
        """Send an error to the client whose letter could not be handled."""
        match letter:
            case _core.Command(is_question=True):
                self._core.judge(letter, INTERNAL_ERROR, None)
            case _core.Command():
                self._departures.end(letter)
                self.blocking.blocked.waits.confirm(letter)
                self._core.reply(letter, INTERNAL_ERROR)
            case _core.Strayed():
                self._known_scripts.answer(letter, INTERNAL_ERROR)

    def _begin(self, command: _core.Command) -> None:
        """Start a command; its reply is sent when it is ready."""
        if command.is_question:
            self._tasks.start(self._authorization.judge(command), "a question")
            return
        self._departures.begin(command)
        self._tasks.start(self._run(command), "a command")

    async def _run(self, command: _core.Command) -> None:
        """Run a command and answer it, whatever happens."""
        is_for_a_client.set(True)
        name = self._name(command)
        began = time.monotonic()
        reply: HandlerResult = INTERNAL_ERROR
        try:
            await long_replies.complete(command)
            with garbage.collect_seldom(len(command.args) + len(command.queued or ())):
                reply = await self._answer(command, name)
            await self._follow_up(command, name, reply, began)
        except LinkError as error:
            reply = resp.error(str(error))
        except Exception:  # one command's bug must not leave other clients without replies
            log.exception("%s failed", name)
        finally:
            self._departures.end(command)
            if name in BLOCKING:
                self.blocking.blocked.waits.confirm(command)
            if name == "exec" and isinstance(reply, bytes):
                reply = await self._transactions.refused(command, reply)
            await send(self._core, command, reply)

    async def _answer(self, command: _core.Command, name: str) -> HandlerResult:
        """Compute a command's reply."""
        reply: HandlerResult = LEFT
        check = self._acl_checks.recheck(command)
        recheck.set(check)
        await check()
        handler = self._handlers.get(name)
        if await self._pause.wait_while_paused(command):
            if handler:
                reply = await self.blocking.run_and_serve(command, handler)
            else:
                reply = await self.blocking.write(command)
        return reply

    async def _follow_up(
        self, command: _core.Command, name: str, reply: HandlerResult, began: float
    ) -> None:
        """Do what else follows from a command; it has run, so its reply does not change."""
        if reply:
            with contextlib.suppress(LinkError):
                await self._logs.note(command, reply, began)
        jobs: list[Callable[[], Awaitable[None]]] = []
        if name in FLUSHES:
            jobs = [self._maxmemory.redistribute]
        elif name == "config|set" and reply == resp.OK:
            self._busy.threshold_changed()
            jobs = [self._near_maxmemory.check, self._tracking.look, self._pubsub.look]
        for job in jobs:
            try:
                await job()
            except Exception as error:  # the next try logs it
                what = f"what follows {name} ({error})"
                self._tasks.start(retry_until_done(job, what), what)

    def _held(self) -> dict[str, int]:
        """Return counts that must be zero when there are no clients."""
        return {
            "locks": self.locks.count(),
            "watching_clients": self._transactions.count(),
            "lent_links": self._links.count_lent(),
        }

    def _left(self, letter: _core.Left | _core.Ran) -> None:
        """Note that a client is gone, or has run its transaction."""
        client = client_key(letter)
        if isinstance(letter, _core.Ran):
            self._tasks.start(self._transactions.finished(client), "the end of a transaction")
            return
        self._departures.left(client, is_gone=letter.is_gone)
        self.blocking.client_left(client)
        self._pause.client_left(client)
        if letter.is_gone:
            self._monitors.gone(client)
            self._tracking.gone(client)
            self._tasks.start(self._transactions.gone(client), "the end of a client's watches")

    async def recover(self) -> None:
        """Make every instance ready before the first client is served, and resolve what a crash
        left.

        Instances that are not ready in time get ready while we serve. But no client is served
        before the users are known.
        """
        self._tasks.start(self._near_maxmemory.watch(), "the watch over memory")
        self._tasks.start(self._info.watch(), "the watch over instances")
        for index in self._links.all_instances():
            self.instance_changed(self._links.instance(index))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_LIMIT):
                while not self._users.are_known() or self._links.unprepared:
                    await asyncio.sleep(RECOVERY_LOOK)

    def instance_changed(self, instance: control.Instance) -> None:
        """Report an instance's state to the workers; one that came back is made ready first."""
        if instance.state is control.State.READY:
            self._links.unprepared.add(instance.index)
            job = self._make_ready(instance)
            self._tasks.start(job, f"making instance {instance.index} ready")
        else:
            self._links.unprepared.discard(instance.index)
            self._users.instance_lost(instance.index)
            self._library.instance_lost(instance.index)
            self._tracking.feeds.lost(instance.index)
            self._core.set_instance(instance.index, None, instance.state.value)

    async def _make_ready(self, instance: control.Instance) -> None:
        """Let lanes be opened, once the instance has what it missed and old lanes are closed.

        A server that was stopped runs, when it is continued, what it had been sent before; nothing
        newer may overtake that.
        """
        index = instance.index
        while self._links.instance(index) is instance:
            try:
                await self._prepare(index)
                known = await self._links.call(index, b"CLIENT", b"LIST")
            except LinkError as error:
                log.warning("instance %d cannot be asked yet: %s", index, error)
            except Exception:
                log.exception("instance %d could not be made ready; trying again", index)
            else:
                is_alone = isinstance(known, bytes) and b" name=" + own_names.LANE not in known
                if is_alone and self._links.instance(index) is instance:
                    self._links.unprepared.discard(index)
                    self._links.prepared[index] = instance.socket
                    self._core.set_instance(index, instance.socket, "")
                    return
            await asyncio.sleep(RETRY)

    async def _prepare(self, index: int) -> None:
        """Give an instance what it lacks; LinkError if it cannot be asked."""
        await self._configuration.replay(index)
        await self._users.replay(index)
        await self._library.replay(index)
        await self._commits.recover(index)
        await self._execution.borrowing.clean(index)
        await self._pubsub.renew(index)
        await self._monitors.renew(index)
        await self._tracking.feeds.renew(index)
        await self._logs.read_thresholds()
        await self._pubsub.look(index)

    def _name(self, command: _core.Command) -> str:
        """Return the row's name, from the command's first words."""
        words = [word.decode(errors="replace").lower() for word in command.args[:2]]
        return "|".join(words) if "|".join(words) in self._handlers else words[0]
