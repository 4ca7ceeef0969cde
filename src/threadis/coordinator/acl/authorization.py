"""Answers the workers' questions: who is this client, and may it run this command?

AUTH and HELLO are tried on a connection that is not logged in, so the answers are the server's own.
``checks`` decides what a restricted user may do.
"""

import logging
import os

from threadis import _core, own_names, resp
from threadis.coordinator.acl.checks import AclChecks
from threadis.coordinator.acl.users import DEFAULT, Users
from threadis.coordinator.base.reply import INTERNAL_ERROR
from threadis.coordinator.instances import long_replies
from threadis.coordinator.instances.links import ANONYMOUS, Kind, LinkError, Links, Words
from threadis.coordinator.instances.near_maxmemory import NearMaxmemory
from threadis.coordinator.sessions.busy import BusyScripts

log = logging.getLogger(__name__)

User = tuple[bytes, int]  # name, number
DENIALS = (b"-NOPERM", b"-WRONGPASS")  # what ACL LOG has
LOGINS = (b"auth", b"hello")  # never denied; between MULTI and EXEC they are only queued
WRONG = resp.error("WRONGPASS invalid username-password pair or user is disabled.")


class Authorization:
    """Answers the workers' questions."""

    def __init__(
        self,
        core: _core.Proxy,
        links: Links,
        users: Users,
        acl_checks: AclChecks,
        busy: BusyScripts,
        near_maxmemory: NearMaxmemory,
    ) -> None:
        self._core, self._links, self._users = core, links, users
        self._acl_checks = acl_checks
        self._busy, self._near_maxmemory = busy, near_maxmemory

    async def judge(self, question: _core.Command) -> None:
        """Decide whether a command may run."""
        user = None
        try:
            await long_replies.complete(question)
            name, is_queued = question.args[0].lower(), question.queued is not None
            if name in LOGINS and is_queued:
                refusal = await self._near_maxmemory.refusal_when_queued(question)
            elif name in LOGINS:
                refusal, user = await self._login(question.args)
            else:
                refusal = await self._acl_checks.refusal(question)
                if refusal is None and is_queued:
                    refusal = (
                        await self._busy.refusal()
                        or await self._near_maxmemory.refusal_when_queued(question)
                    )
                elif refusal is None and question.token is None:
                    refusal = await self._near_maxmemory.refusal_when_run(question)
        except LinkError as error:
            refusal = resp.error(str(error))
        except Exception:  # one question's bug must not become a client's silence
            log.exception("%s could not be judged", question.args[0])
            refusal = INTERNAL_ERROR
        if refusal and refusal.startswith(DENIALS):
            _core.note_denied(self._core, question.info)
        self._core.judge(question, refusal, user)

    async def _login(self, args: Words) -> tuple[bytes | None, User | None]:
        """Try AUTH or HELLO … AUTH; return the refusal, or the user."""
        asked = list(args)
        at = _credentials(asked)
        if at is None and self._users.is_off(DEFAULT) and asked[0].lower() == b"auth":
            asked[1] = os.urandom(32).hex().encode()
        elif at is not None and (own_names.is_ours(asked[at]) or self._users.is_off(asked[at])):
            asked[at + 1] = os.urandom(32).hex().encode()
        link = await self._links.connect(self._users.informed_instance(), Kind(user=ANONYMOUS))
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


def _credentials(args: Words) -> int | None:
    """Find the position of the user's name; None if there is none."""
    if args[0].lower() == b"auth":
        return 1 if len(args) == 3 else None
    found, at = None, 2
    while at < len(args):
        if args[at].lower() == b"auth" and at + 2 < len(args):
            found, at = at + 1, at + 3
        else:
            at += 2
    return found
