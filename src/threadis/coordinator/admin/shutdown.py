"""SHUTDOWN: ends all of thREaDIS, instances and proxy, in the supervisor's order.

Data is saved first, under the lock on everything: if a save fails, the client still gets an error
and the servers go on. SHUTDOWN ends in every state: NOSAVE asks nothing and waits for nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from threadis import _core, control, resp
from threadis.coordinator.instances.links import LinkError, Links
from threadis.coordinator.instances.patience import ask_patiently
from threadis.coordinator.keys.locks import Locks
from threadis.coordinator.sessions.busy import BusyScripts

log = logging.getLogger(__name__)

WORDS: Final = frozenset((b"nosave", b"save", b"now", b"force", b"abort"))
FAILED: Final = resp.error("ERR Errors trying to SHUTDOWN. Check logs.")
LOCK_LIMIT: Final = 5.0  # seconds to wait for other commands while an instance does not answer
LOOK: Final = 0.5  # seconds between looks whether the instances still answer
IN_PROGRESS: Final = b"-ERR Background save already in progress"


class Shutdown:
    """Asks the supervisor to stop everything."""

    def __init__(
        self,
        links: Links,
        locks: Locks,
        busy: BusyScripts,
        core: _core.Proxy,
        tell: Callable[[control.ToSupervisor], None],
    ) -> None:
        self._links, self._locks, self._busy = links, locks, busy
        self._core, self._tell = core, tell

    async def shutdown(self, command: _core.Command) -> bytes | None:
        """SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE], or SHUTDOWN ABORT.

        NOW changes nothing: there are no replicas to wait for.
        """
        words = {word.lower() for word in command.args[1:]}
        if not words <= WORDS or {b"save", b"nosave"} <= words:
            return resp.error("ERR syntax error")
        if b"abort" in words:
            is_alone = words == {b"abort"}
            return resp.error("ERR No shutdown in progress." if is_alone else "ERR syntax error")
        if b"nosave" in words:
            return await self._end(command, list(self._links.all_instances()))
        if busy := await self._busy.refusal():
            return busy
        saves_at_the_end = await self._has_save_points()
        if b"save" not in words and not saves_at_the_end:
            return await self._end(command, [])
        async with AsyncExitStack() as stack:  # held until the end, so that no write is lost
            saved: list[int] = []
            is_good = await self._lock(stack, command.token)
            if is_good:
                saved, is_good = await self._save()
                is_good &= saves_at_the_end or not self._stopped()
            if not is_good and b"force" in words:
                saved = self._links.ready()  # FORCE: as far as possible
            elif not is_good:
                return FAILED
            return await self._end(command, saved)

    async def _end(self, command: _core.Command, unsaving: list[int]) -> bytes | None:
        self._tell(control.Shutdown(unsaving))
        self._core.kill_clients([command.info.id], False)  # a server does not answer, either
        await asyncio.Event().wait()
        return None

    async def _has_save_points(self) -> bool:
        """Whether servers save by themselves when they end."""
        ready = self._links.ready()
        return (
            bool(ready) and (await self._links.call(ready[0], b"CONFIG", b"GET", b"save"))[1] != b""
        )

    async def _lock(self, stack: AsyncExitStack, within: int | None) -> bool:
        """Lock everything; False if an instance that does not answer prevents that."""
        holding = self._locks.hold_everything(within, skips_in_doubt=True)
        granted = asyncio.create_task(stack.enter_async_context(holding))
        waited = 0.0
        try:
            while not (await asyncio.wait([granted], timeout=LOOK))[0]:
                waited = 0.0 if self._all_answer() else waited + LOOK
                if waited >= LOCK_LIMIT:
                    log.error("SHUTDOWN waits for commands on an instance that does not answer")
                    return False
        finally:
            granted.cancel()
        await granted
        return True

    def _all_answer(self) -> bool:
        return len(self._links.ready()) == self._links.count

    async def _save(self) -> tuple[list[int], bool]:
        """Save; return the instances that did, and whether all succeeded."""
        ready = self._links.ready()
        done = await asyncio.gather(*map(self._save_one, ready))
        saved = [index for index, is_saved in zip(ready, done, strict=True) if is_saved]
        return saved, all(done)

    def _stopped(self) -> bool:
        """Whether an instance is stopped: it has data, and can save only after it was woken."""
        everyone = map(self._links.instance, self._links.all_instances())
        return any(one.state is control.State.STOPPED for one in everyone)

    async def _save_one(self, index: int) -> bool:
        try:
            while (reply := (await ask_patiently(self._links, index, [[b"SAVE"]]))[0]) != resp.OK:
                if not reply.startswith(IN_PROGRESS):
                    break
                await asyncio.sleep(LOOK)
        except LinkError as error:
            reply = str(error).encode()
        if reply != resp.OK:
            log.error("SHUTDOWN: instance %d does not save: %s", index, reply.decode().strip())
        return reply == resp.OK
