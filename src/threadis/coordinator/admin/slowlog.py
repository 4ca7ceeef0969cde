"""SLOWLOG and COMMANDLOG: the entries of all instances as one log, with ids of its own.

Entries are numbered when they are first read, oldest first. An instance cannot know which client of
a shared lane sent a command: such an entry has the address ``?:0``. Commands on other connections
are our own and are not shown, except those of scripts, whose callers we know; nor is what surrounds
a script on a lane. Commands that the coordinator ran are logged here, with their clients; the
commands of a transaction share its time. Workers report commands that they answer themselves or run
in parts (``slowlog_split``), if a log may want them; those that took no time only if everything is
logged. These reports are fetched a few at a time.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from threadis import _core, own_names, resp
from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.admin.slowlog_arguments import as_logged
from threadis.coordinator.admin.slowlog_split import Entry, SplitCommand, SplitCommands
from threadis.coordinator.base.reply import HandlerResult, Reply
from threadis.coordinator.instances.links import LinkError, Links, Words
from threadis.coordinator.instances.tasks import Tasks
from threadis.coordinator.lua.attribution import Attribution, Caller

# Of a lane, around the scripts on it, and around transactions: a client's MULTI a worker answers
OPENING: Final = frozenset((b"AUTH", b"HELLO", b"SELECT", b"CLIENT", b"ACL", b"MULTI"))
FENCE: Final = 32  # hexadecimal digits that end a script's replies
EXISTENCE_CHECK: Final = [b"MEMORY", b"Usage"]  # as we spell it (``commands/locked_pop.rs``)
UNLOGGED: Final = frozenset((b"exec", b"wait", b"waitaof"))  # waiting does not count as slow
EXEC: Final = 14  # bytes of it, which count as the request of each command of a transaction
# Errors of commands that have not run, unless a script raised them
REFUSALS: Final = (b"-OOM ", b"-NOPERM ", b"-NOAUTH ", b"-MISCONF ", b"-BUSY ", b"-TRYAGAIN ")
DEFAULT_COUNT: Final = 10
# An unknown address. It has a port because clients (Jedis) split it at the colon.
UNKNOWN: Final = (b"?:0", b"")
COARSE: Final = 5  # Linux: the clock that servers read, up to 10 ms behind the exact one
BATCH: Final = 128  # commands noted before instances are asked for theirs
PACE: Final = 0.05  # seconds between two batches of what workers have answered
CALM: Final = 1.0  # the same, of what may have been slow
NEVER: Final = 2**64 - 1
SLOW: Final = b"slow"
LENGTHS: Final = {
    SLOW: b"slowlog-max-len",
    b"large-request": b"commandlog-large-request-max-len",
    b"large-reply": b"commandlog-large-reply-max-len",
}
THRESHOLDS: Final = {
    SLOW: (b"slowlog-log-slower-than", "log-slow"),
    b"large-request": (b"commandlog-request-larger-than", "log-requests"),
    b"large-reply": (b"commandlog-reply-larger-than", "log-replies"),
}

Amounts = tuple[int, int, int]  # microseconds, bytes of the request, bytes of the reply


class CommandLog:
    """One kind of log over all instances."""

    def __init__(self, links: Links, attribution: Attribution, kind: bytes) -> None:
        self._links, self._attribution, self._length = links, attribution, LENGTHS[kind]
        self._is_slow = kind == SLOW
        self._get = (
            [b"SLOWLOG", b"GET", b"-1"] if self._is_slow else [b"COMMANDLOG", b"GET", b"-1", kind]
        )
        self._split = SplitCommands()
        self._entries: list[tuple[int, Entry]] = []  # with their ids, oldest first
        self._seen: dict[tuple[int, int], int] = {}  # instance and process: last id seen there
        self._last_id = -1
        self._most = 0
        self._coming: list[Entry] = []  # not numbered yet
        self._lock = asyncio.Lock()  # two readers at once would number an entry twice

    async def note(self, entries: list[Entry], *, in_order: bool) -> None:
        """Add commands that no instance has logged; they are newer than what the instances have
        now.

        To keep the order within a second, the instances are asked at once, while the clients wait.
        Otherwise that happens when the log is read, or when there are many new entries.
        """
        self._coming += entries
        is_much = len(self._coming) >= BATCH and not self._lock.locked()
        if in_order or is_much:
            async with self._lock:
                if self.count_coming():  # no other task has taken them meanwhile
                    with contextlib.suppress(LinkError):  # read later, numbered later
                        await self._read()
                    self._take([])

    def expect(self, entry: Entry) -> None:
        """Add a command; a call of ``note`` follows soon."""
        self._coming.append(entry)

    def open(self, entry: Entry, took: int, parts: list[tuple[int, list[bytes]]]) -> None:
        """Add a command that instances have run in parts, and may have logged.

        Only the instances know how long the parts took: if none has logged one, none was slow.
        """
        began = entry[0] - took // 1_000_000
        if self._is_slow:
            entry[1] = 0
        whole = SplitCommand(
            entry, took, began, dict(parts), self._is_slow, is_told=not self._is_slow
        )
        if told := self._split.open(whole):  # it was read before the command was complete
            told[0][1:] = entry[1:]
            whole.entry, whole.is_told = told[0], True
            self._entries = [
                (number, one)
                for number, one in self._entries
                if all(one is not other for other in told[1:])
            ]
        elif whole.is_told:
            self._coming.append(entry)

    def count_coming(self) -> int:
        """Return how many entries have no number yet, or may be incomplete."""
        return len(self._coming) + len(self._split)

    async def read(self) -> list[tuple[int, Entry]]:
        """Return all entries, newest first."""
        async with self._lock:
            return await self._read()

    async def _read(self) -> list[tuple[int, Entry]]:
        names = [b"CONFIG", b"GET", self._length]
        with self._split.closing():
            limit = await self._links.call_or_fail(self._links.any_ready(), *names)
            self._most = int(limit[1])
            ready = self._links.ready()
            asked = (self._links.call_or_fail(index, *self._get) for index in ready)
            answers = await asyncio.gather(*asked)
            # All have answered: from here on nothing can fail
            new: list[Entry] = []
            for index, found in zip(ready, answers, strict=True):
                process = (index, self._links.instance(index).pid)
                seen = self._seen.get(process, -1)
                for row in reversed(found):  # oldest first
                    if row[0] > seen and (whose := self._whose(row)):
                        entry = [*row[1:4], *whose]
                        if row[5].startswith(own_names.LANE):
                            new += self._split.join(index, entry)
                        else:
                            new.append(entry)
                self._seen[process] = max([seen, *(row[0] for row in found)])
            self._take(new)
        return self._entries[::-1]

    def _whose(self, row: list[Any]) -> Caller | None:
        """Return the client of an entry; None if the command was ours."""
        words, name = row[3], row[5]
        if words[0] == b"PUBLISH" and _core.is_our_channel(words[1]):
            return None
        if words[0].upper() in OPENING or (words[0] == b"ECHO" and len(words[-1]) == FENCE):
            return None
        if name.startswith(own_names.LANE):
            is_ours = words[:2] == EXISTENCE_CHECK or (words[1:] and _core.is_record(words[1]))
            return None if is_ours else UNKNOWN
        is_script = words[0].lower().decode(errors="replace") in SCRIPTS  # noted by ourselves
        return None if is_script else self._attribution.find(name, words[0])

    def _take(self, new: list[Entry]) -> None:
        """Number new entries of the instances and of the proxy."""
        entries, self._coming = [*new, *self._coming], []
        for entry in sorted(entries, key=lambda entry: int(entry[0])):
            self._last_id += 1
            self._entries.append((self._last_id, entry))
        self._entries = self._entries[-self._most :] if self._most else []

    async def clear(self) -> None:
        """Delete all entries; ids go on."""
        async with self._lock:
            await self._read()
            self._entries.clear()
            self._split.forget()


class CommandLogs:
    """Runs SLOWLOG and COMMANDLOG."""

    def __init__(self, core: _core.Proxy, links: Links, attribution: Attribution) -> None:
        self._core, self._links, self._attribution = core, links, attribution
        self._limits: dict[bytes, int] = {}  # by kind; none yet: to be asked for
        self._tasks = Tasks()
        self._is_numbering = False
        self._logs = {kind: CommandLog(links, attribution, kind) for kind in LENGTHS}

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Each command by its row's name."""
        return {
            f"{family}|{name}": handler
            for family in ("slowlog", "commandlog")
            for name, handler in (("get", self._get), ("len", self._len), ("reset", self._reset))
        }

    async def note(self, command: _core.Command, reply: HandlerResult, began: float) -> None:
        """Log what the coordinator has run since ``began``, if a log wants it."""
        took = int((time.monotonic() - began) * 1_000_000)
        first = command.args[0].lower()
        if not self._limits or first == b"config":
            await self.read_thresholds()
        data = reply.data if isinstance(reply, Reply) else reply or b""
        if command.queued is None:
            is_script = first.decode(errors="replace") in SCRIPTS
            if is_script or not data.startswith(REFUSALS):
                ran = [(command.args, (took, command.info.query_bytes, len(data)))]
                await self._add(command.info, ran)
        elif data.startswith(b"*") and not data.startswith(b"*-"):
            await self._add(command.info, self._each(command.queued, data, took))

    def _each(self, queued: Sequence[Words], data: bytes, took: int) -> list[tuple[Words, Amounts]]:
        """Return the amounts of each command of a transaction; reply sizes are cumulative."""
        share, sizes = took // len(queued), [0] * len(queued)
        if self._wants(b"large-reply", len(data)):
            lengths = [len(one) for one in _core.elements(data)]
            header = len(data) - sum(lengths)
            sizes = [header + size for size in itertools.accumulate(lengths)]
        amounts = ((share, EXEC, size) for size in sizes)
        return list(zip(queued, amounts, strict=False))

    async def _add(self, info: _core.ClientInfo, ran: Sequence[tuple[Words, Amounts]]) -> None:
        """Log commands that have just run."""
        now, has_fetched = _now(), False
        for at, kind in enumerate(LENGTHS):
            entries = [
                [now, amounts[at], as_logged(words), *_client(info)]
                for words, amounts in ran
                if self._wants(kind, amounts[at]) and words[0].lower() not in UNLOGGED
            ]
            if not entries:
                continue
            if not has_fetched:
                self._fetch()
                has_fetched = True
            # If everything is logged, the order is likely to be read
            await self._logs[kind].note(entries, in_order=self._limits[kind] == 0)

    def _wants(self, kind: bytes, amount: int) -> bool:
        return 0 <= self._limits.get(kind, -1) <= amount

    def note_unblocked(self, command: _core.Command, reply: bytes) -> None:
        """Log a command that has waited; the waiting time does not count."""
        amounts = (0, command.info.query_bytes, len(reply))
        wanted = [
            (kind, amount)
            for kind, amount in zip(LENGTHS, amounts, strict=True)
            if self._wants(kind, amount)
        ]
        if wanted:
            self._fetch()
            now, words = _now(), as_logged(command.args)
            for kind, amount in wanted:
                self._logs[kind].expect([now, amount, words, *_client(command.info)])
            self._number_soon()

    def workers_logged(self) -> None:
        """Note that workers have logged something. It is fetched at once, because later entries are
        newer; but not more than can be numbered.
        """
        if self._count_coming() < BATCH:
            self._fetch()
        self._number_soon()

    def _count_coming(self) -> int:
        return sum(log.count_coming() for log in self._logs.values())

    def _fetch(self) -> None:
        for who, words, (ended, took, request, reply), parts in self._core.take_logged():
            for kind, amount in zip(LENGTHS, (took, request, reply), strict=True):
                if not self._wants(kind, amount):
                    continue
                entry = [ended, amount, words, *who]
                if parts:
                    self._logs[kind].open(entry, took, parts)
                else:
                    self._logs[kind].expect(entry)

    def _number_soon(self) -> None:
        if not self._is_numbering:
            self._is_numbering = True
            self._tasks.start(self._number(), "numbering entries of the slow log")

    async def _number(self) -> None:
        try:
            while count := self._count_coming():
                for log in self._logs.values():
                    await log.note([], in_order=True)
                is_everything = self._limits.get(SLOW) == 0
                if count >= BATCH or not is_everything:
                    await asyncio.sleep(PACE if is_everything else CALM)
                self._fetch()
        finally:
            self._is_numbering = False

    async def read_thresholds(self) -> None:
        """Read the logs' thresholds; workers report only what exceeds them."""
        if not (ready := self._links.ready()):
            return
        names = [name for name, _ in THRESHOLDS.values()]
        reply = await self._links.call(ready[0], b"CONFIG", b"GET", *names)
        if not isinstance(reply, list):
            return  # the instance is busy: asked again at the next command
        found = dict(zip(reply[::2], reply[1::2], strict=True))
        for kind, (name, limit) in THRESHOLDS.items():
            self._limits[kind] = least = int(found.get(name, -1))
            self._core.set_limit(limit, least if least >= 0 else NEVER)
        self._attribution.all_is_logged = self._limits[SLOW] == 0

    async def _checked(self, command: _core.Command) -> bytes | None:
        """Return the server's own error, if there is one."""
        reply = (await self._links.raw(self._links.any_ready(), [command.args]))[0]
        return reply if reply.startswith(b"-") else None

    def _log(self, command: _core.Command) -> CommandLog:
        is_slow = command.args[0].lower() == b"slowlog"
        return self._logs[SLOW if is_slow else command.args[-1].lower()]

    async def _get(self, command: _core.Command) -> bytes:
        if refusal := await self._checked(command):
            return refusal
        count = int(command.args[2]) if len(command.args) > 2 else DEFAULT_COUNT
        self._fetch()
        entries = await self._log(command).read()
        shown = entries if count == -1 else entries[:count]
        return resp.encode([[number, *entry] for number, entry in shown])

    async def _len(self, command: _core.Command) -> bytes:
        if refusal := await self._checked(command):
            return refusal
        self._fetch()
        return resp.encode(len(await self._log(command).read()))

    async def _reset(self, command: _core.Command) -> bytes:
        self._fetch()
        await self._log(command).clear()
        replies = [await self._links.raw(i, [command.args]) for i in self._links.all_instances()]
        return replies[0][0]


def _client(info: _core.ClientInfo) -> list[bytes]:
    return [info.address.encode(), info.name]


def _now() -> int:
    return int(time.clock_gettime(COARSE))
