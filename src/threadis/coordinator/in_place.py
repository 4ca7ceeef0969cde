"""Running a script where its keys are: on the real keys, as a guard that may touch no others."""

from collections.abc import Collection, Sequence

from threadis.coordinator import fenced
from threadis.coordinator.asking import Asking
from threadis.coordinator.busy import Busy
from threadis.coordinator.call import Call, ChangedError
from threadis.coordinator.callers import Callers, named
from threadis.coordinator.execution import Execution
from threadis.coordinator.guard import (
    ACL_LOG,
    NOT_ON_COPIES,
    OTHER_DATABASES,
    TELLING,
    UNSEEN,
    WHOLE_KEYSPACE,
    Refusals,
    guard_of,
    judge,
    only_one,
)
from threadis.coordinator.library import Library
from threadis.coordinator.locality import EVERYTHING, LOCK, Group, is_plain
from threadis.coordinator.phases import RefusedError
from threadis.coordinator.reading import selects
from threadis.coordinator.users import Users

NAMES_MOST = 1000  # patterns of names: servers compare each of them with each key that is touched


class InPlace:
    """Runs scripts on the real keys of one instance."""

    def __init__(
        self,
        execution: Execution,
        library: Library,
        busy: Busy,
        users: Users,
        callers: Callers,
    ) -> None:
        self._library = library
        self._execution, self._busy, self._users = execution, busy, users
        self._callers = callers
        self._links = execution.links
        self._databases = range(execution.borrowing.databases)
        known = {row.name for row in execution.table.rows()}
        self._telling = tuple(name.encode() for name in sorted(TELLING & known))
        # What a script may not do while it may have to be run again
        self.effects = (*WHOLE_KEYSPACE, *self._telling, *NOT_ON_COPIES, *UNSEEN)

    async def run(
        self,
        call: Call,
        index: int,
        denied: Collection[bytes] | None = None,
        *,
        only_reads: bool = False,
        can_be_undone: bool = False,
    ) -> tuple[bytes, Refusals]:
        """Run at an instance; the reply, and what the guard refused besides the whole keyspace."""
        alone = self.alone(call.db)
        denied = alone if denied is None else denied
        if asking := Asking.of(call):
            denied = asking.may_run(denied)
        local, others = self._names(call)
        names = [*call.keys, *(LOCK + group.prefix for group in local)]
        # What is proved may go to another database, where its keys are on the same instance.
        databases = self._databases if selects(call.body) else [call.db]
        places = [(db, name) for db in databases for name in names]
        async with (
            self._execution.locks.stand_in_line(places, call.within),
            self._links.lease(index, call.kind, call.db) as link,
        ):
            if call.generation not in (None, self._library.generation):
                raise ChangedError
            guard = guard_of(link)
            before = guard.before(call.rights, others, denied, local, only_reads=only_reads)
            name = self._callers.begin(call.info, can_be_undone=can_be_undone)
            async with self._busy.watch(index) as was_killed:
                answers = await fenced.ask(
                    link,
                    call.words,
                    before=[*before, named(name), guard.login()],
                    back=[self._links.login()],
                    after=[named(), ACL_LOG],
                    only_as_block=can_be_undone,
                )
            if answers.refusal is not None:  # another script runs there, say
                guard.abandon()
                return answers.refusal, Refusals(all=True)
            log = answers.after[-1]
            refusals, reply = await judge(guard, link, log, call, answers.reply, self._users)
            is_killed = was_killed(reply)
            self._callers.settle(name, index, call.db, counts=is_killed or not refusals)
            if is_killed:
                raise RefusedError(reply)
            refusals.alone = refusals.commands & set(alone)
            return only_one(refusals.alone) if refusals.alone else reply, refusals

    def alone(self, db: int) -> Collection[bytes]:
        """What no script may do, because it would see one instance only."""
        locality = self._execution.locality
        if locality.home(db) is not None:
            return (*self._telling, *OTHER_DATABASES, b"flushall", b"swapdb")
        alone = (*self._telling, *WHOLE_KEYSPACE)
        return (*alone, *OTHER_DATABASES) if locality.has_pins else alone

    def has_all(self, db: int) -> bool:
        """Whether all keys of a database are on one instance."""
        return self._links.count == 1 or self._execution.locality.home(db) is not None

    def can_name(self, call: Call) -> bool:
        """Whether a guard can be told of all that a script may touch, and is still quick."""
        if len(call.keys) <= NAMES_MOST:
            return True
        local, others = self._names(call)
        return len(local) + len(others or ()) <= NAMES_MOST

    def _names(self, call: Call) -> tuple[list[Group], Collection[bytes] | None]:
        """What a guard is told: groups, and keys that are in none of them; None: all there are."""
        if self.has_all(call.db):
            return ([] if call.rights else [EVERYTHING]), None
        if call.rights:
            return [], call.keys
        groups: dict[Group, None] = {}
        others: dict[bytes, None] = {}
        for key in call.keys:
            group = self._execution.locality.group(call.db, key)
            if group and _is_exact(group):
                groups[group] = None
            else:
                others[key] = None
        return list(groups), others.keys()

    def home(self, call: Call, keys: Sequence[bytes]) -> int:
        """Choose the instance for a script with these keys."""
        if keys:
            return self._execution.table.owner(call.db, keys[0])
        pinned = self._execution.locality.home(call.db)
        return self._links.any_ready() if pinned is None else pinned

    def groups(self, call: Call) -> list[Group]:
        """Find what lives where its keys do, if these are on one instance.

        A restricted user's script gets exact keys only.
        """
        return self._names(call)[0]


def _is_exact(group: Group) -> bool:
    """Whether its pattern matches no other keys."""
    return all(map(is_plain, (group.prefix, *group.tail)))
