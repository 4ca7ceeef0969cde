"""What a restricted user may do, so that the sandbox user of its script may do no more.

A user's rules are several sets: the root permissions, and selectors. A command is allowed if one of
them allows all of it. A sandbox user gets the same sets, but with only the script's own keys, as
far as the original key patterns allow them.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from threadis import _core

# Rules that say how a user logs in, not what it may do.
LOGIN = frozenset((b"on", b"off", b"nopass", b"sanitize-payload", b"skip-sanitize-payload"))
DATABASES = b"db="
PATTERNS = (b"~", b"%", b"&")  # begin rules of keys and channels
# In a selector: quotes, what seems to end it, and what Valkey loses.
SPECIAL = re.compile(rb"[\"')\xff]")
CLASS = re.compile(rb"\[(\^?)([^]]+)\]")  # begins a pattern of ours
KEY_RULE = re.compile(rb"(?:%(R|W|RW|WR))?~(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Keys that may be read, or written, or both."""

    glob: bytes
    reads: bool
    writes: bool

    def matches(self, key: bytes) -> bool:
        """Whether it matches a key."""
        return _core.glob_matches(self.glob, key)


# What ``~*`` says, which is no pattern to servers; beside others it is one, and servers show it as
# the same though they refuse to be told it so.
ALL_KEYS = Pattern(b"*", reads=True, writes=True)


def _prefix(reads: bool, writes: bool) -> bytes:
    return b"~" if reads and writes else b"%R~" if reads else b"%W~"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The root permissions, or a selector."""

    patterns: list[Pattern]
    databases: list[bytes] | None  # None: all
    others: list[bytes]  # commands and channels, in order

    @classmethod
    def parse(cls, rules: Sequence[bytes]) -> "RuleSet":
        """Read rules as ACL LIST writes them."""
        patterns, databases, others = [], None, []
        for rule in rules:
            found = KEY_RULE.fullmatch(rule)
            if found:
                access = found[1] or b"RW"
                patterns.append(Pattern(found[2], b"R" in access, b"W" in access))
            elif rule.startswith(DATABASES):
                databases = rule.removeprefix(DATABASES).split(b",")
            elif rule not in LOGIN and not rule.startswith(b"#"):
                others.append(rule)
        return cls(patterns, databases, others)

    def matching(self, key: bytes) -> list[Pattern]:
        """Find the patterns that match a key."""
        if self.patterns == [ALL_KEYS]:
            return self.patterns
        return [one for one in self.patterns if one.matches(key)]

    def rules(
        self, keys: dict[bytes, list[bytes]] | None, denied: Collection[bytes], *, only_reads: bool
    ) -> list[bytes]:
        """Build the same set for these keys, each with its patterns; ``keys`` None: all keys that
        the user may touch.
        """
        made = [*self.others, *(b"-" + name for name in denied)]
        if keys is None:
            return _with_explicit_access(
                made + [_prefix(one.reads, one.writes) + one.glob for one in self.patterns]
            )
        for key, patterns in keys.items():
            # What reads and writes a key needs one pattern that lets it do both.
            found = {(one.reads, one.writes and not only_reads) for one in self.matching(key)}
            if (True, True) in found:
                made += [_prefix(reads=True, writes=True) + pattern for pattern in patterns]
                continue
            if (True, False) in found:
                made += [_prefix(reads=True, writes=False) + pattern for pattern in patterns]
                patterns = list(map(_spelled_otherwise, patterns))
            if (False, True) in found:
                made += [_prefix(reads=False, writes=True) + one for one in patterns if one]
        return made


def _spelled_otherwise(pattern: bytes) -> bytes:
    """Write a pattern in another way: servers merge rules with the same text. For the empty key
    there is no other way.
    """
    if found := CLASS.match(pattern):
        negation, inside = found.groups()
        return b"[" + negation + inside * 2 + b"]" + pattern[found.end() :]
    if pattern.startswith(b"\\"):
        return b"[" + pattern[:2] + b"]" + pattern[2:]
    return pattern and b"\\" + pattern


@dataclass(frozen=True, slots=True)
class Rights:
    """All rule sets of a user."""

    user: bytes
    root: RuleSet
    selectors: list[RuleSet]

    @classmethod
    def parse(cls, user: bytes, rules: Sequence[bytes]) -> "Rights":
        """Read a line of ACL LIST, without the name; selectors are in parentheses."""
        root, selectors = _sets(rules)
        return cls(user, RuleSet.parse(root), [RuleSet.parse(one) for one in selectors])

    def may_touch(self, key: bytes) -> bool:
        """Whether some set lets a key be read or written."""
        return any(one.matching(key) for one in (self.root, *self.selectors))

    def may_write(self, key: bytes) -> bool:
        """Whether some set lets a key be written."""
        sets = (self.root, *self.selectors)
        return any(found.writes for one in sets for found in one.matching(key))

    def has_arguments(self, command: bytes) -> bool:
        """Whether some set allows a command with certain first arguments only."""
        rule = b"+%b|" % command
        return any(
            other.startswith(rule) for one in (self.root, *self.selectors) for other in one.others
        )

    def has_databases(self) -> bool:
        """Whether some set is limited to certain databases."""
        return any(one.databases is not None for one in (self.root, *self.selectors))

    def rules(
        self,
        keys: dict[bytes, list[bytes]] | None,
        denied: Collection[bytes],
        copies: tuple[int, int] | None,
        *,
        only_reads: bool,
    ) -> list[bytes]:
        """Build a sandbox user's rules; ``copies``: a database, and the one with its copies."""

        def made(one: RuleSet) -> list[bytes]:
            rules = one.rules(keys, denied, only_reads=only_reads)
            if one.databases is None:
                return rules
            databases = one.databases
            if copies is not None:
                if b"%d" % copies[0] not in databases:
                    return []
                databases = [*databases, b"%d" % copies[1]]
            return [*rules, DATABASES + b",".join(databases)]

        selectors = [_selector(rules) for rules in map(made, self.selectors) if rules]
        return [*(made(self.root) or [b"-@all"]), *selectors]


def setuser_rules(rules: Sequence[bytes]) -> list[bytes]:
    """Build the SETUSER arguments for what ACL LIST shows."""
    root, selectors = _sets(rules)
    return [*_with_explicit_access(root), *map(_selector, map(_with_explicit_access, selectors))]


def _with_explicit_access(rules: list[bytes]) -> list[bytes]:
    """Write a pattern of all keys as servers accept it beside other patterns."""
    if sum(KEY_RULE.fullmatch(rule) is not None for rule in rules) < 2:
        return rules
    return [b"%RW" + rule if rule == b"~*" else rule for rule in rules]


def _sets(rules: Sequence[bytes]) -> tuple[list[bytes], list[list[bytes]]]:
    """Split the rules of ACL LIST into the root permissions and the selectors."""
    root: list[bytes] = []
    selectors: list[list[bytes]] = []
    is_inside = False
    for rule in rules:
        if not is_inside and not rule.startswith(b"("):
            root.append(rule)
            continue
        if not is_inside:
            selectors.append([])
            rule = rule[1:]
        # The last rule is one of commands: what else ends so is part of a pattern.
        is_inside = rule.startswith(PATTERNS) or not rule.endswith(b")")
        selectors[-1].append(rule if is_inside else rule[:-1])
    return root, selectors


def _selector(rules: Sequence[bytes]) -> bytes:
    """Write a selector; in it servers interpret quotes as on a command line."""
    return b"(" + b" ".join(map(_quoted, rules)) + b")"


def _quoted(rule: bytes) -> bytes:
    if not SPECIAL.search(rule):
        return rule
    quoted = re.sub(rb'[\\"]', rb"\\\g<0>", rule).replace(b"\xff", rb"\xff")
    return b'"' + quoted + b'"'
