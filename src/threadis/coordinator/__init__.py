"""The coordinator: runs the commands that are rare or need judgement, one coroutine each.

A worker hands over a command once everything its client sent before is answered, and takes
nothing more from that client until ``Proxy.reply``. So a coroutine may take its time: it delays
nobody else.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import astuple

from threadis import _core, control, placement, resp
from threadis.commands import SCRIPTS, Row
from threadis.coordinator import keyspace
from threadis.coordinator.acl import Acl
from threadis.coordinator.answer import Answer, Handler
from threadis.coordinator.blocking import Blocking
from threadis.coordinator.borrowing import Borrowing
from threadis.coordinator.busy import Busy
from threadis.coordinator.callers import Callers
from threadis.coordinator.clients import Clients
from threadis.coordinator.commits import Commits
from threadis.coordinator.configuration import Configuration
from threadis.coordinator.debug import Debug
from threadis.coordinator.departures import LEFT, Departures
from threadis.coordinator.ending import Ending
from threadis.coordinator.everywhere import Everywhere
from threadis.coordinator.execution import Execution
from threadis.coordinator.information import Information
from threadis.coordinator.latency import Latency
from threadis.coordinator.library import Library
from threadis.coordinator.links import LinkError, Links, is_for_a_client
from threadis.coordinator.locality import Locality
from threadis.coordinator.locks import Locks, proviso
from threadis.coordinator.memory import Memory
from threadis.coordinator.migrating import Migrating
from threadis.coordinator.modules import Modules
from threadis.coordinator.monitoring import Monitoring
from threadis.coordinator.pause import Pause
from threadis.coordinator.permission import Permission
from threadis.coordinator.pubsub import Pubsub
from threadis.coordinator.scripts import Scripts
from threadis.coordinator.shares import Shares
from threadis.coordinator.slowlog import Logs
from threadis.coordinator.table import Table
from threadis.coordinator.tallies import Tallies
from threadis.coordinator.taught import Taught
from threadis.coordinator.tightness import Tightness
from threadis.coordinator.tracking import Tracking
from threadis.coordinator.transactions import Transactions
from threadis.coordinator.users import Users
from threadis.coordinator.verdicts import Verdicts
from threadis.coordinator.waiters import TYPES
from threadis.coordinator.whole import Whole

__all__ = ["Coordinator"]

log = logging.getLogger(__name__)

RETRY = 0.05  # seconds between attempts to make an instance ready
LANE_NAME = b" name=threadis-lane-"  # as CLIENT LIST shows the workers' connections

SubscriptionLetter = _core.Subscribe | _core.Subscribed | _core.Interest


class Coordinator:
    """Finds the coroutine for a command, and sends its reply back."""

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
        self._tasks: set[asyncio.Task[None]] = set()
        self._departures = Departures()
        self.clients = Clients(core, links, client_fields, len(start.workers), start.databases)
        self._pubsub = Pubsub(core, links)
        self.locks = Locks(core, links.count)
        taught = Taught(core)
        self._library = Library(links, self.locks, taught)
        is_valkey = self.clients.dialect.is_valkey
        self._pause = Pause(core, self._library, takes_more=is_valkey)
        callers = Callers()
        self._logs = Logs(core, links, callers)
        # Servers that have CLIENT NO-TOUCH run a blocked command again when it is woken.
        is_7_2 = any(row.name == "client|no-touch" for row in rows)
        self._tracking = Tracking(core, links, self.clients, tracks_what_is_read=is_7_2)
        password = start.instance_password.encode()
        self._users = Users(core, links, self.locks, self.clients, password)
        self.clients.has_user = self._users.has
        self._shares = Shares(links, start.maxmemory)
        self._configuration = Configuration(start, core, links, self._users, self._shares)
        self._table = Table(core, placed, rows)
        self._busy = Busy(core, links, self.locks, taught.workers)
        self._tightness = Tightness(core, links, self._table, self._shares)
        self._verdicts = Verdicts(links, self._users)
        self._permission = Permission(
            core, links, self._users, self._verdicts, self._busy, self._tightness
        )
        self._commits = Commits(core, links, self.locks, start.databases)
        self.unsettled, self.finished = self._commits.unsettled, self._commits.finished
        borrowing = Borrowing(links, self._table, start.databases)
        locality = Locality(placed, placement.read(start.rules), start.pins)
        self._execution = Execution(
            links, self.locks, self._table, locality, self._commits, borrowing, self._tracking
        )
        self._blocking = Blocking(
            self._execution,
            core,
            self._verdicts,
            self._departures,
            self._log_served,
            runs_again=is_7_2,
        )
        self.clients.waiting = self._blocking
        self._transactions = Transactions(
            self._execution, core, self._verdicts, self._blocking, self._busy
        )
        scripts = Scripts(self._execution, self._library, self._busy, self._users, callers, taught)
        self.strayed, self.overdue = scripts.strayed, self._busy.overdue
        whole = Whole(links, self.locks, start.databases, dict(start.pins).keys(), self._tracking)
        self.tallies = Tallies(core, len(start.workers))
        information = Information(
            start,
            core,
            links,
            self._configuration,
            self._blocking,
            self._pause,
            self._pubsub,
            self.tallies,
            self._tracking,
            self._commits,
            self._held,
        )
        self._monitoring = Monitoring(core, links)
        self._handlers: dict[str, Handler] = {
            "info": information.info,
            "config|get": self._configuration.get,
            "config|set": self._configuration.set,
            "config|rewrite": self._configuration.rewrite,
            "config|resetstat": information.reset,
            "client|list": self.clients.list,
            "client|info": self.clients.info,
            "client|kill": self.clients.kill,
            "client|unblock": self.clients.unblock,
            "client|import-source": self.clients.import_source,
            "client|pause": self._pause.pause,
            "client|unpause": self._pause.unpause,
            "debug": Debug(start, links, self.locks, self._table).run,
            "shutdown": Ending(links, self.locks, self._busy, core, tell).shutdown,
            "memory|stats": Memory(links, start.databases).stats,
            **Modules(start).handlers(),
            **Acl(links, self._users).handlers(),
            **Everywhere(links, self._departures, start.databases).handlers(),
            **Latency(links, self.tallies).handlers(),
            **self._logs.handlers(),
            **self._tracking.handlers(),
            "migrate": Migrating(self._execution).migrate,
            "monitor": self._monitoring.monitor,
            "watch": self._transactions.watch,
            "unwatch": self._transactions.unwatch,
            "discard": self._transactions.unwatch,
            "exec": self._transactions.exec,
            **dict.fromkeys(SCRIPTS, scripts.run),
            **self._library.handlers(),
            "flushall": whole.run,
            "flushdb": whole.run,
            "swapdb": whole.swap,
            **dict.fromkeys(TYPES, self._blocking.run),
            "scan": lambda command: keyspace.scan(command, links),
            "randomkey": lambda command: keyspace.random_key(command, links),
        }

    def run(self, command: _core.Command) -> None:
        """Begin a command; its reply goes to the client when it is there."""
        if command.is_question:
            self._keep(asyncio.create_task(self._permission.judge(command)))
            return
        self._departures.begin(command)
        self._keep(asyncio.create_task(self._run(command)))

    async def _run(self, command: _core.Command) -> None:
        is_for_a_client.set(True)
        name = self._name(command)
        began = time.monotonic()
        reply: bytes | Answer | None = LEFT
        check = self._verdicts.proviso(command)
        proviso.set(check)
        try:
            await check()
            handler = self._handlers.get(name)
            if await self._pause.let_pass(command):
                if handler:
                    reply = await self._blocking.run_and_settle(command, handler)
                else:
                    reply = await self._blocking.write(command)
            if reply:
                await self._logs.note(command, began)
        except LinkError as error:
            reply = resp.error(str(error))
        except Exception:  # one command's bug must not become another client's silence
            log.exception("%s failed", name)
            reply = resp.error("ERR threadis: internal error, see the log")
        self._departures.end(command)
        if name in TYPES:
            self._core.arrived(command)
        if name in ("flushall", "flushdb"):
            with contextlib.suppress(LinkError):
                await self._shares.spread()
        if name == "config|set":
            self._busy.forget()
            await self._tightness.look()
            await self._tracking.look()
        if isinstance(reply, Answer):
            self._core.reply(command, *astuple(reply))
        elif reply is not None:
            self._core.reply(command, reply)

    def _held(self) -> dict[str, int]:
        """What must be nothing once nobody wants anything."""
        return {
            "locks": self.locks.count(),
            "watching_clients": self._transactions.count(),
            "lent_links": self._links.count_lent(),
        }

    def left(self, letter: _core.Left | _core.Ran) -> None:
        """Take note that a client is gone, or has run its transaction."""
        client = (letter.worker, letter.place, letter.generation)
        if isinstance(letter, _core.Ran):
            self._keep(asyncio.create_task(self._transactions.finished(client)))
            return
        self._departures.left(client, is_gone=letter.is_gone)
        self._blocking.left(client)
        self._pause.left(client)
        if letter.is_gone:
            self._monitoring.gone(client)
            self._tracking.gone(client)
            self._keep(asyncio.create_task(self._transactions.gone(client)))

    def heard(self, letter: _core.Heard) -> None:
        """Hear what an instance says of its keys, besides their names."""
        self._tracking.heard(letter)

    def logged(self, letter: _core.Logged) -> None:
        """Tell SLOWLOG of what a worker has answered."""
        self._keep(asyncio.create_task(self._logs.add(letter.info, [letter.args], 0)))

    def _log_served(self, command: _core.Command) -> None:
        self._keep(asyncio.create_task(self._logs.add(command.info, [command.args], 0)))

    async def recover(self) -> None:
        """Settle what a crash left open; before the first client comes."""
        await self._users.recover()
        await self._logs.look()
        for index in self._links.ready():
            with contextlib.suppress(LinkError):  # gone again: the supervisor will say so
                await self._commits.recover(index)
        self._keep(asyncio.create_task(self._tightness.watch()))

    def subscriptions(self, letter: SubscriptionLetter) -> None:
        """Hear what a worker says about subscriptions."""
        match letter:
            case _core.Subscribe():
                self._keep(asyncio.create_task(self._pubsub.subscribe(letter)))
            case _core.Subscribed():
                self._pubsub.subscribed(letter)
            case _core.Interest():
                self._pubsub.interest(letter)

    def instance_changed(self, instance: control.Instance) -> None:
        """Tell the workers; an instance that came back is first made ready."""
        if instance.state is control.State.READY:
            self._links.unprepared.add(instance.index)
            self._keep(asyncio.create_task(self._make_ready(instance)))
        else:
            self._links.unprepared.discard(instance.index)
            self._users.lost(instance.index)
            self._core.set_instance(instance.index, None, instance.state.value)

    async def _make_ready(self, instance: control.Instance) -> None:
        """Let lanes be opened, once it has what CONFIG SET changed, and old lanes are gone.

        A server that was stopped still runs, when it wakes, what it had been sent before; nothing
        newer may overtake that.
        """
        while self._links.instance(instance.index) is instance:
            try:
                await self._configuration.replay(instance.index)
                await self._users.replay(instance.index)
                await self._library.replay(instance.index)
                await self._commits.recover(instance.index)
                await self._pubsub.renew(instance.index)
                await self._monitoring.renew(instance.index)
                await self._tracking.renew(instance.index)
                known = await self._links.call(instance.index, b"CLIENT", b"LIST")
            except LinkError as error:
                log.warning("instance %d cannot be asked yet: %s", instance.index, error)
            else:
                if LANE_NAME not in known and self._links.instance(instance.index) is instance:
                    self._links.unprepared.discard(instance.index)
                    self._core.set_instance(instance.index, instance.socket, "")
                    return
            await asyncio.sleep(RETRY)

    def _name(self, command: _core.Command) -> str:
        """The row's name, from the command's first words."""
        words = [word.decode(errors="replace").lower() for word in command.args[:2]]
        return "|".join(words) if "|".join(words) in self._handlers else words[0]

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it is done; asyncio itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
