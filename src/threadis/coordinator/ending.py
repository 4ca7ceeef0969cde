"""SHUTDOWN: ends all of thREaDIS, instances and proxy, in the supervisor's order."""

import asyncio
from collections.abc import Callable

from threadis import _core, control, resp
from threadis.coordinator.links import Links
from threadis.coordinator.locks import Locks

WORDS = frozenset((b"nosave", b"save", b"now", b"force", b"abort"))
FAILED = "ERR Errors trying to SHUTDOWN. Check logs."


class Ending:
    """Asks the supervisor to stop everything."""

    def __init__(
        self,
        links: Links,
        locks: Locks,
        core: _core.Proxy,
        tell: Callable[[control.ToSupervisor], None],
    ) -> None:
        self._links, self._locks, self._core, self._tell = links, locks, core, tell

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
        async with self._locks.hold_everything(command.token):  # until the end: no write is lost
            if not await self._prepare(words) and b"force" not in words:
                return resp.error(FAILED)
            self._tell(control.Shutdown())
            self._core.kill_clients([command.info.id], False)  # a server does not answer, either
            await asyncio.Event().wait()
        return None

    async def _prepare(self, words: set[bytes]) -> bool:
        """Save, or see to it that nothing is saved; whether all instances did."""
        if b"save" in words:
            commands: list[list[bytes]] = [[b"SAVE"]]
        elif b"nosave" in words:
            commands = [[b"CONFIG", b"SET", b"save", b""]]
        else:
            return True
        asked = (self._links.raw(i, commands, wait=None) for i in self._links.everyone())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return all(answer == [resp.OK] for answer in answers)
