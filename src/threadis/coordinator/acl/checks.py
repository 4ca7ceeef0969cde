"""Asks an instance what restricted users may do at this moment.

A server decides when a command takes effect, not when it was sent. So a command that has waited
(for EXEC, a key, a lock) is checked again. ACL DRYRUN decides. A command that is refused is then
really sent, as that user, so that the error is the server's own and its ACL LOG has the entry.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import itemgetter

from threadis import _core, resp
from threadis.catalog.commands import SCRIPTS
from threadis.coordinator.acl.users import Users
from threadis.coordinator.base.databases import confine_databases, database_after_select
from threadis.coordinator.instances.links import Kind, LinkError, Links, Words

CHANGED = (
    b"-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC "
    b"call. This command is no longer allowed for the following reason: "
)


class DeniedError(LinkError):
    """A user lost the right to a command while the command waited; the text is the server's."""


class AclChecks:
    """Checks whether a client may run its command now."""

    def __init__(self, links: Links, users: Users, databases: int) -> None:
        self._links, self._users, self._databases = links, users, databases

    def is_restricted(self, command: _core.Command) -> bool:
        """Whether a command's client has restrictions."""
        return self._users.is_restricted(command.info.user)

    async def refusal(self, command: _core.Command) -> bytes | None:
        """Return the error if a client may not run its command; None if it may."""
        info, args = command.info, command.args
        if not self._users.is_restricted(info.user):
            return None
        asked: list[tuple[int, Words]] = [(info.queued_db, args)]
        if await self._are_allowed(info.user, asked) == [True]:
            # SORT itself looks at its options: between MULTI and EXEC, not before EXEC.
            return None if info.is_queueing else self._sort_refusal(info.user, args)
        async with self._users.changing:
            if await self._are_allowed(info.user, asked) == [True]:
                return None
            if command.token is not None:
                return (await self._refusals_at_exec(info.user, asked))[0]
            return (
                await self._refusal_texts(info.user, info.resp, asked, in_multi=info.is_queueing)
            )[0]

    async def denied_places(self, command: _core.Command) -> set[int]:
        """Return the places in a transaction that are denied now; nothing is added to ACL LOG."""
        if not self._users.is_restricted(command.info.user):
            return set()
        allowed = await self._are_allowed(command.info.user, self._queued_commands(command))
        return {at for at, may in enumerate(allowed) if not may}

    async def denied_replies(self, command: _core.Command) -> dict[int, bytes]:
        """Return the places in a transaction that are denied now, each with its reply."""
        name, queued = command.info.user, list(command.queued or [])
        if not self._users.is_restricted(name):
            return {}
        asked = self._queued_commands(command)
        found = {}
        async with self._users.changing:
            allowed = await self._are_allowed(name, asked)
            refused = [at for at, may in enumerate(allowed) if not may]
            if refused:
                words = await self._refusals_at_exec(name, [asked[at] for at in refused])
                found = dict(zip(refused, words, strict=True))
        for at, args in enumerate(queued):
            if at not in found and (refusal := self._sort_refusal(name, args)):
                found[at] = refusal
        return found

    def _queued_commands(self, command: _core.Command) -> list[tuple[int, Words]]:
        """Return a transaction's commands, each with the database that it will run in."""
        asked: list[tuple[int, Words]] = []
        db = command.info.db
        for args in command.queued or []:
            asked.append((db, args))
            if args[0].lower() == b"select":
                db = database_after_select(args[1], db, self._databases)
        return asked

    def recheck(self, command: _core.Command) -> Callable[[], Awaitable[None]]:
        """Build the check that a command passes again after it has waited."""
        name, seen = command.info.user, command.info.rights
        rules = self._users.rules.get(name)

        async def check() -> None:
            nonlocal seen
            if seen == self._users.version:
                return
            seen = self._users.version
            if refusal := await self.refusal(command):
                raise DeniedError(refusal[1:-2].decode(errors="replace"))
            if rules != self._users.rules.get(name) and command.args[0].lower().decode() in SCRIPTS:
                raise DeniedError("TRYAGAIN the user's rights have changed; the script was not run")

        return check

    async def _are_allowed(self, name: bytes, asked: Sequence[tuple[int, Words]]) -> list[bool]:
        """Ask ACL DRYRUN for several commands, each in its database."""
        index, found = self._users.informed_instance(), []
        for db, group in groupby(asked, key=itemgetter(0)):
            questions: list[Words] = [
                [b"ACL", b"DRYRUN", name, *confine_databases(args, self._databases)]
                for _, args in group
            ]
            replies = await self._links.raw(index, questions, db=db)
            found += [reply == resp.OK for reply in replies]
        return found

    async def _refusal_texts(
        self, name: bytes, protocol: int, asked: Sequence[tuple[int, Words]], *, in_multi: bool
    ) -> list[bytes]:
        """Return the server's errors for commands that it refuses, each in its database.

        In another database they might be allowed, and would run.
        """
        begin: list[Words] = [[b"MULTI"]]
        if not in_multi or await self._are_allowed(name, [(0, begin[0])]) == [False]:
            begin = []
        found = []
        for db, group in groupby(asked, key=itemgetter(0)):
            sent = [confine_databases(args, self._databases) for _, args in group]
            link = await self._links.connect(self._users.informed_instance(), Kind(protocol))
            try:
                await link.select(db)  # its user may not be allowed that
                if await link.ask(self._links.login(name)) != [resp.OK]:
                    raise LinkError(
                        f"TRYAGAIN instance {link.index} rejected our login; nothing was run"
                    )
                found += (await link.ask(*begin, *sent))[len(begin) :]
            finally:
                link.writer.close()
        return found

    async def _refusals_at_exec(
        self, name: bytes, commands: Sequence[tuple[int, Words]]
    ) -> list[bytes]:
        """Return EXEC's errors for commands that are not allowed any more."""
        refusals = await self._refusal_texts(name, 2, commands, in_multi=True)
        return [CHANGED + _reason(refusal) + b"\r\n" for refusal in refusals]

    def _sort_refusal(self, name: bytes, args: Sequence[bytes]) -> bytes | None:
        """Check SORT's BY and GET, which may read any key; ACL DRYRUN does not."""
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


def _reason(refusal: bytes) -> bytes:
    """Say what a refusal is about, as EXEC does."""
    words = refusal.lower()
    if b" to run the " in words:
        return b"no permission to execute the command or subcommand"
    if b"channel" in words:
        return b"no permission to access one of the channels used as arguments"
    if b"key" in words:
        return b"no permission to touch the specified keys"
    return b"no permission"
