"""Scripts that may feed keys for which clients wait: nobody comes between such a script and these.

What a script has changed is known only when it is over. So while it runs all that it may feed and
that is waited for is locked, and stays so until those who wait are served::

    in place    commands that name such keys come to the coordinator and stand in line there: no
                worker has to be asked. The alarms then say what was changed, and in which order
    on copies   its keys are locked already; what has changed is known, and a look tells the order
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.blocking.commands import BlockingCommands
from threadis.coordinator.blocking.serve import BlockedClients
from threadis.coordinator.instances.links import LinkError
from threadis.coordinator.keys.colocation import Group
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.keys.locks import Key, Lock
from threadis.coordinator.lua.sandbox import SandboxedScript
from threadis.coordinator.lua.script_call import ScriptCall
from threadis.coordinator.multikey.execution import Execution
from threadis.coordinator.multikey.transaction_plan import TransactionPlan

MANY = 256  # keys: rather than more, everything is locked


class FedClients:
    """Those who wait for what one script, or one transaction, may feed."""

    def __init__(self, blocked: BlockedClients, places: list[Place], lock: Lock) -> None:
        self._blocked, self._places = blocked, places
        self._held = blocked.locked_places(lock, places)
        self._key_watches = list({blocked.key_watch(place): None for place in places})
        self._changed_keys: dict[bytes, None] = {}
        self._not_watched: set[Place] = set()  # of which no alarm was armed

    def record_changes(self, stack: AsyncExitStack) -> None:
        """Let alarms say what changes from now on."""
        self._not_watched = {
            place for place in self._places if not self._blocked.key_watch(place).is_armed(place[1])
        }
        for key_watch in self._key_watches:
            stack.enter_context(key_watch.recording_changes(self._changed_keys))

    async def serve(self) -> None:
        """Serve who waits for what alarms have told of, in the order in which it has changed.

        Several instances cannot tell an order.
        """
        changed = self._places
        with contextlib.suppress(LinkError):  # else all of them may have changed
            for key_watch in self._key_watches:
                await key_watch.drain()
            # Of XGROUP DESTROY no server tells those who track keys.
            groups = self._blocked.waiters.with_groups()
            changed = [
                place
                for place in changed
                if place[1] in self._changed_keys or place in self._not_watched or place in groups
            ]
        if len(self._key_watches) == 1:
            order = {key: at for at, key in enumerate(self._changed_keys)}
            changed.sort(key=lambda place: order.get(place[1], len(order)))
        await self.serve_these(changed)

    async def serve_these(self, places: Collection[Place]) -> None:
        """Serve who waits for these; what has run has run, even if an instance is lost."""
        try:
            await self._blocked.serve(places, self._held)
        except LinkError:
            self._blocked.changed(places)


class ScriptFeeding:
    """Finds and locks what scripts may feed."""

    def __init__(self, execution: Execution, blocking: BlockingCommands) -> None:
        self._execution, self._blocking = execution, blocking
        self._blocked = blocking.blocked

    def waited(
        self,
        call: ScriptCall,
        keys: Iterable[bytes],
        groups: Iterable[Group] = (),
        databases: Iterable[int] | None = None,
    ) -> list[Place]:
        """Find what is waited for among keys, and what is in groups, in the order of the keys."""
        waiters = self._blocked.waiters
        if not call.writes or not waiters:
            return []
        found: dict[Place, None] = {}
        for db in [call.db] if databases is None else databases:
            named = ((db, key) for key in keys)
            found.update(dict.fromkeys(place for place in named if place in waiters))
            for group in groups:
                begun = self._blocked.waited_with_prefix(db, group.prefix)
                found.update(dict.fromkeys(place for place in begun if place[1] in group))
        return list(found)

    def lock(
        self, names: list[Place], waited: list[Place], within: int | None
    ) -> AbstractAsyncContextManager[Lock]:
        """Stand in line for what a script may touch, and be alone with what is waited for."""
        locks, closure = self._execution.locks, self._blocked.with_move_targets(waited)
        if len(closure) > MANY:
            return locks.hold_everything(within)
        if len({self._execution.table.owner(db, key) for db, key in closure}) <= 1:
            return locks.exclude_holders(names, within, alone=closure)
        also = [(db, key, True) for db, key in closure]
        return self._execution.hold([*also, *((db, key, False) for db, key in names)], within)

    async def wait_for_lookups(self, call: ScriptCall, keys: Iterable[bytes]) -> None:
        """Wait until blocking commands for these keys that came before are known."""
        if call.ending is not None and call.within is None:
            await self._blocking.wait_for_lookups((call.db, key) for key in keys)

    def locks_for_serving(self, waited: list[Place]) -> list[Key]:
        """What else must be locked by who serves those who wait."""
        return self._blocking.locks_for_serving(waited) if waited else []

    def begin(self, stack: AsyncExitStack, waited: list[Place], lock: Lock) -> FedClients:
        """Leave to somebody who serves them those who wait, whatever alarms tell."""
        stack.enter_context(self._blocked.in_order(waited))
        return FedClients(self._blocked, waited, lock)

    def record_changes(
        self, stack: AsyncExitStack, places: Iterable[Place], lock: Lock
    ) -> FedClients | None:
        """The same, if anybody waits; alarms will tell what changes from now on."""
        waited = [place for place in dict.fromkeys(places) if place in self._blocked.waiters]
        if not waited:
            return None
        fed = self.begin(stack, waited, lock)
        fed.record_changes(stack)
        return fed

    def after_write(
        self, stack: AsyncExitStack, queued: TransactionPlan, lock: Lock
    ) -> Callable[[], Awaitable[None]]:
        """Serve, once it is over, who waits for what a transaction writes as one.

        Where scripts run on the real keys, alarms tell in which order.
        """
        if any(isinstance(step.script, SandboxedScript) for step in queued.steps):
            fed = self.record_changes(stack, queued.written_keys, lock)
            if fed:
                return fed.serve

        async def serve() -> None:
            with contextlib.suppress(LinkError):  # its alarm will tell
                written = queued.in_order() if self._blocking.count() else queued.written_keys
                await self._blocking.serve(written, lock)

        return serve

    def after_commands(self, stack: AsyncExitStack, queued: TransactionPlan, lock: Lock) -> None:
        """The same of one whose commands run one behind the other: scripts may feed anything."""
        has_scripts = any(step.name in SCRIPTS for step in queued.steps)
        places = self._blocked.waiters.places() if has_scripts else queued.written_keys
        if fed := self.record_changes(stack, places, lock):
            stack.push_async_callback(fed.serve)
