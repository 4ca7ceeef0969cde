"""Commands that wait: BLPOP and similar ones, XREAD and XREADGROUP with BLOCK.

A client waits here, not on an instance::

    run                try the command where it cannot block; if it finds nothing, queue the client
    write              a command on a key that a client waits for: lock the key, write, serve
    serve_after_write  another handler has changed such keys: serve before it replies
                       any other change (a script, a module): the key watch reports it, see serve
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from threadis import _core, resp
from threadis.catalog.blocking import BLOCKING, Form
from threadis.catalog.commands import SCRIPTS, SWEEPS
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.base.command_table import ParsedCommand
from threadis.coordinator.base.databases import database_after_select
from threadis.coordinator.base.offload import LARGE, offload
from threadis.coordinator.base.reply import Handler, HandlerResult
from threadis.coordinator.blocking.attempts import PlaceLock
from threadis.coordinator.blocking.lookups import Lookups
from threadis.coordinator.blocking.serve import BlockedClients
from threadis.coordinator.instances import lookup
from threadis.coordinator.instances.links import Kind, LinkError, Words, value
from threadis.coordinator.keys import stream_read
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.locks import Key, Lock
from threadis.coordinator.keys.waiters import (
    BlockingRequest,
    ClientKey,
    Waiter,
    parse_request,
)
from threadis.coordinator.multikey import oom_blocks
from threadis.coordinator.multikey.execution import Execution, lock_names
from threadis.coordinator.multikey.recipes import other_databases
from threadis.coordinator.sessions.departures import LEFT, Departures

UNBLOCKED: Final = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
LONGEST_TIMEOUT: Final = 2**62 / 1000  # seconds: servers may say that this is out of range
SERVE_THEMSELVES: Final = frozenset(
    # A pop feeds no other key; for scripts see feeding.
    name.encode()
    for name in SCRIPTS | {name for name, one in BLOCKING.items() if one.form is not Form.MOVE}
)


class BlockingCommands:
    """Runs the commands that wait, and those that end a wait."""

    def __init__(
        self,
        execution: Execution,
        core: _core.Proxy,
        acl_checks: AclChecks,
        departures: Departures,
        served: Callable[[_core.Command, bytes], None],
        *,
        runs_again: bool,
    ) -> None:
        self._execution = execution
        self._tracking = execution.tracking
        self._table = execution.table
        self._departures = departures
        self.blocked = BlockedClients(execution, core, acl_checks, served, runs_again=runs_again)
        self._waiters = self.blocked.waiters
        self._is_stopping = False
        self._gates: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()
        self._lookups = Lookups()

    def count(self) -> int:
        """Return how many clients wait."""
        return len(self._waiters) + len(self._departures.waiting)

    def clients(self) -> Collection[ClientKey]:
        """Return the clients that wait."""
        return self._waiters.clients() | self._departures.waiting.keys()

    def count_keys(self, *, only_groups: bool = False) -> int:
        """Return how many keys clients wait for; or only consumers of groups."""
        return len(self._waiters.with_groups()) if only_groups else self._waiters.count_places()

    def count_armed(self) -> int:
        """Return how many keys are watched."""
        return self.blocked.count_armed()

    async def run(self, command: _core.Command) -> bytes | None:
        """Run a command that may wait; None if it does. Later writes to its keys wait for that."""
        if len(command.args) < LARGE:
            parsed, places = self._read(command)
            with self._lookups.of_keys(places):
                return await self._run(command, parsed)
        with self._lookups.of_many_keys() as looked_at:
            parsed, places = await offload(len(command.args), self._read, command)
            looked_at.set_result(await offload(len(places), frozenset, places))
            return await self._run(command, parsed)

    def _read(self, command: _core.Command) -> tuple[ParsedCommand, list[Place]]:
        """Find the keys of a command."""
        parsed = self._table.parse(command.args)
        return parsed, [(command.info.db, access.key) for access in parsed.keys]

    async def wait_for_lookups(self, places: Iterable[Place]) -> None:
        """Wait until earlier blocking commands for these keys have looked."""
        await self._lookups.wait_for(places)

    async def _run(self, command: _core.Command, parsed: ParsedCommand) -> bytes | None:
        began = asyncio.get_running_loop().time()
        db, kind, token = command.info.db, Kind(resp=command.info.resp), command.token
        args, refusal = await self._resolve(command.args, db, kind, token)
        if refusal:
            return refusal
        if args is not command.args:
            parsed = self._table.parse(args)
        request = parse_request(parsed.row.name, args, [access.key for access in parsed.keys])
        if request is None or not parsed.keys:
            return await self._syntax_error(parsed, kind)
        if token is not None:
            return await self._try_now(command, parsed, request)
        if refusal := await self._execution.near_maxmemory.refusal_of(args, db, kind):
            return refusal
        # If ten thousand clients come for one key at once, the first looks and the others join it.
        async with self._gates.setdefault((db, request.keys[0]), asyncio.Lock()):
            is_wide = len(request.keys) >= LARGE  # so many keys are not watched
            if (
                request.is_certainly_valid
                and not is_wide
                and await self.blocked.are_absent([(db, key) for key in request.keys])
            ):
                return await self._wait(command, request, began)
            reply = await self._try_now(command, parsed, request)
            if reply in resp.NULLS and request.blocks:
                return await self._wait(command, request, began)
            return reply

    async def _try_now(
        self, command: _core.Command, parsed: ParsedCommand, request: BlockingRequest
    ) -> bytes:
        """Try the command now, after the clients that wait already, except in a transaction."""
        db, kind, token = command.info.db, Kind(resp=command.info.resp), command.token
        # An XREAD is judged stream by stream, when it runs; without its time.
        is_ordered = request.streams and not request.needs_key and request.timeout < LONGEST_TIMEOUT
        is_judged = request.is_certainly_valid or is_ordered
        if not is_judged and len(self._table.owners(parsed, db)) > 1:
            reply = await self._refusal(parsed, kind)
            if reply.startswith(b"-") and not reply.startswith(b"-NOGROUP"):
                return reply
        names = [(db, access.key) for access in parsed.keys]
        async with self.blocked.hold(names, token) as held:
            if self._departures.is_gone(command):
                return LEFT  # nothing is popped for it
            if token is None and request.takes:
                await self.blocked.serve(names, held, request.queue)
            return await self._try(parsed, request, db, kind, held)

    async def write(self, command: _core.Command) -> bytes:
        """Run any other command; clients that wait for its keys are served before it replies."""
        has_noloop = self._tracking.has_noloop(command)
        if command.token is not None or not (self._waiters or self._lookups or has_noloop):
            return await self._run_tracked(command)
        db, kind = command.info.db, Kind(resp=command.info.resp)
        parsed = self._table.parse(command.args)
        written = self._written(parsed, db)
        await self.wait_for_lookups(written)
        # What SORT reads besides is known, and locked, only when it runs.
        is_alone = has_noloop or any(place in self._waiters for place in written)
        if parsed.row.name == "sort" or not is_alone:
            reply = await self._run_tracked(command)
            await self.serve_after_write(written)
            return reply
        names = [*lock_names(parsed.keys, db), *other_databases(parsed, db)]
        is_direct = len(self._table.owners(parsed, db)) <= 1 and not other_databases(parsed, db)
        if is_direct and len(written) == 1 and not has_noloop:
            together = await self.blocked.write_and_serve(command, parsed.row.name, written[0])
            if together is not None:
                return together
        async with self._execution.hold([*names, *self.locks_for_serving(written)]) as lock:
            keys = [key for _, key in written]
            async with self._tracking.changing(command, keys, once=is_direct) as changes:
                reply = await self._execution.run(parsed, db, kind, lock.token)
                if has_noloop:
                    changes.gone += await self._execution.missing(parsed.keys, db)
            await self.serve(written, lock)
        return reply

    async def _run_tracked(self, command: _core.Command) -> bytes:
        """Run a command; its changes on several instances are one change for tracking clients."""
        parsed = await offload(len(command.args), self._table.parse, command.args)
        kind = Kind(resp=command.info.resp)
        keys = [access.key for access in parsed.keys if access.writes]
        async with self._tracking.changing(command, keys):
            return await self._execution.run(parsed, command.info.db, kind, command.token)

    def locks_for_serving(self, places: Iterable[Place]) -> list[Key]:
        """Return the additional locks that a writer needs in order to serve waiting clients."""
        return [(db, key, True) for db, key in self.blocked.with_move_targets(places)]

    async def serve(self, places: Iterable[Place], lock: Lock) -> None:
        """Serve clients that wait for what was just written under a lock, in the order of the
        places.

        The command has run, even if an instance that a move needs is lost: then they are served
        later.
        """
        written = list(dict.fromkeys(places))
        try:
            await self.blocked.serve(written, self.blocked.locked_places(lock, written))
        except LinkError:
            self.blocked.changed(written)

    async def run_and_serve(self, command: _core.Command, handler: Handler) -> HandlerResult:
        """Run a command; serve clients that wait for its keys before it replies."""
        if command.args[0].lower() in SERVE_THEMSELVES:
            return await handler(command)
        places = self._written_by(command)
        with self.blocked.in_order(places):
            reply = await handler(command)
            await self.serve_after_write(places or self._written_by(command))
        return reply

    def _written_by(self, command: _core.Command) -> list[Place]:
        """Return the places that a command may change; none if no client waits."""
        if not self._waiters or command.token is not None:
            return []
        places: list[Place] = []
        db = command.info.db
        for args in command.queued or [command.args]:
            parsed = self._table.parse(args)
            if parsed.row.name in SWEEPS:
                return self._waiters.places()
            places += self._written(parsed, db)
            if parsed.row.name == "select":
                db = database_after_select(args[1], db, self._execution.borrowing.databases)
        return list(dict.fromkeys(places))

    async def serve_after_write(self, places: Iterable[Place]) -> None:
        """Serve clients that wait for keys that have just been written."""
        wanted = [place for place in dict.fromkeys(places) if place in self._waiters]
        if wanted:
            with contextlib.suppress(LinkError):  # its alarm will tell
                async with self.blocked.hold(wanted) as held:
                    await self.blocked.serve(wanted, held)

    def client_left(self, client: ClientKey) -> None:
        """A client has hung up, or is gone: nothing is popped for it any more."""
        waiter = self._waiters.of_client(client)
        if waiter:
            self.blocked.give_up(waiter, LEFT)

    def stop(self) -> None:
        """Shut down: close clients that wait, or begin to, without a reply, as a server does."""
        self._is_stopping = True
        for client in list(self.clients()):
            self._departures.left(client, is_gone=False)
            self.client_left(client)

    def unblock(self, client_id: int, *, with_error: bool) -> bool:
        """CLIENT UNBLOCK; False if the client does not wait."""
        waiter = self._waiters.of_id(client_id)
        if waiter is None or waiter.final_reply is not None:
            return False
        self.blocked.give_up(waiter, UNBLOCKED if with_error else waiter.timeout_reply)
        return True

    def _written(self, parsed: ParsedCommand, db: int) -> list[Place]:
        """Return the places that a command may have changed."""
        is_script, takes = parsed.row.name in SCRIPTS, parsed.row.name in BLOCKING
        places = [
            (db, access.key)
            for access in parsed.keys
            if is_script or (access.writes and not (takes and access.removes))
        ]
        places += [(other, key) for other, key, _ in other_databases(parsed, db)]
        return places

    async def _wait(
        self, command: _core.Command, request: BlockingRequest, began: float
    ) -> bytes | None:
        if self._is_stopping or self._departures.has_left(command):
            return LEFT
        waiter = Waiter(command, request)
        if request.timeout:
            loop = asyncio.get_running_loop()
            waiter.timer = loop.call_at(
                began + request.timeout, self.blocked.give_up, waiter, waiter.timeout_reply
            )
        await self.blocked.add(waiter)
        return None

    async def _try(
        self,
        parsed: ParsedCommand,
        request: BlockingRequest,
        db: int,
        kind: Kind,
        held: PlaceLock,
    ) -> bytes:
        """Try a command for all its keys."""
        execution, token = self._execution, held.lock.token
        owners = self._table.owners(parsed, db)
        if len(owners) <= 1:
            block = self.blocked.attempts.run_nonblocking(
                owners.pop(), parsed.args, request.keys[0], db, kind
            )
            return (await block)[1]
        if request.target is not None:
            return await execution.execute(request.move(), db, kind, token)
        if request.streams:
            return await execution.execute(request.without_block(), db, kind, token)

        async def ask(index: int, commands: list[Words]) -> list[bytes]:
            return await self.blocked.attempts.raw(index, commands, db, kind)

        reply = resp.null_array(kind.resp)
        owner = partial(self._table.owner, db)
        async for key in lookup.present(request.keys, owner, ask):
            _, reply = await self.blocked.attempts.run_nonblocking(
                owner(key), request.only(key), key, db, kind
            )
            if reply not in resp.NULLS:
                break
        return reply

    async def _syntax_error(self, parsed: ParsedCommand, kind: Kind) -> bytes:
        """Return the server's error for a command that can never wait."""
        reply = await self._refusal(parsed, kind)
        if reply.startswith(b"-") and not reply.startswith(oom_blocks.NO_MEMORY):
            return reply
        # Without memory there is no block that says so, but it needs none.
        index, scratch = self._execution.links.any_ready(), self._execution.borrowing.scratch
        return (await self._execution.links.raw(index, [parsed.args], db=scratch, kind=kind))[0]

    async def _refusal(self, parsed: ParsedCommand, kind: Kind) -> bytes:
        """Return the server's syntax error, from a database without keys."""
        index = self._table.owner(0, parsed.keys[0].key) if parsed.keys else 0
        scratch = self._execution.borrowing.scratch
        block = self.blocked.attempts.run_nonblocking(index, parsed.args, b"", scratch, kind)
        reply = (await block)[1]
        self._execution.own_reads.note_trial(index, parsed.row.name, len(parsed.keys), reply)
        return reply

    async def _resolve(
        self, args: Words, db: int, kind: Kind, token: int | None
    ) -> tuple[Words, bytes | None]:
        """Replace each $ of XREAD by the last entry's id; or return an error."""
        if args[0].upper() != b"XREAD" or stream_read.NEW not in args:
            return args, None
        read = stream_read.parse(args)
        if read is None:
            return args, None
        named = list(zip(read.keys, read.ids, strict=True))
        new = [key for key, entry in named if entry == stream_read.NEW]
        last: dict[bytes, bytes] = {}

        async def ask(index: int, commands: list[Words]) -> list[bytes]:
            return await self.blocked.attempts.ask(index, commands, db)

        infos = lookup.replies(
            list(dict.fromkeys(new)),
            partial(self._table.owner, db),
            lambda key: [b"XINFO", b"STREAM", key],
            ask,
        )
        async for key, reply in infos:
            if reply.startswith(b"-WRONGTYPE"):  # unless something else comes first
                words = read.words(read.keys, read.ids)
                said = await self._execution.execute(words, db, kind, token)
                return args, said if said.startswith(b"-") else reply
            info = value(reply)
            is_there = isinstance(info, list)
            last[key] = info[info.index(b"last-generated-id") + 1] if is_there else b"0-0"
        ids = [last[key] if entry == stream_read.NEW else entry for key, entry in named]
        return [*args[: len(args) - len(ids)], *ids], None
