"""Runs a client's script as a sandbox user: what surrounds it in a block, and its result."""

from collections.abc import Sequence
from dataclasses import dataclass

from threadis import own_names, resp
from threadis.coordinator.acl.users import Denial, Users
from threadis.coordinator.instances.fenced import Fence, Script
from threadis.coordinator.instances.links import Link, Links, Words
from threadis.coordinator.lua.attribution import Attribution, setname
from threadis.coordinator.lua.sandbox_user import (
    ACL_LOG,
    NO_SANDBOX_USER,
    Refusals,
    SandboxRules,
    SandboxUser,
    judge_run,
)
from threadis.coordinator.lua.script_call import ScriptCall


@dataclass(slots=True)
class SandboxedScript(Script):
    """One script."""

    call: ScriptCall
    sandbox_user: SandboxUser
    caller: bytes  # the name that its connection has meanwhile
    denied: tuple[bytes, set[Denial]] | None = None  # the guard's name, and what its user is, too


class ScriptSandbox:
    """Wraps scripts."""

    def __init__(self, links: Links, users: Users, attribution: Attribution) -> None:
        self._links, self._users, self._attribution = links, users, attribution

    def wrap(
        self,
        call: ScriptCall,
        allowed: SandboxRules,
        sandbox_user: SandboxUser | None = None,
        *,
        before: Sequence[Words] = (),
        after: Sequence[Words] = (),
        can_be_undone: bool = False,
    ) -> SandboxedScript:
        """Build what surrounds a script; ``before`` is right before the login of its sandbox user,
        ``after`` right behind the script.

        Without a ``sandbox_user`` the script gets one of its own for this run.
        """
        is_for_this_run = sandbox_user is None
        sandbox_user = sandbox_user or SandboxUser()
        setup = sandbox_user.before(call.rights, allowed)
        gone = [[b"ACL", b"DELUSER", sandbox_user.name]] if is_for_this_run else []
        caller = self._attribution.begin(call.info, can_be_undone=can_be_undone)
        fence = Fence(
            call.words,
            [
                *setup,
                setname(caller),
                *before,
                *sandbox_user.logins(self._links.login(own_names.NOBODY)),
            ],
            [self._links.login()],
            [*after, *gone, setname(), ACL_LOG],
        )
        return SandboxedScript(fence, call, sandbox_user, caller)

    async def judge(self, guarded: SandboxedScript, link: Link) -> tuple[Refusals, bytes]:
        """Return what was refused that the caller may do; else the reply, in the caller's name."""
        if guarded.answers.before[-1] != resp.OK:
            guarded.sandbox_user.abandon()
            return Refusals(), NO_SANDBOX_USER
        log, call, sandbox_user = guarded.answers.after[-1], guarded.call, guarded.sandbox_user
        name, reply = sandbox_user.name, guarded.answers.reply
        refusals, reply = await judge_run(sandbox_user, link, log, call, reply, self._users)
        guarded.denied = (name, sandbox_user.denials)
        return refusals, reply

    def settle(self, guarded: SandboxedScript, index: int, *, counts: bool) -> None:
        """Note that a script has ended, or that its run does not count."""
        self._attribution.settle(guarded.caller, index, guarded.call.db, counts=counts)
        if counts and guarded.denied:  # runs that were for nothing are in no client's ACL LOG
            name, denials = guarded.denied
            self._users.note_denials(name, guarded.call.info, denials)
