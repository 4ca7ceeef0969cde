"""SCRIPT and FUNCTION: the same scripts and functions on every instance, whoever restarts."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import hiredis

from threadis import _core, resp
from threadis.coordinator import fenced
from threadis.coordinator.links import Kind, LinkError, Links, Words, value
from threadis.coordinator.locks import Locks
from threadis.coordinator.patience import ask_patiently
from threadis.coordinator.taught import Taught

NOBODY = "TRYAGAIN no instance is ready; the command was not run"
NO_WRITES = b"no-writes"
SCRIPTS_LIMIT = 10_000  # bodies kept for instances that restart


class Library:
    """What has been loaded, and telling it to every instance."""

    def __init__(self, links: Links, locks: Locks, taught: Taught) -> None:
        self._links = links
        self._taught = taught
        self._locks = locks
        self.generation = 0  # of the functions: another one with each change
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()  # SHA1 → script

    def handlers(self) -> dict[str, Callable[[_core.Command], Awaitable[bytes]]]:
        """Return what runs each command."""
        return {
            "script|exists": self.ask,
            "script|load": self.change,
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

    async def debug(self, command: _core.Command) -> bytes:
        """SCRIPT DEBUG: a debugger would have an instance's connection to itself."""
        if command.token is not None:  # between MULTI and EXEC
            return resp.error("ERR SCRIPT DEBUG must be called outside a pipeline")
        if command.args[2].lower() in (b"yes", b"sync"):
            return resp.error("ERR threadis: the debugger for scripts is not supported")
        return (await self._links.raw(self._links.any_ready(), [command.args]))[0]

    async def only_reads(self, args: Words) -> bool:
        """Whether a script is declared to write nothing."""
        family = args[0].lower()
        if family.endswith(b"_ro"):
            return True
        if family == b"eval":
            return NO_WRITES in flags(args[1])
        if family == b"evalsha":
            return NO_WRITES in flags(self._bodies.get(args[1].lower(), b""))
        return args[1].lower() in await self._reading_functions()

    async def _reading_functions(self) -> set[bytes]:
        libraries = await self._links.call(self._links.any_ready(), b"FUNCTION", b"LIST")
        if isinstance(libraries, hiredis.ReplyError):
            return set()
        found = [dict(zip(one[::2], one[1::2], strict=True)) for one in libraries]
        functions = [
            dict(zip(one[::2], one[1::2], strict=True))
            for library in found
            for one in library[b"functions"]
        ]
        return {one[b"name"].lower() for one in functions if NO_WRITES in one[b"flags"]}

    async def prepare(self, family: bytes, name: bytes, script: bytes) -> None:
        """Make a script of EVAL known to all instances, so that EVALSHA finds it on any."""
        if family not in (b"eval", b"eval_ro") or name in self._bodies:
            return
        replies = await self._everywhere([b"SCRIPT", b"LOAD", script])
        if not any(reply.startswith(b"-") for reply in replies):
            self._keep(name, script)

    def body(self, name: bytes) -> bytes:
        """Return the script with this SHA1; nothing if it is not kept."""
        return self._bodies.get(name, b"")

    def _keep(self, name: bytes, script: bytes) -> None:
        self._bodies[name] = script
        if len(self._bodies) > SCRIPTS_LIMIT:
            self._bodies.popitem(last=False)

    async def _everywhere(self, words: Words, kind: Kind | None = None) -> list[bytes]:
        """Run on every instance, fenced; the replies."""

        async def one(index: int) -> bytes:
            async with self._links.lease(index, kind or Kind()) as link:
                return (await fenced.ask(link, words)).reply

        return await asyncio.gather(*map(one, self._links.everyone()))

    async def change(self, command: _core.Command) -> bytes:
        """Change what every instance has: all or, if one refuses, none."""
        async with self._locks.hold_everything(command.token, spares_doubts=True):
            before = await self._links.call(0, b"FUNCTION", b"DUMP")
            replies = await self._everywhere(command.args, Kind(resp=command.info.resp))
            refused = next((reply for reply in replies if reply.startswith(b"-")), None)
            if refused is not None:
                if any(not reply.startswith(b"-") for reply in replies):
                    await self._everywhere([b"FUNCTION", b"RESTORE", before, b"FLUSH"])
                return refused
        name = command.args[1].upper()
        self.generation += command.args[0].upper() == b"FUNCTION"
        if command.args[0].upper() == b"SCRIPT" and name == b"FLUSH":
            self._bodies.clear()
            self._taught.forget_all()
        elif command.args[0].upper() == b"SCRIPT" and name == b"LOAD":
            self._keep(value(replies[0]), command.args[2])
        return replies[0]

    async def ask(self, command: _core.Command) -> bytes:
        """Ask an instance what all of them know."""
        index = self._links.any_ready()
        async with self._links.lease(index, Kind(resp=command.info.resp)) as link:
            return (await fenced.ask(link, command.args)).reply

    async def kill(self, command: _core.Command) -> bytes:
        """SCRIPT KILL, FUNCTION KILL: wherever one runs, as soon as it hears us."""
        asked = [ask_patiently(self._links, index, [command.args]) for index in self._links.ready()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        replies = [answer[0] for answer in answers if isinstance(answer, list)]
        killed = [reply for reply in replies if not reply.startswith(b"-")]
        stubborn = [reply for reply in replies if reply.startswith(b"-UNKILLABLE")]
        # One that runs the other kind says BUSY; those that run nothing, NOTBUSY.
        busy = [reply for reply in replies if reply.startswith(b"-BUSY")]
        found = [*killed, *stubborn, *busy, *replies]
        return found[0] if found else resp.error(NOBODY)

    async def stats(self, command: _core.Command) -> bytes:
        """FUNCTION STATS: of the instance that runs one, else of any."""
        kind = Kind(resp=command.info.resp)
        asked = (self._links.raw(i, [command.args], kind=kind) for i in self._links.everyone())
        replies = [reply for (reply,) in await asyncio.gather(*asked)]
        return next((r for r in replies if _is_running(r)), replies[0])

    async def replay(self, index: int) -> None:
        """Tell an instance that was restarted what it has missed."""
        scripts: list[Words] = [[b"SCRIPT", b"LOAD", body] for body in self._bodies.values()]
        if scripts:
            await self._links.raw(index, scripts)
        others = [one for one in self._links.ready() if one not in self._links.unprepared]
        if not others:
            return
        dump = await self._links.call(others[0], b"FUNCTION", b"DUMP")
        reply = await self._links.call(index, b"FUNCTION", b"RESTORE", dump, b"FLUSH")
        if isinstance(reply, hiredis.ReplyError):
            raise LinkError(f"ERR instance {index} refuses the functions: {reply}")


def _is_running(reply: bytes) -> bool:
    parts = _core.elements(reply)
    return len(parts) > 1 and parts[1] not in (b"$-1\r\n", b"_\r\n", b"*-1\r\n")


def flags(script: bytes) -> list[bytes]:
    """Return the flags that a script's first line gives it: ``#!lua flags=no-writes,allow-oom``."""
    if not script.startswith(b"#!"):
        return []
    words = script.split(b"\n", 1)[0].split()
    return [
        flag
        for word in words
        if word.startswith(b"flags=")
        for flag in word.removeprefix(b"flags=").split(b",")
    ]
