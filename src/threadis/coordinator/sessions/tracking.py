"""CLIENT TRACKING: clients cache what they have read, and are told when it changes.

Instances report every changed key (BCAST, on one connection each, while a client tracks); the core
knows which clients to tell. See docs/decisions/tracking.md.
"""

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final

import hiredis

from threadis import _core, resp
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.script_monitor import ScriptMonitor
from threadis.coordinator.keys.waiters import ClientKey
from threadis.coordinator.sessions.clients import Clients
from threadis.coordinator.sessions.invalidation_feeds import InvalidationFeeds
from threadis.coordinator.sessions.tracked_changes import Step, TrackedChange, read_last
from threadis.coordinator.sessions.tracking_mode import (
    OptionError,
    TrackingMode,
    TransactionTracking,
    check_mode,
    parse_mode,
    trackinginfo,
)

log = logging.getLogger(__name__)

MAX_KEYS: Final = b"tracking-table-max-keys"
NOLOOP: Final = b"noloop"
ANY_NUMBER: Final = 2**32 - 1

Handler = Callable[[_core.Command], Awaitable[bytes]]


class Tracking:
    """Knows which clients track, and keeps the invalidation feeds open for them."""

    def __init__(
        self, core: _core.Proxy, links: Links, clients: Clients, *, tracks_what_is_read: bool
    ) -> None:
        self._links, self._clients = links, clients
        self._tracks_what_is_read = tracks_what_is_read  # of a script's keys: 7.2 and later
        self._trackers = _core.Trackers(core)
        self._modes: dict[ClientKey, TrackingMode] = {}
        self._beginning: dict[
            ClientKey, TransactionTracking
        ] = {}  # clients that may begin to track
        self._flushes = 0  # that run now
        self._has_flushed = False
        self._tickets = itertools.count(1)
        self._changes: dict[ClientKey, TrackedChange] = {}  # of clients with NOLOOP
        self.feeds = InvalidationFeeds(links, self._trackers, self._is_needed, self._flushed)

    def handlers(self) -> dict[str, Handler]:
        """Each command by its row's name."""
        return {
            "client|tracking": self._track,
            "client|caching": self._cache,
            "client|getredir": self._redirect,
            "client|trackinginfo": self._info,
        }

    def describe(self) -> dict[str, int]:
        """Return the fields of INFO."""
        clients, keys, items, prefixes = self._trackers.counts()
        return {
            "tracking_clients": clients,
            "tracking_total_keys": keys,
            "tracking_total_items": items,
            "tracking_total_prefixes": prefixes,
        }

    async def look(self) -> None:
        """Read how many keys may be remembered, if a client tracks."""
        if self._modes:
            pair = await self._links.call(self._links.any_ready(), b"CONFIG", b"GET", MAX_KEYS)
            if isinstance(pair, hiredis.ReplyError):  # a script runs there
                raise LinkError(str(pair))
            self._trackers.set_max_keys(int(pair[1]))

    async def _track(self, command: _core.Command) -> bytes:
        """CLIENT TRACKING ON|OFF [option …]."""
        word = command.args[2].lower()
        client = command.info.place
        try:
            mode = await parse_mode(command.args[3:], self._clients)
            if word == b"on":
                mode = check_mode(mode, self._modes.get(client))
        except OptionError as error:
            return resp.error(str(error))
        if word == b"off":
            self._trackers.untrack(command)
            self.gone(client)
            return resp.OK
        if word != b"on":
            return resp.error("ERR syntax error")
        before = self._modes.get(client)
        self._modes[client] = mode
        try:
            await self.look()
            for index in self._links.ready():
                await self.feeds.renew(index)
        except LinkError:
            if before:
                self._modes[client] = before
            else:
                self.gone(client)
            raise
        self._tell(command, mode)
        # If it has left meanwhile, that was reported before it was added.
        if client not in {one.place for one in await self._clients.of([command.info.id])}:
            self.gone(client)
        return resp.OK

    def _tell(self, command: _core.Command, mode: TrackingMode, *, caching: bool = False) -> None:
        target = mode.redirect
        self._trackers.track(
            command,
            list(mode.prefixes) if b"bcast" in mode.flags else None,
            [flag.decode() for flag in mode.flags] + ["caching"] * caching,
            (target.id, *target.place) if target else None,
        )

    async def _cache(self, command: _core.Command) -> bytes:
        """CLIENT CACHING YES|NO."""
        mode = self._modes.get(command.info.place)
        if mode is None:
            return resp.error(
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with "
                "OPTIN or OPTOUT mode enabled"
            )
        word = command.args[2].lower()
        needs = {b"yes": "OPTIN", b"no": "OPTOUT"}.get(word)
        if needs is None:
            return resp.error("ERR syntax error")
        if needs.lower().encode() not in mode.flags:
            return resp.error(
                f"ERR CLIENT CACHING {word.decode().upper()} is only valid when tracking is "
                f"enabled in {needs} mode."
            )
        self._tell(command, mode, caching=True)
        return resp.OK

    async def _redirect(self, command: _core.Command) -> bytes:
        """CLIENT GETREDIR."""
        return resp.integer(command.info.redirect if command.info.is_tracking else -1)

    async def _info(self, command: _core.Command) -> bytes:
        """CLIENT TRACKINGINFO."""
        return trackinginfo(self._modes.get(command.info.place), command.info)

    def gone(self, client: ClientKey) -> None:
        """Note that a client does not track any more."""
        self._modes.pop(client, None)
        self._stop_unless_needed()

    def _stop_unless_needed(self) -> None:
        if not self._is_needed():
            self.feeds.stop()

    def _is_needed(self) -> bool:
        return bool(self._modes or self._beginning)

    def _flushed(self) -> None:
        """An instance has lost its keys."""
        if self._flushes:
            self._has_flushed = True
        else:
            self._trackers.invalidate_all()

    @property
    def is_on(self) -> bool:
        """Whether any client tracks."""
        return bool(self._modes)

    def has_noloop(self, command: _core.Command) -> bool:
        """Whether a client does not want to be told of its own changes."""
        mode = self._modes.get(command.info.place) if self._modes else None
        return mode is not None and NOLOOP in mode.flags

    def changing(
        self,
        command: _core.Command,
        keys: Iterable[bytes],
        steps: Iterable[Step] = (),
        *,
        once: bool = False,
    ) -> AbstractAsyncContextManager[TrackedChange]:
        """Report changes meanwhile as one, in the order of the keys.

        A client with NOLOOP, which must hold locks on its keys, is not told. ``once``: every key is
        changed once at most; further reports of a key are not its doing. ``steps`` are a
        transaction's commands.
        """
        changes = TrackedChange(read=read_last(steps))
        if not self._modes:
            return contextlib.nullcontext(changes)
        return self._changing(command, list(keys), changes, once=once)

    @contextlib.asynccontextmanager
    async def _changing(
        self, command: _core.Command, keys: list[bytes], changes: TrackedChange, *, once: bool
    ) -> AsyncIterator[TrackedChange]:
        owner, client = None, command.info.place
        if self.has_noloop(command):
            await self.feeds.drain()  # earlier changes of other clients
            owner = (command.info.id, 1 if once else ANY_NUMBER)
        is_outermost = owner is not None and client not in self._changes
        if is_outermost:
            self._changes[client] = changes
        ticket = next(self._tickets)
        self._trackers.begin_changes(ticket, keys, owner)
        try:
            yield changes
        finally:
            if is_outermost:
                del self._changes[client]
            await self.feeds.drain()
            self._trackers.end_changes(ticket, changes.gone, list(changes.read))

    def unchanged(self, client: ClientKey, keys: Callable[[], Iterable[bytes]]) -> None:
        """A client's scripts ran on copies, which instances report as changes of the keys."""
        if changes := self._changes.get(client):
            changes.read.update(keys())

    def reading(
        self, command: _core.Command, keys: list[bytes], script_monitor: ScriptMonitor
    ) -> AbstractAsyncContextManager[None]:
        """Remember what a script reads; on older servers all its keys, if it reads any."""
        if not self._remembers(command) and command.info.place not in self._beginning:
            return contextlib.nullcontext()
        return self._reading(command.info, keys, script_monitor)

    def will_read(self, command: _core.Command, keys: Iterable[bytes]) -> None:
        """Remember what a transaction is about to read."""
        if self._remembers(command):
            self._trackers.remember(command.info.id, list(keys))

    def beginning(
        self, command: _core.Command, tracked: TransactionTracking | None
    ) -> AbstractAsyncContextManager[None]:
        """Wrap a transaction in which its client may begin to track; where, is known afterwards.

        Then what it has read is remembered, and what has changed meanwhile is reported.
        """
        return self._may_begin(command, tracked) if tracked else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def _may_begin(
        self, command: _core.Command, tracked: TransactionTracking
    ) -> AsyncIterator[None]:
        client, ticket = command.info.place, next(self._tickets)
        self._beginning[client] = tracked
        if self._remembers(command):  # when tracking ends, this may be forgotten
            tracked.read.extend(tracked.before)
        try:
            for index in self._links.ready():
                await self.feeds.renew(index)
            self._trackers.begin_changes(ticket, tracked.touched, None)
            try:
                yield
            finally:
                mode = self._modes.get(client)
                cached = {False, tracked.is_caching or command.info.is_caching}
                if mode and any(mode.remembers(is_caching=one) for one in cached):
                    self._trackers.remember(command.info.id, tracked.read)
                await self.feeds.drain()
                self._trackers.end_changes(ticket, [], [])
        finally:
            del self._beginning[client]
            self._stop_unless_needed()

    def _remembers(self, command: _core.Command) -> bool:
        mode = self._modes.get(command.info.place) if self._modes else None
        return mode is not None and mode.remembers(is_caching=command.info.is_caching)

    @contextlib.asynccontextmanager
    async def _reading(
        self, info: _core.ClientInfo, keys: list[bytes], script_monitor: ScriptMonitor
    ) -> AsyncIterator[None]:
        client, ticket = info.id, next(self._tickets)
        changes = self._changes.get(info.place)
        undeclared: list[bytes] = []
        self._trackers.begin_reading(ticket)
        try:
            new = self._trackers.remember(client, keys)  # it may change as soon as it was read
            async with script_monitor.watch_reads() as reads:
                yield
            declared, read = set(keys), set(reads.keys)
            if self._tracks_what_is_read:
                if beginning := self._beginning.get(info.place):
                    beginning.read.extend(reads.keys)
                self._trackers.remember(client, list(read))
                undeclared = list(read - declared)
            if changes:
                undeclared = []  # no other client has changed them
                last = reads.last if self._tracks_what_is_read else declared - reads.written
                changes.read |= last if reads.is_whole else declared
            if not reads.is_whole:
                return  # it may have read any
            if self._tracks_what_is_read:
                self._trackers.forget(client, [key for key in new if key not in read])
            elif not read:
                self._trackers.forget(client, new)
        finally:
            self._trackers.end_reading(ticket, client, undeclared)

    def changed(self, keys: list[bytes]) -> None:
        """Report keys that instances do not: they were created and removed elsewhere."""
        self._trackers.changed(keys)

    @contextlib.asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """Report what all instances do meanwhile as one change."""
        self._flushes += 1
        try:
            yield
        finally:
            await self.feeds.drain()
            self._flushes -= 1
            if self._has_flushed and not self._flushes:
                self._has_flushed = False
                self._trackers.invalidate_all()
