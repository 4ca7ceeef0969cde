"""SLOWLOG and COMMANDLOG: the entries of all instances as one log, with ids of its own.

Entries are numbered when they are first looked at, oldest first. Which client of a shared lane an
entry is from, an instance cannot know: its address is ``?:0``. What came over connections
that are not lanes is our own traffic and is not shown, but for the commands of scripts, of which we
know who called them; nor is what surrounds a script on a lane. Commands of clients that the
coordinator ran are noted here, with their clients; those of a transaction share its time. What a
worker answers by itself (PING) takes no time; it is kept for us only if the log wants everything,
and fetched a little at a time.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from threadis import _core, ours, resp
from threadis.commands import SCRIPTS, Row
from threadis.coordinator.callers import Caller, Callers
from threadis.coordinator.links import LinkError, Links, Words
from threadis.coordinator.migrating import OPTIONS
from threadis.coordinator.slowlog_fanout import Entry, FanOut
from threadis.coordinator.tasks import Tasks

WORDS, WORD = 32, 128  # of an entry: words, and bytes of each
REDACTED: Final = b"(redacted)"
# Of a lane, and around the scripts on it
OPENING: Final = frozenset((b"AUTH", b"HELLO", b"SELECT", b"CLIENT", b"ACL"))
FENCE: Final = 32  # hexadecimal digits that end a script's replies
UNLOGGED: Final = frozenset((b"exec", b"wait", b"waitaof"))  # waiting is not slowness
DEFAULT_COUNT: Final = 10
# As servers write an address that they do not know. Clients take host and port apart (Jedis).
UNKNOWN: Final = (b"?:0", b"")
COARSE: Final = 5  # Linux: the clock that servers read, up to 10 ms behind the exact one
BATCH: Final = 128  # commands noted before instances are asked for theirs
PACE: Final = 0.05  # seconds between two batches of what workers have answered
LENGTHS: Final = {
    b"slow": b"slowlog-max-len",
    b"large-request": b"commandlog-large-request-max-len",
    b"large-reply": b"commandlog-large-reply-max-len",
}


class Log:
    """One kind of log over all instances."""

    def __init__(
        self, links: Links, callers: Callers, get: list[bytes], length: bytes, fan_out: FanOut
    ) -> None:
        self._links, self._callers, self._get, self._length = links, callers, get, length
        self._fan_out = fan_out
        self._entries: list[tuple[int, Entry]] = []  # with their ids, oldest first
        self._seen: dict[tuple[int, int], int] = {}  # instance and process: last id seen there
        self._last_id = -1
        self._most = 0
        self._coming: list[Entry] = []  # not numbered yet
        self._lock = asyncio.Lock()  # two readers at once would number an entry twice

    async def note(self, entries: list[Entry], *, in_order: bool) -> None:
        """Add commands that no instance has logged; they are newer than what instances have now.

        To keep that order within a second the instances are asked at once, while the clients wait.
        Else that waits until somebody looks, or there is much to add.
        """
        self._coming += entries
        is_much = len(self._coming) >= BATCH and not self._lock.locked()
        if in_order or is_much:
            async with self._lock:
                if self._coming:  # nobody else has taken them meanwhile
                    with contextlib.suppress(LinkError):  # read later, numbered later
                        await self._read()
                    self._take([])

    def expect(self, entries: list[Entry]) -> None:
        """Add commands; ``note`` comes soon."""
        self._coming += entries

    def count_coming(self) -> int:
        """Return how many entries have no number yet."""
        return len(self._coming)

    async def read(self) -> list[tuple[int, Entry]]:
        """Everything, newest first."""
        async with self._lock:
            return await self._read()

    async def _read(self) -> list[tuple[int, Entry]]:
        names = [b"CONFIG", b"GET", self._length]
        limit = await self._links.call_surely(self._links.any_ready(), *names)
        self._most = int(limit[1])
        ready = self._links.ready()
        asked = (self._links.call_surely(index, *self._get) for index in ready)
        answers = await asyncio.gather(*asked)
        # All have answered: from here on nothing is lost half way
        new: list[Entry] = []
        for index, found in zip(ready, answers, strict=True):
            process = (index, self._links.instance(index).pid)
            seen = self._seen.get(process, -1)
            for row in reversed(found):  # oldest first
                if row[0] > seen and (whose := self._whose(row)):
                    entry = [*row[1:4], *whose]
                    is_lane = row[5].startswith(ours.LANE)
                    if not (is_lane and self._fan_out.join(index, entry)):
                        new.append(entry)
            self._seen[process] = max([seen, *(row[0] for row in found)])
        self._take(new)
        return self._entries[::-1]

    def _whose(self, row: list[Any]) -> Caller | None:
        """The client whose command an instance has logged; None if it was ours."""
        words, name = row[3], row[5]
        if words[0] == b"PUBLISH" and _core.is_our_channel(words[1]):
            return None
        if words[0].upper() in OPENING or (words[0] == b"ECHO" and len(words[-1]) == FENCE):
            return None
        if name.startswith(ours.LANE):
            return None if words[1:] and _core.is_record(words[1]) else UNKNOWN
        is_script = words[0].lower().decode(errors="replace") in SCRIPTS  # noted by ourselves
        return None if is_script else self._callers.find(name, words[0])

    def _take(self, new: list[Entry]) -> None:
        """Number what instances have logged, and what was noted since."""
        entries, self._coming = [*new, *self._coming], []
        for entry in sorted(entries, key=lambda entry: int(entry[0])):
            self._last_id += 1
            self._entries.append((self._last_id, entry))
        self._entries = self._entries[-self._most :] if self._most else []

    async def clear(self) -> None:
        """Forget everything; ids go on."""
        async with self._lock:
            await self._read()
            self._entries.clear()


class Logs:
    """Answers SLOWLOG and COMMANDLOG."""

    def __init__(
        self, core: _core.Proxy, links: Links, callers: Callers, rows: Sequence[Row]
    ) -> None:
        everywhere = {row.name for row in rows if row.route == "all"}
        self._core, self._links, self._callers = core, links, callers
        self._threshold: int | None = None  # microseconds; None: to be asked for
        self._tasks = Tasks()
        self._is_numbering = False
        self._logs = {
            kind: Log(
                links,
                callers,
                [b"SLOWLOG", b"GET", b"-1"]
                if kind == b"slow"
                else [b"COMMANDLOG", b"GET", b"-1", kind],
                length,
                FanOut(everywhere),
            )
            for kind, length in LENGTHS.items()
        }

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Each command by its row's name."""
        return {
            f"{family}|{name}": handler
            for family in ("slowlog", "commandlog")
            for name, handler in (("get", self._get), ("len", self._len), ("reset", self._reset))
        }

    async def note(self, command: _core.Command, began: float) -> None:
        """Log what the coordinator has run since ``began``, if it was slow."""
        took = int((time.monotonic() - began) * 1_000_000)
        if self._threshold is None or command.args[0].lower() == b"config":
            await self.look()
        commands = command.queued or [command.args]
        await self.add(command.info, commands, took // len(commands))

    async def add(self, info: _core.ClientInfo, commands: Sequence[Words], took: int) -> None:
        """Log commands that took so many microseconds each, if that is slow."""
        if self._threshold is None or not 0 <= self._threshold <= took:
            return
        who, now = _who(info), _now()
        self._fetch()
        await self._logs[b"slow"].note(
            [
                [now, took, shortened(words), *who]
                for words in commands
                if words[0].lower() not in UNLOGGED
            ],
            in_order=self._threshold == 0,  # everything is logged: somebody looks at each
        )

    def served(self, command: _core.Command) -> None:
        """Log a command that has waited, which is no slowness."""
        if self._threshold == 0:
            self._fetch()
            entry = [_now(), 0, shortened(command.args), *_who(command.info)]
            self._logs[b"slow"].expect([entry])
            self._number_soon()

    def hear(self) -> None:
        """Workers have answered something by themselves. What comes after it is newer, so it is
        fetched at once; but if there is much of it, not more than we can number.
        """
        if self._logs[b"slow"].count_coming() < BATCH:
            self._fetch()
        self._number_soon()

    def _fetch(self) -> None:
        now = _now()
        entries = self._core.take_logged()
        self._logs[b"slow"].expect(
            [[now, 0, words, address, name] for address, name, words in entries]
        )

    def _number_soon(self) -> None:
        if not self._is_numbering:
            self._is_numbering = True
            self._tasks.start(self._number(), "numbering entries of the slow log")

    async def _number(self) -> None:
        log = self._logs[b"slow"]
        try:
            while count := log.count_coming():
                await log.note([], in_order=True)
                if count >= BATCH:
                    await asyncio.sleep(PACE)
                self._fetch()
        finally:
            self._is_numbering = False

    async def look(self) -> None:
        """Learn what is slow; workers tell us of what they answer only if everything is."""
        if ready := self._links.ready():
            reply = await self._links.call(ready[0], b"CONFIG", b"GET", b"slowlog-log-slower-than")
            if isinstance(reply, list):  # else it is busy: asked again at the next command
                self._threshold = int(reply[1])
                self._callers.all_is_logged = self._threshold == 0
                self._core.set_limit("log-all", int(self._threshold == 0))

    async def _checked(self, command: _core.Command) -> bytes | None:
        """The server's own complaint, if there is one."""
        reply = (await self._links.raw(self._links.any_ready(), [command.args]))[0]
        return reply if reply.startswith(b"-") else None

    def _log(self, command: _core.Command) -> Log:
        is_slow = command.args[0].lower() == b"slowlog"
        return self._logs[b"slow" if is_slow else command.args[-1].lower()]

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
        replies = [await self._links.raw(i, [command.args]) for i in self._links.everyone()]
        return replies[0][0]


def _who(info: _core.ClientInfo) -> list[bytes]:
    return [info.address.encode(), info.name]


def _now() -> int:
    return int(time.clock_gettime(COARSE))


def shortened(words: Words) -> list[bytes]:
    """A command as the server logs it: no secrets, not everything of long ones."""
    first = words[0].lower()
    if first == b"acl" and words[1].lower() in (b"setuser", b"deluser"):
        words = [*words[:2], *[REDACTED] * (len(words) - 2)]
    elif first == b"config":
        secret = {at + 1 for at in range(2, len(words), 2) if is_secret(words[at])}
        words = [REDACTED if at in secret else word for at, word in enumerate(words)]
    elif first == b"migrate":
        words = [
            REDACTED if at > OPTIONS and is_login(words, at) else word
            for at, word in enumerate(words)
        ]
    if len(words) > WORDS:
        more = len(words) - WORDS + 1
        words = [*words[: WORDS - 1], b"... (%d more arguments)" % more]
    return [
        word if len(word) <= WORD else word[:WORD] + b"... (%d more bytes)" % (len(word) - WORD)
        for word in words
    ]


def is_login(words: Words, at: int) -> bool:
    """Whether an argument of MIGRATE belongs to AUTH or AUTH2."""
    before = [word.upper() for word in words[max(at - 2, OPTIONS) : at]]
    return before[-1:] == [b"AUTH"] or b"AUTH2" in before


def is_secret(directive: bytes) -> bool:
    """Whether the value of a directive is a password."""
    return directive.lower().endswith((b"pass", b"auth"))
