"""The scripts of one run on copies: as sandbox users, and watched.

There are two ways to find out what they touch besides what they were lent::

    by refusal   the sandbox user may touch only what was lent; ACL LOG names what was refused
    by MONITOR   the sandbox user may touch all that its caller may; MONITOR shows what was run

The first is cheaper. The second shows all keys of a run at once, and keys of any bytes.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from threadis import own_names
from threadis.coordinator.base.command_table import ParsedCommand
from threadis.coordinator.base.offload import LARGE, offload
from threadis.coordinator.instances.fenced import Fence, FencedReplies
from threadis.coordinator.instances.links import Link, Words, value
from threadis.coordinator.instances.script_monitor import MonitoredRun, ScriptMonitor
from threadis.coordinator.keys.colocation import is_plain
from threadis.coordinator.keys.key_watch import Place
from threadis.coordinator.lua.acl_check import ACL_CHECK_CMD, AclCheckUse
from threadis.coordinator.lua.analysis import KEYLESS
from threadis.coordinator.lua.sandbox import SandboxedScript, ScriptSandbox
from threadis.coordinator.lua.sandbox_user import (
    KEY_LISTING,
    PUBLISHING,
    SORT_AFTER_WRITE,
    TOO_LARGE_TO_MONITOR,
    SandboxRules,
    sandbox_user_of,
)
from threadis.coordinator.lua.script_call import ScriptCall
from threadis.coordinator.lua.sort_patterns import (
    key_from_pattern,
    patterns,
    reads_other_keys,
    sort_keys,
    with_store_key,
)
from threadis.coordinator.multikey.copies import LentByDatabase
from threadis.coordinator.multikey.phases import RefusedError
from threadis.coordinator.sessions.busy import BusyScripts

if TYPE_CHECKING:
    from threadis.coordinator.multikey.execution import Execution

SELECT: Final = b"select"
SORT: Final = b"sort"
FEW = 64  # keys; so few patterns are compared quickly
MOST_PATTERNS = 10_000  # keys that a sandbox user can have patterns for
LOOK_LIMIT = 16 * 1024 * 1024  # bytes of copies that MONITOR may repeat, four times as long
KEY_SECONDS = 0.0005  # more than the copies of one key take in a block, and to read them
BYTE_SECONDS = 1e-7  # the same of one byte: a big value is packed and read several times


class ScriptTrial:
    """Runs of the same scripts, each with more keys than the one before."""

    def __init__(
        self,
        execution: "Execution",
        busy: BusyScripts,
        sandbox: ScriptSandbox,
        script_monitor: ScriptMonitor,
        calls: Sequence[ScriptCall],
        denied: Collection[bytes],
        *,
        with_other_commands: bool,
    ) -> None:
        """``denied`` is what they may not do, unless it turns out that they may."""
        self._with_other_commands = with_other_commands
        self._execution, self._busy, self._sandbox = execution, busy, sandbox
        self._script_monitor, self._table = script_monitor, execution.table
        self.calls, self.denied = calls, denied
        askings = [asking for call in calls if (asking := AclCheckUse.of(call))]
        # Commands that acl_check_cmd would answer wrongly.
        self.misanswered = {
            name for asking in askings for name in asking.may_ask(asking.denied(self.denied))
        }
        # Scripts that ask must be allowed what their callers are.
        self.monitors = bool(askings) or any(map(reads_other_keys, calls))
        self.refused: set[bytes] = set()  # commands, in the run before
        # Scripts that may go to other databases, the real ones: so they may write nothing; and
        # those that have just wanted to.
        self._may_select, self._wanted_select = set[int](), set[int]()
        # What scripts among other commands sort, by which patterns: it is asked for its elements.
        self._sorts = dict[Place, frozenset[bytes]]()
        self._order: list[Place] = []  # of keys that they have written, if monitored
        self._scripts: list[SandboxedScript] = []
        self._monitored_run: MonitoredRun | None = None
        self._was_killed: Callable[[bytes], bool] = lambda _: False

    @property
    def writes(self) -> bool:
        """Whether they may write."""
        return any(call.writes for call in self.calls)

    @property
    def is_monitored(self) -> bool:
        """Whether this run is monitored; then they may have written keys that were not lent."""
        return self._monitored_run is not None

    @property
    def _writing(self) -> set[bytes]:
        """Commands that write."""
        return {row.name.encode() for row in self._table.rows() if row.writes}

    async def wrap(self, stack: AsyncExitStack, link: Link, lents: LentByDatabase) -> list[Fence]:
        """Begin a run: wrap the scripts."""
        keys = [key for db in {call.db for call in self.calls} for key in lents[db].keys]
        is_exact = len(keys) <= MOST_PATTERNS and all(map(is_plain, keys))
        monitors = self.monitors or not is_exact or len(keys) > FEW
        if monitors and _size(lents) > LOOK_LIMIT:
            if not is_exact or any(
                ACL_CHECK_CMD in one.body or reads_other_keys(one) for one in self.calls
            ):
                raise RefusedError(TOO_LARGE_TO_MONITOR)
            monitors = False
        self._monitored_run = look = (
            await stack.enter_async_context(self._script_monitor.watch_run(link.index))
            if monitors
            else None
        )
        self._scripts = []
        for at, call in enumerate(self.calls):
            lent = lents[call.db]
            allowed = SandboxRules(
                None if look else lent.keys, self._denied(at, call), copies=(call.db, lent.scratch)
            )
            script = self._sandbox.wrap(
                call,
                allowed,
                sandbox_user_of(link) if len(self.calls) == 1 else None,
                before=[*([look.before] if look else []), *self._asked(call)],
                after=[look.after] if look and call is self.calls[-1] else [],
            )
            self._scripts.append(script)
        return [script.fence for script in self._scripts]

    def _denied(self, at: int, call: ScriptCall) -> Collection[bytes]:
        """Return what one of the scripts is denied."""
        asking = AclCheckUse.of(call)
        denied = asking.denied(self.denied) if asking else self.denied
        if at not in self._may_select:
            return denied
        allowed = [name for name in denied if name != SELECT]
        return [*allowed, *self._writing] if call.writes else allowed

    def _asked(self, call: ScriptCall) -> list[Words]:
        """Return the questions right before a script's login."""
        return [[b"SORT", key, b"BY", b"nosort"] for db, key in self._sorts if db == call.db]

    @contextlib.asynccontextmanager
    async def running(self, index: int, lents: LentByDatabase) -> AsyncIterator[None]:
        """Watch the run."""
        count = sum(len(lent.keys) for lent in lents.values())
        around = count * KEY_SECONDS + _size(lents) * BYTE_SECONDS
        async with self._busy.watch(index, around) as self._was_killed:
            try:
                yield
            except RefusedError:
                for script in self._scripts:
                    script.sandbox_user.abandon()
                raise

    async def judge(
        self,
        link: Link,
        answers: Iterable[FencedReplies],
        lents: LentByDatabase,
        missing: dict[int, set[bytes]],
    ) -> None:
        """Find what the scripts were refused, and add the keys that they need to ``missing``; their
        replies are then as their clients may see them.
        """
        killed = b""
        self.refused, self._wanted_select = set(), set()
        seen: dict[int, set[bytes]] = defaultdict(set)
        for number, (script, answer) in enumerate(zip(self._scripts, answers, strict=True)):
            script.answers = answer
            refusals, reply = await self._sandbox.judge(script, link)
            answer.reply = reply
            seen[script.call.db] |= refusals.keys
            self.refused |= refusals.commands
            if SELECT in refusals.commands:
                self._wanted_select.add(number)
            killed = reply if self._was_killed(reply) else killed
        if self._monitored_run and not killed:
            seen = await self._read_monitored(
                link.index, await self._monitored_run.commands(), lents
            )
        for db, keys in seen.items():
            if new := await offload(len(keys), set, filter(lents[db].lacks, keys)):
                missing.setdefault(db, set()).update(new)
        is_void = not killed and (self.refused or any(missing.values()))
        for script in self._scripts:
            self._sandbox.settle(script, link.index, counts=not is_void)
        if killed:
            raise RefusedError(killed)

    async def _read_monitored(
        self, index: int, ran: Sequence[Sequence[tuple[int, Words]]], lents: LentByDatabase
    ) -> dict[int, set[bytes]]:
        """Return the keys that the scripts have touched, by database. Note what they sort, and in
        which order keys were created or extended.
        """
        databases = self._execution.borrowing.databases
        by_scratch = {lent.scratch: db for db, lent in lents.items()}
        if self._may_select and (
            self.refused & self._writing
            or any(touched_elsewhere(one, by_scratch, databases) for one in ran)
        ):
            self.refused = {SELECT}
        touched: dict[int, set[bytes]] = defaultdict(set)
        for script in self._scripts if self._sorts else ():
            db, asked = script.call.db, self._asked(script.call)
            # Right before the two logins.
            replies = script.answers.before[-2 - len(asked) : -2]
            await self._execution.own_reads.note(index, asked, replies)
            touched[db] |= self._named(db, asked, replies)
        made: dict[Place, None] = {}
        for one in ran:
            written: set[Place] = set()
            for number, (where, words) in enumerate(one, 1):
                if number % LARGE == 0:
                    await asyncio.sleep(0)  # others have their turn
                try:
                    db, parsed = by_scratch[where], self._table.parse(words)
                except KeyError:
                    continue  # no such command, or no copies there
                if parsed.row.name in ("sort", "sort_ro"):
                    parsed = with_store_key(parsed)
                    touched[db] |= await self._sorted(parsed, db, lents, written)
                touched[db].update(access.key for access in parsed.keys)
                changed = [access for access in parsed.keys if access.writes]
                written.update((db, access.key) for access in changed)
                made.update(((db, access.key), None) for access in changed if not access.removes)
        self._order = list(made)
        return touched

    def _named(self, db: int, asked: Sequence[Words], replies: Sequence[bytes]) -> set[bytes]:
        """Return the keys that patterns name for the elements of sorted keys."""
        return {
            key_from_pattern(pattern, element)
            for (_, key, *_), reply in zip(asked, replies, strict=True)
            if reply.startswith((b"*", b"~"))
            for element in value(reply)
            for pattern in self._sorts[db, key]
        }

    async def _sorted(
        self, parsed: ParsedCommand, db: int, lents: LentByDatabase, written: Collection[Place]
    ) -> set[bytes]:
        """Return the keys that a SORT reads, if its source was lent."""
        wanted, source = patterns(parsed.args), parsed.args[1]
        if not wanted:
            return set()
        if (db, source) in written:
            raise RefusedError(SORT_AFTER_WRITE)  # its elements at that moment are not known
        known = self._sorts.get((db, source), frozenset())
        if self._with_other_commands and not known.issuperset(wanted):
            self._sorts[db, source] = known.union(wanted)
            self.refused.add(SORT)  # earlier commands may have changed its elements
        if lents[db].lacks(source):
            return set()
        # The real key is as it was lent.
        table, own_reads = self._execution.table, self._execution.own_reads
        return {access.key for access in await sort_keys(table, own_reads, parsed, db)}

    def changed(self, changes: Mapping[int, Collection[bytes]]) -> list[Place]:
        """Sort changed keys in the order that was seen; others come last."""
        places = dict.fromkeys((db, key) for db, keys in changes.items() for key in keys)
        return list(dict.fromkeys([*(one for one in self._order if one in places), *places]))

    def allow(self, *, lists: bool) -> bool:
        """Allow for the next run what the scripts were refused; False if that is not possible.
        ``lists``: all keys were lent.
        """
        allowed = {*PUBLISHING, *(KEY_LISTING if lists else ())}
        if self.refused <= {SORT, *allowed}:
            self.denied = [name for name in self.denied if name not in self.refused & allowed]
            return True
        if self.refused != {SELECT} or not self._can_allow_select():
            return False
        self._may_select |= self._wanted_select
        self.monitors = True
        return True

    def _can_allow_select(self) -> bool:
        """Whether more scripts may use SELECT: harmless if they touch nothing there and write
        nothing.

        Not if they may list keys, are restricted to databases, or ask for their rights.
        """
        new = [self.calls[at] for at in self._wanted_select - self._may_select]
        lists = not set(KEY_LISTING) <= set(self.denied)
        is_kept = any(call.rights is not None and call.rights.has_databases() for call in new)
        return bool(new) and not (
            lists or is_kept or any(ACL_CHECK_CMD in call.body for call in new)
        )


def _size(lents: LentByDatabase) -> int:
    """Return how many bytes were lent."""
    return sum(len(copy.dump) for lent in lents.values() for copy in lent.copies.values())


def touched_elsewhere(
    ran: Iterable[tuple[int, Words]], copies: Collection[int], databases: int
) -> bool:
    """Whether a script has touched anything outside the copies, or has found our databases."""
    hidden = range(databases, databases + own_names.HIDDEN_DATABASES)
    for db, (name, *args) in ran:
        if name.lower() == SELECT:
            number = args[0] if args else b""
            if number.isdigit() and int(number) in hidden:
                return True
        elif db not in copies and name.lower().decode(errors="replace") not in KEYLESS:
            return True
    return False
