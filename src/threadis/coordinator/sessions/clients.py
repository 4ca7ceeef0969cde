"""CLIENT LIST, INFO, KILL and UNBLOCK, for the workers' clients."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from threadis import _core, resp
from threadis.coordinator.base.numbers import parse_integer
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.keys.waiters import ClientKey
from threadis.coordinator.keys.watched_keys import WatchedKeys
from threadis.coordinator.sessions import client_filters
from threadis.coordinator.sessions.client_fields import line
from threadis.coordinator.sessions.client_snapshot import ClientSnapshot
from threadis.coordinator.sessions.client_states import BlockedCommands, ClientStates

log = logging.getLogger(__name__)


class Blocking(BlockedCommands, Protocol):
    """Clients in a blocking command."""

    def unblock(self, client_id: int, *, with_error: bool) -> bool:
        """Unblock a client, as by a timeout or with an error; False if it does not wait."""


class Clients:
    """Asks the workers for their clients."""

    def __init__(
        self, core: _core.Proxy, links: Links, names: list[str], workers: int, databases: int
    ) -> None:
        self._core = core
        self._links = links
        self._names = names  # fields of CLIENT INFO
        self._workers = workers
        self.dialect = client_filters.Dialect.of(names, databases)
        self._last_request = 0
        self._arrived: dict[int, list[_core.ClientList]] = {}
        self._answers: dict[int, asyncio.Future[list[_core.ClientInfo]]] = {}
        self._tasks = Tasks()
        self.waiting: Blocking  # see join
        self._next: asyncio.Task[ClientSnapshot] | None = None  # that has not begun yet
        self._looking, self._showing = asyncio.Lock(), asyncio.Lock()
        self.states = ClientStates(links)
        self.has_user: Callable[[str], bool] = lambda _: False  # see users.Users

    def join(
        self, blocking: Blocking, pause: BlockedCommands, watches: Mapping[ClientKey, WatchedKeys]
    ) -> None:
        """Set the other sources of what is known of clients."""
        self.waiting = blocking
        self.states.waits, self.states.watches = (blocking, pause), watches

    def arrived(self, answer: _core.ClientList) -> None:
        """Take a worker's answer; the last one completes the list."""
        parts = self._arrived.get(answer.request)
        if parts is None:
            return  # not waited for any more
        parts.append(answer)
        if len(parts) == self._workers:
            clients = [client for part in parts for client in part.clients]
            del self._arrived[answer.request]
            if not self._answers[answer.request].done():
                self._answers[answer.request].set_result(clients)

    def sent_too_much(self, closed: _core.SentTooMuch) -> None:
        """Log that a client was closed. Its input is not logged: that may be a password."""
        shown = line(closed.info, self._names)
        log.warning("Closing client that reached max query buffer length: %s", shown)

    async def all(self) -> list[_core.ClientInfo]:
        """Return every client, by id."""
        return (await self._survey()).clients

    async def _survey(self) -> ClientSnapshot:
        """Return every client, looked up after this call. All callers share the next answer while
        the workers are being asked.
        """
        if self._next is None:
            self._next = self._tasks.start(self._look(), "a look at all clients")
        return await asyncio.shield(self._next)

    async def _look(self) -> ClientSnapshot:
        async with self._looking:
            self._next = None
            return ClientSnapshot(await self.states.complete(await self._ask(None)))

    async def of(self, ids: Iterable[int]) -> list[_core.ClientInfo]:
        """Return the clients with these ids; the cost does not depend on the number of others."""
        return await self._ask(sorted(one for one in ids if one > 0))

    async def _ask(self, ids: list[int] | None) -> list[_core.ClientInfo]:
        self._last_request += 1
        request = self._last_request
        self._arrived[request] = []
        answer = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        self._core.list_clients(request, ids)
        try:
            return sorted(await answer, key=lambda client: client.id)
        finally:
            del self._answers[request]
            self._arrived.pop(request, None)

    async def _shown(self, filters: client_filters.Filters, info: _core.ClientInfo) -> bytes:
        """Return the lines of matching clients; the client's own is as of this command.

        Commands about all clients run one after the other, with other tasks in between.
        """
        if filters.ids is not None:
            survey = ClientSnapshot(await self.states.complete(await self.of(filters.ids)))
            await survey.write(self.line)
            return survey.show(filters, info, self.line)
        survey = await self._survey()
        async with self._showing:
            await survey.write(self.line)
            shown = survey.show(filters, info, self.line)
            await asyncio.sleep(0)
            return shown

    async def _matching(
        self, filters: client_filters.Filters, asking: int
    ) -> list[_core.ClientInfo]:
        """Return the matching clients."""
        if filters.ids is None:
            clients = await self.all()
        else:
            clients = await self.states.complete(await self.of(filters.ids))
        return [one for one in clients if filters.takes(one, asking)]

    async def info(self, command: _core.Command) -> bytes:
        """CLIENT INFO."""
        [info] = await self.states.complete([command.info])
        return resp.text(f"{self.line(info)}\n".encode(), info.resp)

    async def list(self, command: _core.Command) -> bytes:
        """CLIENT LIST [filter …]."""
        try:
            filters = client_filters.parse_list(command.args[2:], self.dialect, self.has_user)
        except client_filters.FilterError as error:
            return resp.error(str(error))
        [info] = await self.states.complete([command.info])
        return resp.text(await self._shown(filters, info), info.resp)

    async def kill(self, command: _core.Command) -> bytes:
        """CLIENT KILL address, or filter …."""
        words = command.args[2:]
        try:
            if len(words) == 1:
                filters = client_filters.address(words[0])
            else:
                filters = client_filters.parse_kill(words, self.dialect, self.has_user)
        except client_filters.FilterError as error:
            return resp.error(str(error))
        asking = command.info.id
        found = [one.id for one in await self._matching(filters, asking)]
        await self.end([one for one in found if one != asking])
        if asking in found:
            self._core.kill_clients([asking], after_replies=True)
        if len(words) == 1:
            return resp.OK if found else resp.error("ERR No such client")
        return resp.integer(len(found))

    async def end(self, ids: Sequence[int]) -> None:
        """Close these clients at once; when this returns, they are gone."""
        if ids:
            self._core.kill_clients(ids, after_replies=False)
            # A worker removes clients at the end of a turn, and answers within a turn: the second
            # answer comes after the end of the turn that closed them.
            await self.of([])
            await self.of([])

    async def unblock(self, command: _core.Command) -> bytes:
        """CLIENT UNBLOCK id [TIMEOUT|ERROR]."""
        if len(command.args) > 4 and not self.dialect.is_valkey:
            return resp.wrong_subcommand(command.args)
        reason = command.args[3].lower() if len(command.args) == 4 else b"timeout"
        if reason not in (b"timeout", b"error"):
            return resp.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
        number = parse_integer(command.args[2])
        if number is None:
            return resp.error("ERR value is not an integer or out of range")
        done = self.waiting.unblock(number, with_error=reason == b"error")
        return resp.integer(int(done))

    async def import_source(self, command: _core.Command) -> bytes:
        """CLIENT IMPORT-SOURCE: refused, because a lane is shared."""
        ready = self._links.ready()
        if not ready:
            raise LinkError("TRYAGAIN no instance is ready; the command was not run")
        async with self._links.lease(ready[0]) as link:
            reply = (await link.ask(command.args))[0]
            link.is_spoilt = (
                True  # whatever it replied, this connection may be an import source now
            )
        if command.args[2].lower() == b"on" and reply == resp.OK:
            return resp.error("ERR threadis: CLIENT IMPORT-SOURCE ON is not supported")
        return reply

    def line(self, client: _core.ClientInfo) -> str:
        """Format a client as CLIENT LIST does."""
        return line(client, self._names)
