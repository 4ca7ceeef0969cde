"""A client's script behind its guard: what stands around it in a block, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from threadis import ours, resp
from threadis.coordinator.acl.users import Denial, Users
from threadis.coordinator.instances.fenced import Fence, Script
from threadis.coordinator.instances.links import Link, Links, Words
from threadis.coordinator.lua.attribution import Attribution, named
from threadis.coordinator.lua.call import Call
from threadis.coordinator.lua.sandbox_user import ACL_LOG, NO_GUARD, Allowed, Guard, Refusals, judge


@dataclass(slots=True)
class Guarded(Script):
    """One script."""

    call: Call
    guard: Guard
    caller: bytes  # the name that its connection has meanwhile
    denied: tuple[bytes, set[Denial]] | None = None  # the guard's name, and what its user is, too


class Guards:
    """Puts scripts behind guards."""

    def __init__(self, links: Links, users: Users, attribution: Attribution) -> None:
        self._links, self._users, self._attribution = links, users, attribution

    def enclose(
        self,
        call: Call,
        allowed: Allowed,
        guard: Guard | None = None,
        *,
        before: Sequence[Words] = (),
        after: Sequence[Words] = (),
        can_be_undone: bool = False,
    ) -> Guarded:
        """Build what stands around a script; ``before`` comes right before its guard is let in,
        ``after`` right behind it.

        Without a guard it gets one of its own for this run.
        """
        is_for_this_run = guard is None
        guard = guard or Guard()
        setup = guard.before(call.rights, allowed)
        gone = [[b"ACL", b"DELUSER", guard.name]] if is_for_this_run else []
        caller = self._attribution.begin(call.info, can_be_undone=can_be_undone)
        fence = Fence(
            call.words,
            [*setup, named(caller), *before, *guard.logins(self._links.login(ours.NOBODY))],
            [self._links.login()],
            [*after, *gone, named(), ACL_LOG],
        )
        return Guarded(fence, call, guard, caller)

    async def judge(self, guarded: Guarded, link: Link) -> tuple[Refusals, bytes]:
        """What was refused that the caller may do; else the reply, in the caller's name."""
        if guarded.answers.before[-1] != resp.OK:
            guarded.guard.abandon()
            return Refusals(), NO_GUARD
        log, call, guard = guarded.answers.after[-1], guarded.call, guarded.guard
        name, reply = guard.name, guarded.answers.reply
        refusals, reply = await judge(guard, link, log, call, reply, self._users)
        guarded.denied = (name, guard.denials)
        return refusals, reply

    def settle(self, guarded: Guarded, index: int, *, counts: bool) -> None:
        """Take note that a script is over, or was for nothing."""
        self._attribution.settle(guarded.caller, index, guarded.call.db, counts=counts)
        if counts and guarded.denied:  # runs that were for nothing are in no client's ACL LOG
            name, denials = guarded.denied
            self._users.note_denials(name, guarded.call.info, denials)
