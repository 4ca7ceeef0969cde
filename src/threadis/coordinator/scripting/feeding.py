"""Scripts that may feed keys for which clients wait: no other command comes between.

What a script has changed is known only when it has ended. So while it runs, everything that it may
feed and that clients wait for is locked, and stays locked until they are served::

    in place    commands on such keys come to the coordinator and wait for the lock there: no worker
                has to be asked. Then the key watches report what changed, and in which order
    on copies   its keys are locked already; what has changed is known, and MONITOR shows the order
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
    """The clients that wait for what one script, or one transaction, may feed."""

    def __init__(self, blocked: BlockedClients, places: list[Place], lock: Lock) -> None:
        self._blocked, self._places = blocked, places
        self._held = blocked.locked_places(lock, places)
        self._key_watches = list({blocked.key_watch(place): None for place in places})
        self._changed_keys: dict[bytes, None] = {}
        self._not_watched: set[Place] = set()  # that were not watched

    def record_changes(self, stack: AsyncExitStack) -> None:
        """Record changes of their keys from now on."""
        self._not_watched = {
            place for place in self._places if not self._blocked.key_watch(place).is_armed(place[1])
        }
        for key_watch in self._key_watches:
            stack.enter_context(key_watch.recording_changes(self._changed_keys))

    async def serve(self) -> None:
        """Serve clients whose keys have changed, in the order of the changes.

        Changes on several instances have no order.
        """
        changed = self._places
        with contextlib.suppress(LinkError):  # otherwise all of them may have changed
            for key_watch in self._key_watches:
                await key_watch.drain()
            # XGROUP DESTROY invalidates no key.
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
        """Serve clients of these keys; the script has run, even if an instance is lost."""
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
        """Return the keys, and the keys of groups, that clients wait for, in order."""
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
        """Lock what a script may touch; exclusively what clients wait for."""
        locks, closure = self._execution.locks, self._blocked.with_move_targets(waited)
        if len(closure) > MANY:
            return locks.hold_everything(within)
        if len({self._execution.table.owner(db, key) for db, key in closure}) <= 1:
            return locks.exclude_holders(names, within, alone=closure)
        also = [(db, key, True) for db, key in closure]
        return self._execution.hold([*also, *((db, key, False) for db, key in names)], within)

    async def wait_for_lookups(self, call: ScriptCall, keys: Iterable[bytes]) -> None:
        """Wait until earlier blocking commands for these keys have looked."""
        if call.ending is not None and call.within is None:
            await self._blocking.wait_for_lookups((call.db, key) for key in keys)

    def locks_for_serving(self, waited: list[Place]) -> list[Key]:
        """Return the additional locks for serving waiting clients."""
        return self._blocking.locks_for_serving(waited) if waited else []

    def begin(self, stack: AsyncExitStack, waited: list[Place], lock: Lock) -> FedClients:
        """Leave serving of these keys to the caller."""
        stack.enter_context(self._blocked.in_order(waited))
        return FedClients(self._blocked, waited, lock)

    def record_changes(
        self, stack: AsyncExitStack, places: Iterable[Place], lock: Lock
    ) -> FedClients | None:
        """The same, if clients wait; changes are recorded from now on."""
        waited = [place for place in dict.fromkeys(places) if place in self._blocked.waiters]
        if not waited:
            return None
        fed = self.begin(stack, waited, lock)
        fed.record_changes(stack)
        return fed

    def after_write(
        self, stack: AsyncExitStack, queued: TransactionPlan, lock: Lock
    ) -> Callable[[], Awaitable[None]]:
        """Serve, when it is done, the clients that wait for what a transaction has written as one.

        If scripts run on the real keys, the key watches know the order.
        """
        if any(isinstance(step.script, SandboxedScript) for step in queued.steps):
            fed = self.record_changes(stack, queued.written_keys, lock)
            if fed:
                return fed.serve

        async def serve() -> None:
            with contextlib.suppress(LinkError):  # the key watch will report it
                written = queued.in_order() if self._blocking.count() else queued.written_keys
                await self._blocking.serve(written, lock)

        return serve

    def after_commands(self, stack: AsyncExitStack, queued: TransactionPlan, lock: Lock) -> None:
        """The same if its commands run one after the other: scripts may feed anything."""
        has_scripts = any(step.name in SCRIPTS for step in queued.steps)
        places = self._blocked.waiters.places() if has_scripts else queued.written_keys
        if fed := self.record_changes(stack, places, lock):
            stack.push_async_callback(fed.serve)
