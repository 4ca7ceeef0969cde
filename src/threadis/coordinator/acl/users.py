"""ACL users: the same on every instance, also after restarts; workers know which are restricted.

Each user of the clients exists on each instance under its own name and rules, so the servers make
the decisions, in their own words. Besides the clients' passwords it has one of ours, with which
lanes and links log in; ``Users.rules`` is what clients see. Users whose names begin with
``threadis-`` are entirely ours.
"""

import asyncio
import hashlib
import itertools
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import hiredis

from threadis import _core, control, own_names, resp
from threadis.coordinator.base.rights import LOGIN, Rights, setuser_rules
from threadis.coordinator.instances.links import LinkError, Links, Words
from threadis.coordinator.keys.locks import Locks
from threadis.coordinator.sessions.clients import Clients

DEFAULT = b"default"
# What "reset" does, but without the mark sanitize-payload, which Redis 7.0 would show then
RESET = [b"off", b"resetpass", b"resetkeys", b"resetchannels", b"clearselectors", b"-@all"]
RETRY = 0.05  # seconds between attempts to tell an instance
DENIALS_LIMIT = 256  # guards whose denials ACL LOG may still show

Rules = list[bytes]  # as in ACL LIST, without the name
Denial = tuple[bytes, bytes]  # reason and object, as in ACL LOG


class Users:
    """All users and their rules."""

    def __init__(
        self,
        core: _core.Proxy,
        links: Links,
        locks: Locks,
        clients: Clients,
        start: control.Start,
        tell: Callable[[control.ToSupervisor], None],
    ) -> None:
        password = start.instance_password.encode()
        self._initial, self._tell_supervisor = start.users, tell
        self._core, self._links, self._locks, self._clients = core, links, locks, clients
        self._ours = b"#" + hashlib.sha256(password).hexdigest().encode()
        # Mark disabled users: with passwords of their own, and without.
        self._disabled_marks = [
            b"#" + hashlib.sha256(password + b"-%d" % n).hexdigest().encode() for n in (0, 1)
        ]
        self._all_permissions: Rules = []  # the rules of a user who may do everything
        self._numbers = itertools.count(1)
        self._ids: dict[bytes, int] = {}
        self.rules: dict[bytes, Rules] = {}
        self._denials: OrderedDict[bytes, tuple[bytes, set[Denial]]] = OrderedDict()
        self._sandbox_refusals: dict[int, Counter[bytes]] = {}  # by instance, which counts it
        self.changing = asyncio.Lock()
        self.version = 0  # how often the workers were told of a user
        self._informed: set[int] = set()  # instances that know all of them

    def id(self, name: bytes) -> int:
        """Return a user's number: 0 if it may do everything."""
        return self._ids[name]

    def has(self, name: str) -> bool:
        """Whether there is such a user."""
        return name.encode() in self.rules

    def is_restricted(self, name: bytes) -> bool:
        """Whether a user has restrictions, or does not exist any more."""
        return self._ids.get(name) != 0

    def rights(self, name: bytes) -> Rights | None:
        """Return a user's rights; None: no restrictions."""
        if not self._ids.get(name):
            return None
        return Rights.parse(name, self.rules[name])

    def note_denials(self, guard: bytes, client: _core.ClientInfo, denials: set[Denial]) -> None:
        """Remember which client ran as a sandbox user that was denied something."""
        if denials:
            _core.note_denied(self._core, client)
            self._denials[guard] = (client.user, denials)
            if len(self._denials) > DENIALS_LIMIT:
                self._denials.popitem(last=False)

    def user_of_denial(self, name: bytes, denial: Denial) -> bytes:
        """Return the user of an ACL LOG entry; for a sandbox user, the user who ran the script."""
        user, denials = self._denials.get(name, (name, set()))
        return user if denial in denials else name

    def are_known(self) -> bool:
        """Whether the users were read from an instance; no client is served before that."""
        return bool(self.rules)

    async def replay(self, index: int) -> None:
        """Bring an instance up to date; from the first one the users are read."""
        async with self.changing:
            if not self.rules:
                if self._initial:
                    await self._replace_on(index, self._initial)
                    rules = await self._read(index)
                    await self._send_difference(index, {}, rules)  # how our lanes log in
                    self.rules = rules
                else:
                    self.rules = await self._read(await self._longest_running(index))
                self._publish({})
            await self._send_difference(index, await self._read(index), self.rules)
            self._informed.add(index)

    async def _replace_on(self, index: int, users: Mapping[bytes, Rules]) -> None:
        """Replace an instance's users; the instance decides how their rules read."""
        gone = [name for name in await self._read(index) if name not in users]
        words: list[Words] = [
            [b"ACL", b"SETUSER", name, *RESET, *rules] for name, rules in users.items()
        ]
        if gone:
            words.append([b"ACL", b"DELUSER", *gone])
        await self._run_block(index, words)

    async def _longest_running(self, index: int) -> int:
        """Return the instance that has run longest: this one, or one that is ready."""
        found: dict[int, int] = {}
        for one in sorted({index, *self._links.ready()}):
            try:
                info: bytes = await self._ask(one, b"INFO", b"server")
            except LinkError:
                if one == index:
                    raise
                continue
            fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
            found[one] = int(fields[b"uptime_in_seconds"])
        return max(found, key=lambda one: (found[one], -one))

    def instance_lost(self, index: int) -> None:
        """Note that an instance may miss changes from now on."""
        self._informed.discard(index)
        self._sandbox_refusals.pop(index, None)

    def count_sandbox_refusals(self, index: int, counts: Counter[bytes]) -> None:
        """Count what a sandbox user was refused, by reason; no client did that."""
        self._sandbox_refusals.setdefault(index, Counter()).update(counts)

    def sandbox_refusals(self) -> Counter[bytes]:
        """Return these counts over all instances."""
        return sum(self._sandbox_refusals.values(), Counter())

    def informed_instance(self) -> int:
        """Return an instance that knows all users; LinkError if none can be asked."""
        told = [index for index in self._links.ready() if index in self._informed]
        return told[0] if told else self._links.any_ready()

    async def change(self, command: _core.Command, words: Words | None = None) -> bytes:
        """ACL SETUSER, ACL DELUSER: on all instances or on none."""
        async with self._locks.hold_everything(command.token, skips_in_doubt=True), self.changing:
            reply, killed = await self._change(words or command.args)
        asking = command.info.id
        await self._clients.end([one for one in killed if one != asking])
        if asking in killed:
            self._core.kill_clients([asking], after_replies=True)
        return reply

    async def set_password(self, password: bytes, within: int | None) -> None:
        """CONFIG SET requirepass: the default user's password; empty: no password."""
        rule = b">" + password if password else b"nopass"
        async with self._locks.hold_everything(within, skips_in_doubt=True), self.changing:
            await self._change([b"ACL", b"SETUSER", DEFAULT, b"resetpass", rule])

    async def replace(
        self,
        command: _core.Command,
        find: Callable[[], Awaitable[dict[bytes, Rules] | bytes]],
        kills_all: bool,
    ) -> bytes:
        """ACL LOAD: replace all users by those that ``find`` returns; or return its error."""
        async with self._locks.hold_everything(command.token), self.changing:
            after = await find()
            if isinstance(after, bytes):
                return after
            before, self.rules = self.rules, after
            for index in self._links.ready():
                await self._sync(index, after)
            self._publish(before)
            killed = await self._clients_to_close(before)
            if kills_all:
                everyone = await self._clients.all()
                killed = [one.id for one in everyone if one.user != DEFAULT]
        asking = command.info.id
        await self._clients.end([one for one in killed if one != asking])
        if asking in killed:
            self._core.kill_clients([asking], after_replies=True)
        return resp.OK

    async def _change(self, words: Words) -> tuple[bytes, list[int]]:
        """Change users on the first instance, then send the result to the others."""
        before = self.rules
        first = self._links.any_ready()
        bare = self._without_lane_login(words)
        reply = (await self._links.raw(first, [*bare, words]))[-1]
        if reply.startswith(b"-"):
            if bare:
                await self._send_or_sync(
                    first, self._lane_login(words[2], before[words[2]]), before
                )
            return reply, []
        after = await self._read(first)
        # What ``reset`` takes away and gives back is not seen in the rules: our password is gone.
        named = words[2:3]
        changed = [name for name in after if name in named or before.get(name) != after[name]]
        ours = [words for name in changed for words in self._lane_login(name, after[name])]
        await self._send_or_sync(first, ours, after)
        others = [index for index in self._links.ready() if index != first]
        told = (self._send_or_sync(index, [*bare, words, *ours], after) for index in others)
        await asyncio.gather(*told)  # thousands of rules take a server a second
        self.rules = after
        self._publish(before)
        return reply, await self._clients_to_close(before)

    def _lane_login(self, name: bytes, rules: Rules) -> list[Words]:
        """Build the rules that let lanes log in as this user, also if it is disabled: its clients
        may stay connected. A password that nobody knows marks it as disabled.
        """
        setuser: Words = [b"ACL", b"SETUSER", name]
        if self._is_disabled_with_login(rules):
            marks = [self._disabled_marks[b"nopass" in rules]]
            return [[*setuser, b"on", b"resetpass", *_passwords(rules), self._ours, *marks]]
        return [] if b"nopass" in rules else [[*setuser, self._ours]]

    def _is_disabled_with_login(self, rules: Rules) -> bool:
        return b"off" in rules and _permissions(rules) != self._all_permissions

    def _without_lane_login(self, words: Words) -> list[Words]:
        """Really disable a disabled user, before a command changes it."""
        name = words[2] if len(words) > 2 else b""
        rules = self.rules.get(name, [])
        if not self._is_disabled_with_login(rules):
            return []
        login = [b"nopass"] if b"nopass" in rules else [b"resetpass", *_passwords(rules)]
        return [[b"ACL", b"SETUSER", name, b"off", *login]]

    async def _send_or_sync(
        self, index: int, words: Sequence[Words], after: Mapping[bytes, Rules]
    ) -> None:
        """Send commands to an instance; if it is lost, synchronise it before it is ready again."""
        try:
            if words:
                await self._links.raw(index, [[b"MULTI"], *words, [b"EXEC"]])
            return
        except LinkError:
            await asyncio.sleep(RETRY)
        await self._sync(index, after)

    async def _sync(self, index: int, after: Mapping[bytes, Rules]) -> None:
        """Make an instance's users those of ``after``; a lost instance is synchronised later."""
        while index in self._links.ready():
            try:
                await self._send_difference(index, await self._read(index), after)
                return
            except LinkError:
                await asyncio.sleep(RETRY)

    async def _send_difference(
        self, index: int, before: Mapping[bytes, Rules], after: Mapping[bytes, Rules]
    ) -> None:
        """Make an instance's users those of ``after``."""
        words: list[Words] = []
        for name, rules in after.items():
            if before.get(name) != rules:
                words.append([b"ACL", b"SETUSER", name, *RESET, *setuser_rules(rules)])
                words += self._lane_login(name, rules)
        gone = [name for name in before if name not in after]
        if gone:
            words.append([b"ACL", b"DELUSER", *gone])
        if words:
            await self._run_block(index, words)

    async def _run_block(self, index: int, words: Sequence[Words]) -> None:
        replies = await self._links.raw(index, [[b"MULTI"], *words, [b"EXEC"]])
        if not replies[-1].startswith(b"*"):
            raise LinkError(f"ERR instance {index} refuses the users: {replies[-1]!r}")
        refused = next((one for one in _core.elements(replies[-1]) if one[:1] == b"-"), None)
        if refused:
            raise LinkError(f"ERR instance {index} refuses the users: {refused!r}")

    async def _read(self, index: int) -> dict[bytes, Rules]:
        """Read an instance's users as clients see them."""
        found: dict[bytes, Rules] = {}
        for line in await self._ask(index, b"ACL", b"LIST"):
            _, name, *rules = line.split(b" ")
            if name == own_names.ADMIN:
                self._all_permissions = _permissions(rules)
            elif not own_names.is_ours(name):
                found[name] = self.visible_rules(rules)
        return found

    def visible_rules(self, rules: Rules) -> Rules:
        """Build what clients see of a user's rules."""
        veil = next((veil for veil in self._disabled_marks if veil in rules), None)
        if veil:
            off = [b"off"] if veil == self._disabled_marks[0] else [b"off", b"nopass"]
            rules = [*off, *rules[1:]]
        return [rule for rule in rules if rule not in (self._ours, *self._disabled_marks)]

    async def _ask(self, index: int, *words: bytes) -> Any:
        """Ask an instance; LinkError if it returns an error, for instance because a script runs."""
        reply = await self._links.call(index, *words)
        if isinstance(reply, hiredis.ReplyError):
            raise LinkError(f"TRYAGAIN instance {index}: {reply}")
        return reply

    def is_own_password(self, digest: bytes) -> bool:
        """Whether a password that ACL GETUSER shows is ours."""
        return b"#" + digest in (self._ours, *self._disabled_marks)

    def is_off(self, name: bytes) -> bool:
        """Whether this user cannot log in."""
        return b"off" in self.rules.get(name, [])

    def _publish(self, before: Mapping[bytes, Rules]) -> None:
        """Tell the workers what has changed."""
        for name in before:
            if name not in self.rules:
                del self._ids[name]
                self.version += 1
                self._core.set_user(name, None)
        for name, rules in self.rules.items():
            if before.get(name) == rules:
                continue
            if _permissions(rules) == self._all_permissions:
                self._ids[name] = 0
            elif not self._ids.get(name):
                self._ids[name] = next(self._numbers)
            self.version += 1
            self._core.set_user(name, self._ids[name])
        default = self.rules[DEFAULT]
        self._core.set_open(b"nopass" in default and b"on" in default)
        told = {name: setuser_rules(rules) for name, rules in self.rules.items()}
        self._tell_supervisor(control.Users(told))

    async def _clients_to_close(self, before: Mapping[bytes, Rules]) -> list[int]:
        """Return the clients whose user was deleted; close subscribers that lost the right to a
        channel.
        """
        deaf = {
            name: channels
            for name, rules in self.rules.items()
            if before.get(name) != rules and b"*" not in (channels := _channels(name, rules))
        }
        for name, channels in deaf.items():
            self._core.confine(name, channels)
        gone = {name for name in before if name not in self.rules}
        if not gone and not deaf:
            return []
        await self._clients.of([])  # in another turn than the first answer they are closed
        clients = await self._clients.all()
        return [client.id for client in clients if client.user in gone]

    def reads_all_keys(self, name: bytes) -> bool:
        """Whether a user may read every key, as SORT requires for BY and GET."""
        rules = itertools.takewhile(lambda rule: not rule.startswith(b"("), self.rules[name])
        return not {b"~*", b"%R~*", b"%RW~*"}.isdisjoint(rules)

    def refusal(self, names: Sequence[bytes]) -> bytes | None:
        """Refuse names that are reserved for our own users."""
        if any(own_names.is_ours(name) for name in names):
            return resp.error("ERR threadis: user names that begin with 'threadis-' are reserved")
        return None


def _permissions(rules: Rules) -> Rules:
    return [rule for rule in rules if rule not in LOGIN and not rule.startswith(b"#")]


def _passwords(rules: Rules) -> Rules:
    return [rule for rule in rules if rule.startswith(b"#")]


def _channels(name: bytes, rules: Rules) -> list[bytes]:
    """Return the channel patterns of all rule sets."""
    rights = Rights.parse(name, rules)
    sets = (rights.root, *rights.selectors)
    return [rule[1:] for one in sets for rule in one.others if rule.startswith(b"&")]
