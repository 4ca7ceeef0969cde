"""MONITOR: the workers show clients' commands; only the instances can show scripts' commands.

While a client monitors, one connection to each instance does too. Its lines about commands of
clients' scripts are passed on to the clients, after the worker's line about the script, once its
run counts (``rust/src/resp/script_lines.rs``).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar

from threadis import _core, own_names, resp
from threadis.coordinator.base.reply import Reply
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.packed import pack
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.keys.waiters import ClientKey, client_key

log = logging.getLogger(__name__)

READ_MOST = 256 * 1024
RETRY = 0.05  # seconds before a lost connection is made anew
PATIENCE = 0.5  # seconds for all lines of a transaction's scripts; what comes later is shown then
LOOK = 0.001  # seconds between looks meanwhile

Ended = tuple[int, int, int | None]  # a call: its instance and number, and where it counts

# The calls of a transaction that have ended, if it is one
_ended: ContextVar[list[Ended] | None] = ContextVar("ended", default=None)


class Monitors:
    """Knows the monitoring clients, and monitors the instances for them."""

    def __init__(self, core: _core.Proxy, links: Links, databases: int) -> None:
        self._core, self._links, self._databases = core, links, databases
        self._clients: set[ClientKey] = set()
        self._reading: dict[int, asyncio.Task[None]] = {}
        self._lines: dict[int, _core.Lines] = {}
        self._connecting = asyncio.Lock()
        self._tasks = Tasks()

    @property
    def is_on(self) -> bool:
        """Whether a client monitors."""
        return bool(self._clients)

    def settle(self, index: int, number: int, db: int | None) -> None:
        """Show a script's commands as of this database; None: the run does not count."""
        if (ended := _ended.get()) is not None:
            ended.append((index, number, db))
            if db is not None:
                return
        if lines := self._lines.get(index):
            lines.settle(number, db)

    @contextlib.asynccontextmanager
    async def in_order(self, command: _core.Command, places: Sequence[int]) -> AsyncIterator[None]:
        """Show what scripts of a transaction run in the transaction's order."""
        if not (self._clients and places):
            yield
            return
        ended: list[Ended] = []
        token = _ended.set(ended)
        try:
            yield
        except BaseException:
            _ended.reset(token)
            for index, number, db in ended:  # the transaction will not be shown
                self.settle(index, number, db)
            raise
        _ended.reset(token)
        # Runs that did not count were repeated: the last ones count.
        last = ended[-len(places) :]
        await self._hand_over(command, list(zip(places, last, strict=False)))

    async def _hand_over(self, command: _core.Command, ended: Sequence[tuple[int, Ended]]) -> None:
        found: list[tuple[int, bytes]] = []
        until = asyncio.get_running_loop().time() + PATIENCE
        for at, (index, number, db) in ended:
            if db is None or not (lines := self._lines.get(index)):
                continue
            while (shown := lines.take_call(number, db)) is None:
                if asyncio.get_running_loop().time() > until:
                    lines.settle(number, db)
                    break
                await asyncio.sleep(LOOK)
            if shown:
                found.append((at, shown))
        if found:
            next(iter(self._lines.values())).hand_over(command, found)

    async def monitor(self, command: _core.Command) -> Reply:
        """MONITOR."""
        if command.token is not None:
            return Reply(resp.error("ERR MONITOR isn't allowed for DENY BLOCKING client"))
        if command.info.is_monitor:
            return Reply(b"", monitoring=True)  # no reply at all, like the server
        self._clients.add(client_key(command))
        for index in self._links.ready():
            await self.renew(index)
        return Reply(resp.OK, monitoring=True)

    def gone(self, client: ClientKey) -> None:
        """Note that a client does not monitor any more."""
        self._clients.discard(client)
        if not self._clients:
            for task in self._reading.values():
                task.cancel()
            self._reading.clear()

    async def renew(self, index: int) -> None:
        """Monitor an instance, if that is needed and not done."""
        async with self._connecting:
            if not self._clients or index in self._reading:
                return
            try:
                link = await self._links.connect(index)
                link.writer.write(pack([b"MONITOR"]))
                first = await link.reader.read(READ_MOST)
            except (LinkError, OSError) as error:
                log.warning("instance %d cannot be monitored yet: %s", index, error)
                return
            reading = self._read(index, link.reader, link.writer, first)
            self._reading[index] = self._tasks.start(reading, f"monitoring instance {index}")

    async def _read(
        self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> None:
        """Pass lines on until they are not needed; open a lost connection again."""
        lines = self._lines[index] = _core.Lines(self._core, self._databases, own_names.MARK)
        try:
            while data:
                lines.feed(data)
                data = await reader.read(READ_MOST)
        except Exception as error:
            is_known = isinstance(error, OSError)
            log.warning("instance %d: %s", index, error, exc_info=not is_known)
        finally:
            writer.close()
            self._lines.pop(index, None)
        await asyncio.sleep(RETRY)
        self._reading.pop(index, None)
        if index in self._links.ready():
            await self.renew(index)
