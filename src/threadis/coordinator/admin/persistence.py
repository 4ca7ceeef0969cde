"""Commands about the server as a whole: sent to every instance, or answered as a lone primary
would.

SAVE and similar commands succeed if they do on all instances; otherwise the reply is the first
error.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from threadis import _core, own_names, resp
from threadis.coordinator.instances.links import Kind, Links, Words, value
from threadis.coordinator.sessions.departures import LEFT, Departures

Handler = Callable[[_core.Command], Awaitable[bytes]]
WHOLE: Final = re.compile(rb"0|-?[1-9][0-9]{0,17}")


class Persistence:
    """Persistence, allocator commands, and replication commands of a primary without replicas."""

    def __init__(self, links: Links, departures: Departures, databases: int) -> None:
        self._links, self._departures = links, departures
        self._hidden = own_names.records(databases)

    def handlers(self) -> dict[str, Handler]:
        """Each command by its row's name."""
        told = ("save", "bgsave", "bgrewriteaof", "memory|purge")
        texts = ("memory|doctor", "memory|malloc-stats", "latency|doctor")
        return {
            **dict.fromkeys(told, self._tell),
            **dict.fromkeys(texts, self._texts),
            "lastsave": self._last_save,
            "role": self._role,
            "wait": self._wait,
            "waitaof": self._wait_aof,
            "replicaof": self._replica_of,
            "slaveof": self._replica_of,
        }

    async def _all(self, command: _core.Command) -> list[bytes]:
        """Ask every instance, without a time limit: SAVE takes as long as the disk."""
        kind, everyone = Kind(command.info.resp), self._links.all_instances()
        asked = (self._links.raw(i, [command.args], kind=kind, wait=None) for i in everyone)
        return [reply for [reply] in await asyncio.gather(*asked)]

    async def _tell(self, command: _core.Command) -> bytes:
        replies = await self._all(command)
        return next((reply for reply in replies if reply.startswith(b"-")), replies[0])

    async def _texts(self, command: _core.Command) -> bytes:
        """Return texts for people; if they differ, one below the other."""
        replies = await self._all(command)
        failed = next((reply for reply in replies if reply.startswith(b"-")), None)
        if failed is not None or len(set(replies)) == 1:
            return failed or replies[0]
        found = [value(reply) for reply in replies]
        texts = [text if isinstance(text, str) else text.decode() for text in found]
        shown = "".join(f"Instance {i}:\n{text.rstrip()}\n" for i, text in enumerate(texts))
        return resp.text(shown.encode(), command.info.resp)

    async def _last_save(self, command: _core.Command) -> bytes:
        """LASTSAVE: the oldest one; only since then is everything saved."""
        times: list[int] = await self._links.call_all(*command.args)
        return resp.encode(min(times))

    async def _role(self, command: _core.Command) -> bytes:
        """ROLE: a primary without replicas; its offset is the sum of all instances' offsets."""
        replies = await self._links.call_all(*command.args)
        offset = sum(reply[1] for reply in replies)
        return resp.encode([replies[0][0], offset, []])

    async def _wait(self, command: _core.Command) -> bytes:
        """WAIT: there are no replicas, so waiting for one always times out."""
        replicas, timeout = command.args[1:]
        if not WHOLE.fullmatch(replicas) or not WHOLE.fullmatch(timeout) or int(timeout) < 0:
            # An instance returns the error
            return (await self._links.raw(self._links.any_ready(), [command.args]))[0]
        wanted = int(replicas)
        # Servers keep the number of replicas in 32 bits.
        is_short = wanted > 0 and (wanted + 2**31) % 2**32 > 2**31
        waits = is_short and command.token is None
        if waits and not await self._until(command, time.monotonic(), int(timeout)):
            return LEFT
        return resp.encode(0)

    async def _until(self, command: _core.Command, began: float, timeout: int) -> bool:
        """Wait so many milliseconds (0: for ever); False if the client leaves earlier."""
        left = began + timeout / 1000 - time.monotonic() if timeout else None
        return await self._departures.stays(command, left)

    async def _wait_aof(self, command: _core.Command) -> bytes:
        """WAITAOF numlocal numreplicas timeout: wait until all earlier writes are on every disk.

        A write of ours goes to each instance's append-only file behind all others.
        """
        began, asked = time.monotonic(), [[b"MULTI"], command.args, [b"EXEC"]]  # does not wait
        replies = await self._links.raw(self._links.any_ready(), asked)
        now = _core.elements(replies[-1]) if replies[-1].startswith(b"*") else replies
        refusal = next((reply for reply in now if reply.startswith(b"-")), None)
        if refusal is not None:
            return refusal
        local, replicas, timeout = map(int, command.args[1:])
        waits = command.token is None
        written = await self._written(command, [b"WAITAOF", b"%d" % local, b"0"], timeout, waits)
        if written is None:
            return LEFT
        if replicas > 0 and waits and not await self._until(command, began, timeout):
            return LEFT
        return resp.encode([written, 0])

    async def _written(
        self, command: _core.Command, words: list[bytes], timeout: int, waits: bool
    ) -> int | None:
        """Return 1 if all is on the disks of all instances; None if the client leaves first."""
        mark = own_names.WAITED + _core.unique_name()
        ask: list[Words] = [[*words, b"%d" % timeout]]
        if not waits:
            ask = [[b"MULTI"], *ask, [b"EXEC"]]
        block: list[Words] = [[b"MULTI"], [b"SET", mark, b""], [b"DEL", mark], [b"EXEC"]]
        batch = [*block, *ask]
        everyone = asyncio.gather(
            *(
                self._links.raw(i, batch, db=self._hidden, wait=None)
                for i in self._links.all_instances()
            )
        )
        leaving = asyncio.create_task(self._departures.stays(command, None))
        whichever: set[asyncio.Future[Any]] = {everyone, leaving}
        try:
            await asyncio.wait(whichever, return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                return None
        finally:
            everyone.cancel()
            leaving.cancel()
        found = [value(replies[-1]) for replies in everyone.result()]
        return min(int(one[0] if waits else one[0][0]) for one in found)

    async def _replica_of(self, command: _core.Command) -> bytes:
        """REPLICAOF NO ONE changes nothing on a primary; nothing else is possible."""
        if [word.lower() for word in command.args[1:]] == [b"no", b"one"]:
            return resp.OK
        return resp.error("ERR threadis: replicating another server is not supported")
