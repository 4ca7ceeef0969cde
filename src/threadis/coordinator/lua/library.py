"""SCRIPT and FUNCTION: the same scripts and functions on every instance, also after restarts.

What an instance misses while it is away is sent to it before it serves again. A script or a library
may forge replies, so every command that contains one is fenced.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import hiredis

from threadis import _core, resp
from threadis.coordinator.instances import fenced
from threadis.coordinator.instances.links import (
    Kind,
    LinkError,
    Links,
    Words,
    is_for_a_client,
    value,
)
from threadis.coordinator.instances.patience import NO_KIND, ask_patiently, patiently
from threadis.coordinator.keys.locks import Locks
from threadis.coordinator.lua.script_cache import LOAD_BYTES, ScriptCache, cost
from threadis.coordinator.lua.script_call import sha1
from threadis.coordinator.lua.worker_scripts import WorkerScripts
from threadis.coordinator.sessions.busy import BusyScripts

log = logging.getLogger(__name__)

NO_WRITES: Final = b"no-writes"
ABSENT: Final = b"*1\r\n:0\r\n"
NOBODY: Final = "TRYAGAIN no instance is ready; the command was not run"
FULL: Final = resp.error(
    f"OOM threadis: SCRIPT LOAD has used its {LOAD_BYTES >> 20} MB; SCRIPT FLUSH frees them"
)
# Evicted scripts that instances still have: they are freed by loading all others again.
GARBAGE_BYTES: Final = 16 * 1024 * 1024
GARBAGE_COUNT: Final = 500
BATCH: Final = 1000  # scripts that an instance is told at once


class Library:
    """Loaded scripts and functions; sends them to every instance."""

    def __init__(
        self, links: Links, locks: Locks, worker_scripts: WorkerScripts, busy: BusyScripts
    ) -> None:
        self._links, self._busy = links, busy
        self._worker_scripts = worker_scripts
        self._locks = locks
        self.generation = 0  # of the functions: another one with each change
        self._cache = ScriptCache(worker_scripts.was_used)
        self._knows_servers = False  # whether they evict scripts
        self._no_script = b""
        self._garbage_bytes = self._garbage_count = 0
        self._broadcasting = asyncio.Lock()  # all instances are told of scripts in the same order
        self._synced: set[int] = set()  # instances that have the same functions
        self._syncing = asyncio.Lock()
        self._read_generation = -1  # the generation of what follows
        self._no_writes: set[bytes] = set()  # functions that write nothing
        self._codes: dict[bytes, bytes] = {}  # libraries, by function

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Return each command's handler."""
        return {
            "script|exists": self.exists,
            "script|load": self.load,
            "script|flush": self.change,
            "script|kill": self.kill,
            "script|debug": self.debug,
            "function|list": self.ask,
            "function|dump": self.ask,
            "function|load": self.change,
            "function|delete": self.change,
            "function|flush": self.change,
            "function|restore": self.change,
            "function|kill": self.kill,
            "function|stats": self.stats,
        }

    def describe(self) -> dict[str, int]:
        """Return the counts for INFO."""
        return {
            "number_of_cached_scripts": len(self._cache),
            "evicted_scripts": self._cache.evicted,
        }

    async def only_reads(self, args: Words) -> bool:
        """Whether a script is declared to write nothing."""
        family = args[0].lower()
        if family.endswith(b"_ro"):
            return True
        if family == b"eval":
            return NO_WRITES in flags(args[1])
        if family == b"evalsha":
            return NO_WRITES in flags(self.body(args[1].lower()))
        return args[1].lower() in await self._reading_functions()

    async def _reading_functions(self) -> set[bytes]:
        await self._read_functions()
        return self._no_writes

    async def code(self, function: bytes) -> bytes:
        """Return the library of a function; empty if there is none."""
        await self._read_functions()
        return self._codes.get(function.lower(), b"")

    async def _read_functions(self) -> None:
        """Read FUNCTION LIST, once for each generation."""
        generation = self.generation
        if self._read_generation == generation:
            return
        found = await self._links.call(self._links.any_ready(), b"FUNCTION", b"LIST", b"WITHCODE")
        self._no_writes, self._codes = set(), {}
        if isinstance(found, hiredis.ReplyError):
            return
        for library in map(_fields, found):
            for function in map(_fields, library[b"functions"]):
                name = function[b"name"].lower()
                self._codes[name] = library[b"library_code"]
                if NO_WRITES in function[b"flags"]:
                    self._no_writes.add(name)
        self._read_generation = generation

    # -- scripts --

    async def debug(self, command: _core.Command) -> bytes:
        """SCRIPT DEBUG is refused: it needs an instance's connection for itself."""
        if command.token is not None:  # between MULTI and EXEC
            return resp.error("ERR SCRIPT DEBUG must be called outside a pipeline")
        if command.args[2].lower() in (b"yes", b"sync"):
            return resp.error("ERR threadis: the script debugger is not supported")
        return (await self._links.raw(self._links.any_ready(), [command.args]))[0]

    def body(self, name: bytes) -> bytes:
        """Return the script with this SHA1; empty if it is not kept."""
        return self._cache.use(name)

    async def has(self, name: bytes) -> bool:
        """Whether a script exists: all instances have it, if we were restarted since."""
        if self._cache.use(name):
            return True
        kind, ready = Kind(), self._links.ready()
        asked = (self._ask(index, [b"SCRIPT", b"EXISTS", name], kind) for index in ready)
        # An instance that refuses, or is lost, fails again when the script is run.
        return ABSENT not in await asyncio.gather(*asked, return_exceptions=True)

    async def no_script(self) -> bytes:
        """Return the server's NOSCRIPT error."""
        if self._no_script:
            return self._no_script
        words = [b"EVALSHA", os.urandom(20).hex().encode(), b"0"]
        reply = (await self._links.raw(self._links.any_ready(), [words]))[0]
        if reply.startswith(b"-NOSCRIPT"):
            self._no_script = reply
        return reply

    async def prepare(self, name: bytes, script: bytes) -> None:
        """Load a script of EVAL on all instances, so that EVALSHA finds it on any."""
        if self._cache.use(name):
            return
        async with self._broadcasting:
            replies = await self._broadcast([b"SCRIPT", b"LOAD", script])
            if any(reply.startswith(b"-") for reply in replies):
                return
            await self._check_eviction()
            for gone, body in self._cache.evaluate(name, script):
                self._worker_scripts.forget(gone)
                self._garbage_bytes += cost(body)
                self._garbage_count += 1
            await self._free_evicted()

    async def load(self, command: _core.Command) -> bytes:
        """SCRIPT LOAD script."""
        script = command.args[2]
        name = sha1(script)
        async with self._broadcasting:
            if not self._cache.may_load(name, script):
                return FULL
            replies = await self._broadcast(command.args, Kind(resp=command.info.resp))
            refused = next((reply for reply in replies if reply.startswith(b"-")), None)
            if refused is None:
                self._cache.load(name, script)
            return refused or replies[0]

    async def _broadcast(self, words: Words, kind: Kind = NO_KIND) -> list[bytes]:
        """Send a command to every instance that is ready; others get it when they come back."""

        async def one(index: int) -> bytes | None:
            is_for_a_client.set(
                False
            )  # an instance that is being made ready may have received the others already
            try:
                reply = await self._ask(index, words, kind)
            except LinkError:
                return None
            return None if reply.startswith(b"-LOADING") else reply

        replies = await asyncio.gather(*map(one, self._links.all_instances()))
        heard = [reply for reply in replies if reply is not None]
        if not heard:
            raise LinkError(NOBODY)
        return heard

    async def _check_eviction(self) -> None:
        """Find out, once, whether the servers evict scripts."""
        if self._knows_servers:
            return
        stats = await self._links.call(self._links.any_ready(), b"INFO", b"stats")
        if isinstance(stats, bytes):
            self._knows_servers = True
            self._cache.evicts_by_count(b"evicted_scripts:" in stats)

    async def _free_evicted(self) -> None:
        """Free evicted scripts on the instances, which cannot forget a single script."""
        is_little = self._garbage_bytes < GARBAGE_BYTES + self._cache.total()
        if is_little and self._garbage_count < GARBAGE_COUNT + len(self._cache):
            return
        self._garbage_bytes = self._garbage_count = 0
        loads = [[b"SCRIPT", b"LOAD", body] for body in self._cache.all()]
        block: list[Words] = [[b"MULTI"], [b"SCRIPT", b"FLUSH"], *loads, [b"EXEC"]]
        for index in self._links.ready():
            with contextlib.suppress(LinkError):  # an instance that has died has none left
                await ask_patiently(self._links, index, block)

    async def exists(self, command: _core.Command) -> bytes:
        """SCRIPT EXISTS: a script exists if all instances have it."""
        replies = await self._ask_all(command)
        failed = next((reply for reply in replies if reply.startswith(b"-")), None)
        if failed or len(set(replies)) == 1:
            return failed or replies[0]
        return resp.encode([min(one) for one in zip(*map(value, replies), strict=True)])

    # -- changes that are everywhere or nowhere --

    async def change(self, command: _core.Command) -> bytes:
        """FUNCTION LOAD, DELETE, FLUSH, RESTORE, and SCRIPT FLUSH."""
        is_script = command.args[0].upper() == b"SCRIPT"
        lock = self._locks.hold_everything(command.token, skips_in_doubt=True)
        async with lock, self._broadcasting:
            away = set(self._links.all_instances()) - set(self._links.ready())
            if away:
                what = "is not ready; the command was not run"
                raise LinkError(f"TRYAGAIN instance {min(away)} {what}")
            try:
                reply = await self._change(command.args, Kind(resp=command.info.resp))
            finally:
                self.generation += not is_script
            if is_script and not reply.startswith(b"-"):
                self._cache.clear()
                self._worker_scripts.forget_all()
                self._garbage_bytes = self._garbage_count = 0
            return reply

    async def _change(self, words: Words, kind: Kind) -> bytes:
        """Run on all instances; if they differ, set back those that succeeded."""
        asked = (self._ask(index, words, kind) for index in self._links.all_instances())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        replies = {i: reply for i, reply in enumerate(answers) if isinstance(reply, bytes)}
        refused = [index for index, reply in replies.items() if reply.startswith(b"-")]
        accepted = [index for index in replies if index not in refused]
        if not replies:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        if refused and accepted:
            await self._undo(words, replies[accepted[0]], accepted, refused[0])
        return replies[refused[0] if refused else accepted[0]]

    async def _undo(
        self, words: Words, reply: bytes, changed: Sequence[int], unchanged: int
    ) -> None:
        """Set instances back to the state that one of them still has."""
        was_new = words[1].upper() == b"LOAD" and len(words) == 3  # without REPLACE
        undo = [b"FUNCTION", b"DELETE", value(reply)] if was_new else None
        if undo is None:
            before = await self._links.call(unchanged, b"FUNCTION", b"DUMP")
            undo = [b"FUNCTION", b"RESTORE", before, b"FLUSH"]
        await asyncio.gather(*(self._links.call(index, *undo) for index in changed))

    # -- questions --

    async def _ask(self, index: int, words: Words, kind: Kind) -> bytes:
        """Ask one instance, without a time limit while it is there."""

        async def ask() -> bytes:
            async with self._links.lease(index, kind) as link:
                return (await fenced.ask(link, fenced.Fence(words))).reply

        return await patiently(self._links, index, ask())

    async def _ask_all(self, command: _core.Command) -> list[bytes]:
        """Ask all ready instances; those that are lost meanwhile are left out."""
        kind = Kind(resp=command.info.resp)
        asked = (self._ask(index, command.args, kind) for index in self._links.ready())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        replies = [answer for answer in answers if isinstance(answer, bytes)]
        if not replies:
            raise LinkError(NOBODY)
        return replies

    async def ask(self, command: _core.Command) -> bytes:
        """Ask any instance: all have the same."""
        return await self._ask(self._links.any_ready(), command.args, Kind(resp=command.info.resp))

    async def stats(self, command: _core.Command) -> bytes:
        """FUNCTION STATS: of the instance that runs a script, else of any."""
        replies = await self._ask_plainly(command)
        return next((r for r in replies if _is_running(r)), replies[0])

    async def kill(self, command: _core.Command) -> bytes:
        """SCRIPT KILL, FUNCTION KILL: on all instances."""
        with self._busy.killing():
            replies = await self._ask_plainly(command)
        killed = [reply for reply in replies if not reply.startswith(b"-")]
        stubborn = [reply for reply in replies if reply.startswith(b"-UNKILLABLE")]
        # One that runs the other kind says BUSY; those that run nothing, NOTBUSY.
        busy = [reply for reply in replies if reply.startswith(b"-BUSY")]
        return [*killed, *stubborn, *busy, *replies][0]

    async def _ask_plainly(self, command: _core.Command) -> list[bytes]:
        """As ``_ask_all``, for commands that are allowed while a script runs, as MULTI is not."""
        kind, ready = Kind(resp=command.info.resp), self._links.ready()
        asked = (ask_patiently(self._links, i, [command.args], kind=kind) for i in ready)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        replies = [answer[0] for answer in answers if isinstance(answer, list)]
        if not replies:
            raise LinkError(NOBODY)
        return replies

    # -- instances that come back --

    async def replay(self, index: int) -> None:
        """Send a restarted instance what it has missed."""
        async with self._broadcasting:
            scripts: list[Words] = [[b"SCRIPT", b"LOAD", body] for body in self._cache.all()]
            for at in range(0, len(scripts), BATCH):
                await self._links.raw(index, scripts[at : at + BATCH])
        async with self._syncing:
            await self._sync_functions(index)

    def instance_lost(self, index: int) -> None:
        """Note that an instance may miss changes from now on."""
        self._synced.discard(index)

    async def _sync_functions(self, index: int) -> None:
        """Give an instance the others' functions; at the start, those of the one with most."""
        known = await self._libraries(index)
        agreed = [one for one in self._links.ready() if one in self._synced and one != index]
        best, wanted = index, known
        for one in agreed[:1] or self._links.all_instances():
            with contextlib.suppress(LinkError):
                found = await self._libraries(one)
                if agreed or len(found) > len(wanted):
                    best, wanted = one, found
        if wanted != known:
            dump = await self._links.call(best, b"FUNCTION", b"DUMP")
            reply = await self._links.call(index, b"FUNCTION", b"RESTORE", dump, b"FLUSH")
            if isinstance(reply, hiredis.ReplyError):
                raise LinkError(f"ERR instance {index} refuses the functions: {reply}")
            log.warning("instance %d had other functions than instance %d; now it has the same",
                        index, best)  # fmt: skip
            self.generation += 1
        self._synced.add(index)

    async def _libraries(self, index: int) -> dict[bytes, bytes]:
        """Return the code of an instance's libraries, by name."""
        reply = await self._links.call(index, b"FUNCTION", b"LIST", b"WITHCODE")
        if isinstance(reply, hiredis.ReplyError):
            raise LinkError(f"ERR instance {index} does not list its functions: {reply}")
        return {one[b"library_name"]: one[b"library_code"] for one in map(_fields, reply)}


def _fields(reply: list[Any]) -> dict[bytes, Any]:
    """Convert an entry of FUNCTION LIST to a dictionary."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _is_running(reply: bytes) -> bool:
    parts = _core.elements(reply)
    return len(parts) > 1 and parts[1] not in (b"$-1\r\n", b"_\r\n", b"*-1\r\n")


def flags(script: bytes) -> list[bytes]:
    """Return the flags of a script's first line: ``#!lua flags=no-writes,allow-oom``."""
    if not script.startswith(b"#!"):
        return []
    words = script.split(b"\n", 1)[0].split()
    return [
        flag
        for word in words
        if word.startswith(b"flags=")
        for flag in word.removeprefix(b"flags=").split(b",")
    ]
