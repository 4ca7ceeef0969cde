"""The sandbox user: a user of ours that may touch only the keys that a script has declared.

Servers check key permissions inside scripts, refuse before they act, and name the key in ACL LOG.
So an undeclared key is never a silent wrong answer (a key of another instance would look empty): we
notice it. A sandbox user's name is used until its first refusal, so what ACL LOG has of it belongs
to one run.
"""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import hiredis

from threadis import own_names, resp
from threadis.coordinator.acl.users import Denial, Users
from threadis.coordinator.base.rights import Rights
from threadis.coordinator.instances.links import Link, Words, value
from threadis.coordinator.keys.colocation import Group, pattern
from threadis.coordinator.lua.script_call import ScriptCall

# Commands that would see or change only one instance.
WHOLE_KEYSPACE = (b"keys", b"scan", b"dbsize", b"randomkey", b"flushall", b"flushdb", b"swapdb")
# Commands that would show one instance, and what is ours there; if the server has them.
INSTANCE_INFO = frozenset((
    "info", "lastsave", "memory|stats", "memory|malloc-stats", "memory|doctor", "memory|purge",
    "slowlog|get", "slowlog|len", "slowlog|reset", "commandlog|get", "commandlog|len",
    "commandlog|reset", "pubsub|channels", "pubsub|numpat", "pubsub|numsub",
    "pubsub|shardchannels", "pubsub|shardnumsub",
))  # fmt: skip
# Of these, what copies of a whole database tell or change as the database would. (A cursor of SCAN
# is another one elsewhere.)
KEY_LISTING = (b"keys", b"dbsize", b"randomkey", b"flushdb")
# Cannot run on copies: they reach other databases.
OTHER_DATABASES = (b"select", b"move", b"copy")
PUBLISHING = (b"publish", b"spublish")  # cannot be undone, but can be kept until all is done
NOT_MONITORED = (b"pfdebug", b"migrate")  # MONITOR does not show them, or they reach other servers

ACL_LOG = (b"ACL", b"LOG", b"128")  # as many entries as it keeps
LISTED_LIMIT = 10_000  # keys of a database that a script may list
BULKS = (b"$", b"=", b"!")  # begin replies with a length
ARGUMENTS_MOST = 2  # that commands of one instance need at least
MAY_NOT_RUN = b" has no permissions to run the "  # as ACL DRYRUN says it
RERUNS = 1000  # runs on copies, each of which has shown keys that were not lent
TOO_MANY = resp.error(
    f"ERR threadis: the script has touched other undeclared keys in each of {RERUNS} runs on copies"
)
NOT_ALL_DECLARED = resp.error(
    "ERR threadis: SELECT, MOVE and COPY inside a script need KEYS on one instance, and a script "
    "that touches only these for certain; nothing was run"
)
REFUSED_MIDWAY = resp.error(
    "ERR threadis: a command of the script was refused midway; earlier ones may have written"
)
NO_SANDBOX_USER = resp.error(
    "ERR threadis: the server refused to create the user that the script runs as; nothing was run"
)
SORT_AFTER_WRITE = resp.error(
    "ERR threadis: SORT with BY or GET inside a script that has changed what it sorts needs keys "
    "that all live on one instance for certain; nothing was run"
)
TOO_LARGE_TO_MONITOR = resp.error(
    "ERR threadis: the script touches undeclared keys, and the copies of all its keys are too "
    "large; declare its keys, or give them a common {hash tag}"
)
TOO_MANY_TO_LIST = resp.error(
    "ERR threadis: a script that lists the keys of a database works on copies of them, "
    f"{LISTED_LIMIT} at most; this database has more"
)


@dataclass(slots=True)
class Refusals:
    """What a script was refused."""

    keys: set[bytes] = field(default_factory=set)
    commands: set[bytes] = field(default_factory=set)
    alone: set[bytes] = field(
        default_factory=set
    )  # of these, those that would see only one instance
    counts: Counter[bytes] = field(default_factory=Counter)  # how often, by reason
    all: bool = False  # nothing was run: the server has refused everything

    def __bool__(self) -> bool:
        return bool(self.keys or self.commands)


def rules_without(denied: Collection[bytes]) -> Words:
    """Build the rules of a sandbox user that may run all other commands; keys follow."""
    return [b"&*", b"+@all", *(b"-" + name for name in denied)]


def one_instance_error(what: Collection[bytes]) -> bytes:
    """Build the error for commands that would see only one instance."""
    names = ", ".join(sorted(name.decode(errors="replace").upper() for name in what))
    return resp.error(f"ERR threadis: {names} inside a script would see one instance only")


@dataclass(frozen=True, slots=True)
class SandboxRules:
    """What a sandbox user is allowed."""

    keys: (
        Collection[bytes] | None
    )  # None: all that the caller may touch; MONITOR shows what it does
    denied: Collection[bytes]  # commands
    local: Collection[Group] = ()  # groups whose keys it may touch, too
    copies: tuple[int, int] | None = None  # the database of which it sees copies, and theirs
    only_reads: bool = False


class SandboxUser:
    """The sandbox user of one connection; builds the commands around a script."""

    def __init__(self) -> None:
        self.name = b""
        self.denials: set[Denial] = set()  # what its user was not allowed to do either
        self._abandoned: list[Words] = []  # commands that delete abandoned users
        self._rights: Rights | None = None
        self._keys: frozenset[bytes] | None = None
        self._refused: frozenset[bytes] = frozenset()
        self._only_reads = False
        self._password = b""
        self._denied: Collection[bytes] | None = None  # None: its rules must be made anew

    def before(self, rights: Rights | None, allowed: SandboxRules) -> list[Words]:
        """Build the commands that create the sandbox user.

        It may do what a user with these ``rights`` may (None: everything), as far as ``allowed``
        permits. On the real keys, the groups that live there are allowed, too; on copies of a
        database they are not, because that would not be noticed.
        """
        keys, denied, only_reads = allowed.keys, allowed.denied, allowed.only_reads
        self._rights, self._only_reads = rights, only_reads
        self._keys = None if keys is None else frozenset(keys)
        self._refused, self.denials = frozenset(denied), set()
        if not self.name:
            self.name = own_names.SANDBOX_USER + os.urandom(8).hex().encode()
            self._denied = None
        gone, self._abandoned = self._abandoned, []
        # A new one each time: if the server refuses the rules, the old ones allow no login.
        self._password = os.urandom(16).hex().encode()
        user = [b"ACL", b"SETUSER", self.name]
        new = [b"reset", b"on", b">" + self._password]
        if rights:
            self._denied = None
            patterns = None if keys is None else {key: [pattern(key)] for key in keys}
            rules = rights.rules(patterns, denied, allowed.copies, only_reads=only_reads)
            return [*gone, [*user, *new, *rules]]
        sign = b"%R~" if only_reads else b"~"
        if keys is None:
            # With exactly this pattern, SORT may read keys by BY and GET. They are copies, or all
            # keys of the database are on this instance. Servers refuse any other pattern with it.
            rules = [sign + b"*"]
        else:
            rules = [sign + group.pattern() for group in allowed.local]
            rules += [sign + pattern(key) for key in keys]
        if self._denied != denied:
            self._denied = denied
            return [*gone, [*user, *new, *rules_without(denied), *rules]]
        return [*gone, [*user, b"resetpass", new[-1], b"resetkeys", *rules]]

    def logins(self, nobody: Words) -> list[Words]:
        """Build the commands that log the connection in as the sandbox user.

        It is ``nobody`` first: if the login fails, the script may do nothing.
        """
        return [nobody, [b"AUTH", self.name, self._password]]

    def refusals(self, log: bytes) -> Refusals:
        """Parse what ACL LOG has of this user; leave out what the caller may not do, either."""
        found = Refusals()
        entries = value(log)
        for entry in entries if isinstance(entries, list) else []:
            is_map = isinstance(entry, dict)  # RESP3
            fields = entry if is_map else dict(zip(entry[::2], entry[1::2], strict=True))
            if fields.get(b"username") != self.name:
                continue
            reason, what = fields[b"reason"], fields[b"object"]
            if self._is_denied_to_user(reason, what):
                self.denials.add((reason, what))
            else:
                (found.keys if reason == b"key" else found.commands).add(what)
                found.counts[reason] += fields[b"count"]
        return found

    def _is_denied_to_user(self, reason: bytes, what: bytes) -> bool:
        if self._rights is None:
            return False
        if reason == b"key":
            if self._keys is None or what in self._keys:
                return not (self._only_reads and self._rights.may_write(what))
            return not self._rights.may_touch(what)
        return reason != b"command" or what not in self._refused

    def abandon(self) -> None:
        """Take another name next time: the state of this one is unknown."""
        self._abandoned.append([b"ACL", b"DELUSER", self.name])
        self.name = b""

    async def retire(self, link: Link) -> None:
        """Delete the user: ACL LOG has its name."""
        reply = value((await link.ask([b"ACL", b"DELUSER", self.name]))[0])
        if isinstance(reply, hiredis.ReplyError):
            link.is_spoilt = True
        self.name = b""


def sandbox_user_of(link: Link) -> SandboxUser:
    """Return the sandbox user of a connection."""
    sandbox_user: SandboxUser = link.sandbox_user or SandboxUser()
    link.sandbox_user = sandbox_user
    return sandbox_user


async def judge_run(
    sandbox_user: SandboxUser, link: Link, log: bytes, call: ScriptCall, reply: bytes, users: Users
) -> tuple[Refusals, bytes]:
    """Return the refusals that the caller does not share; else the reply, in the caller's name."""
    refusals = sandbox_user.refusals(log)
    if call.rights and refusals.commands:
        asked = {name for name in refusals.commands if not call.rights.has_arguments(name)}
        denied = await _denied(link, call.rights.user, asked)
        sandbox_user.denials |= {(b"command", name) for name in denied}
        refusals.commands -= denied
    users.count_sandbox_refusals(link.index, refusals.counts)
    if refusals or sandbox_user.denials:
        if call.rights:
            reply = _in_name_of(call.rights.user, sandbox_user.name, reply)
        await sandbox_user.retire(link)
    return refusals, reply


async def _denied(link: Link, user: bytes, commands: Collection[bytes]) -> set[bytes]:
    """Return which of these commands the caller may not run, either, with whatever arguments."""
    asked: list[tuple[bytes, Words]] = [
        (name, [b"ACL", b"DRYRUN", user, *name.split(b"|"), *[b"0"] * count])
        for name in commands
        for count in range(ARGUMENTS_MOST + 1)
    ]
    replies = await link.ask(*(words for _, words in asked))
    pairs = zip(asked, replies, strict=True)
    return {name for (name, _), reply in pairs if reply.startswith(b"$") and MAY_NOT_RUN in reply}


def _in_name_of(user: bytes, sandbox_user: bytes, reply: bytes) -> bytes:
    """Replace the sandbox user's name by the caller's, in all strings and errors of a reply.

    Servers name the user that they refuse, and scripts may return that.
    """
    if sandbox_user not in reply:
        return reply
    made, at = [], 0
    while at < len(reply):
        end = reply.index(b"\r\n", at)
        kind, size = reply[at : at + 1], reply[at + 1 : end]
        if kind in BULKS and size.isdigit():
            text = reply[end + 2 : end + 2 + int(size)].replace(sandbox_user, user)
            made.append(b"%b%d\r\n%b\r\n" % (kind, len(text), text))
            at = end + 2 + int(size) + 2
        else:
            made.append(reply[at:end].replace(sandbox_user, user) + b"\r\n")
            at = end + 2
    return b"".join(made)
