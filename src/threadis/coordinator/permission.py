"""Who a client is, and whether it may: the workers' questions, put to an instance.

AUTH and HELLO are asked on a connection of a stranger, so the answers are the server's own. What
a restricted user may do is asked with ACL DRYRUN; a command that is refused is then really sent,
as that user, for the server's own words and its line in ACL LOG.
"""

import logging
import os
from collections.abc import Sequence

from threadis import _core, resp
from threadis.coordinator.busy import Busy
from threadis.coordinator.links import STRANGER, Kind, LinkError, Links, Words
from threadis.coordinator.tightness import Tightness
from threadis.coordinator.users import DEFAULT, HIDDEN, Users

log = logging.getLogger(__name__)

User = tuple[bytes, int]  # name, number
WRONG = resp.error("WRONGPASS invalid username-password pair or user is disabled.")


class Permission:
    """Answers the workers' questions."""

    def __init__(
        self, core: _core.Proxy, links: Links, users: Users, busy: Busy, tightness: Tightness
    ) -> None:
        self._core, self._links, self._users = core, links, users
        self._busy, self._tightness = busy, tightness

    async def judge(self, question: _core.Command) -> None:
        """May this command run?"""
        user = None
        try:
            if question.args[0].lower() in (b"auth", b"hello"):
                refusal, user = await self._login(question.args)
            else:
                refusal = await self._refusal(question)
                if refusal is None and question.queued is not None:
                    refusal = await self._busy.refusal() or await self._tightness.refusal(question)
        except LinkError as error:
            refusal = resp.error(str(error))
        except Exception:  # one question's bug must not become a client's silence
            log.exception("%s could not be judged", question.args[0])
            refusal = resp.error("ERR threadis: internal error, see the log")
        self._core.judge(question, refusal, user)

    async def _login(self, args: Words) -> tuple[bytes | None, User | None]:
        """AUTH, HELLO … AUTH: the refusal, or who it is."""
        asked = list(args)
        at = _credentials(asked)
        if at is not None and asked[at].startswith(HIDDEN):
            asked[at + 1] = os.urandom(32).hex().encode()
        link = await self._links.connect(self._users.judge(), Kind(user=STRANGER))
        try:
            reply = (await link.ask(asked))[0]
        finally:
            link.writer.close()
        if reply.startswith(b"-"):
            return reply, None
        if asked[0].lower() == b"hello" and at is None:
            return None, None
        name = DEFAULT if at is None else asked[at]
        if name not in self._users.rules:
            return WRONG, None
        return None, (name, self._users.id(name))

    async def _refusal(self, question: _core.Command) -> bytes | None:
        """Why a restricted user may not run a command; None if it may."""
        name, args = question.info.user, question.args
        if await self._is_allowed(question):
            return self._sort_refusal(name, args)
        async with self._users.changing:
            if await self._is_allowed(question):
                return None
            kind = Kind(question.info.resp, name)
            link = await self._links.connect(self._users.judge(), kind)
            try:
                in_multi = [[b"MULTI"]] if question.queued is not None else []
                return (await link.ask(*in_multi, args))[-1]
            finally:
                link.writer.close()

    async def _is_allowed(self, question: _core.Command) -> bool:
        words = [b"ACL", b"DRYRUN", question.info.user, *question.args]
        index = self._users.judge()
        reply = (await self._links.raw(index, [words], db=question.info.db))[0]
        return reply == resp.OK

    def _sort_refusal(self, name: bytes, args: Sequence[bytes]) -> bytes | None:
        """SORT may look at any key, which only its code knows."""
        if args[0].lower() not in (b"sort", b"sort_ro") or self._users.reads_all_keys(name):
            return None
        for at, word in enumerate(args[:-1]):
            option = word.upper()
            if at >= 2 and option in (b"BY", b"GET") and (option == b"GET" or b"*" in args[at + 1]):
                what = option.decode()
                return resp.error(
                    f"ERR {what} option of SORT denied due to insufficient ACL permissions."
                )
        return None


def _credentials(args: Words) -> int | None:
    """Where the user's name is; None if there is none."""
    if args[0].lower() == b"auth":
        return 1 if len(args) == 3 else None
    found, at = None, 2
    while at < len(args):
        if args[at].lower() == b"auth" and at + 2 < len(args):
            found, at = at + 1, at + 3
        else:
            at += 2
    return found
