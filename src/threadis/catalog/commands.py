"""The command table: derived from the server's own COMMAND, plus a few rows that it cannot know.

Every server version and module describes its commands (arity, flags, key specifications, tips);
``derive`` turns that into rows for the workers. ``overrides`` has what the metadata does not say:
the tips are about cluster mode, but our instances are standalone. Commands without a rule are
refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from threadis.catalog.blocking import BLOCKING, FEED_NOTHING, FEEDS
from threadis.catalog.overrides import OVERRIDES, Override


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Where keys are, in the server's own terms; argument 0 is the command's name."""

    index: int = 0  # begin at this argument, unless there is a keyword
    keyword: str = ""  # begin behind this word …
    start_from: int = 1  # … searched from here; negative: backwards from the end
    is_count: bool = False  # the number of keys is an argument
    last: int = 0  # range: the last key, from the beginning, or from the end if negative
    step: int = 1
    limit: int = 0  # range: only this fraction of the rest is keys
    number: int = 0  # count: where the number is, from the beginning
    first: int = 0  # count: where the first key is
    access: str = "RW"  # RO, RW, OW (overwrites), RM (removes): what happens to the value
    deletes: bool = False  # the key may be gone then


@dataclass(frozen=True, slots=True)
class Row:
    """What the workers need to know of one command."""

    name: str  # lower case; a subcommand as "parent|name", "parent|*" for all others
    arity: int
    route: str  # keys, split, all, any, scan, session, pubsub, script, coordinator, refuse
    # The merge of split and all, and of keys that are done in parts if they live on several
    # instances; the verb of session and pubsub
    detail: str = ""
    keys: tuple[KeySpec, ...] = ()
    no_auth: bool = False
    may_replicate: bool = False  # CLIENT PAUSE WRITE holds it back
    writes: bool = False  # may change keys
    needs_memory: bool = False  # refused at maxmemory
    feeds: bool = False  # … in a way that clients that wait for them may get something
    streams: bool = False  # a big argument is sent on while the rest of it comes
    multi_refusal: str = ""  # why it is refused between MULTI and EXEC
    protection: str = ""  # why it is refused, unless an option allows it
    is_open_to_local: bool = False  # clients of this machine may use it nevertheless
    needs_coordinator: bool = False  # in a transaction, although its keys are on one instance
    ends_multi: bool = False  # runs at once between MULTI and EXEC
    blocks: bool = False  # may wait for its keys
    takes_first: bool = False  # … and pops from the first key that has elements
    is_logged: bool = True  # by SLOWLOG
    is_shown: bool = True  # by MONITOR
    touches_keys: bool = False  # reads or writes keys: not for monitors
    special_words: tuple[str, ...] = ()  # options with which the coordinator runs it
    words_until: str = ""  # options end at this word
    traits: tuple[str, ...] = ()  # what is special about it; rust/src/catalog/traits.rs knows them
    refusal: str = ""

    @property
    def may_need_memory(self) -> bool:
        """Whether it may be refused at maxmemory; for scripts their flags decide."""
        return self.needs_memory or self.name in SCRIPTS


# With ``multikey split`` these follow the server's tips.
SPLITTABLE: Final = frozenset({"mset", "del", "unlink"})
# A replica, or redis-cli --rdb or --replica, would get only one instance's data.
REPLICATION: Final = frozenset({"sync", "psync", "replconf"})
# Flags of commands that are in no log, as Redis and Valkey call it
UNLOGGED: Final = frozenset({"skip_slowlog", "skip_commandlog"})
# Run at once between MULTI and EXEC.
ENDS_MULTI: Final = frozenset({"multi", "exec", "discard", "watch", "quit", "reset"})
FLUSHES: Final = frozenset({"flushall", "flushdb"})
SWEEPS: Final = FLUSHES | {"swapdb"}  # they change whole databases
SCRIPTS: Final = frozenset({"eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"})
RUN_BY_WORKERS: Final = frozenset({"eval", "evalsha"})  # once a script is known
# Replicated although they do not write; COMMAND does not say so. Scripts may be, too.
MAY_REPLICATE: Final = frozenset({"pfcount", "publish", "spublish"})
# What is special about a few commands, for workers; a command, or a family of subcommands
TRAITS: Final[Mapping[str, frozenset[str]]] = {
    "is_script": SCRIPTS,
    "waits_for_others": frozenset({*BLOCKING, "wait"}),
    "is_of_group": frozenset({"xreadgroup"}),
    "only_adds": frozenset(FEEDS),
    "has_auth_option": frozenset({"migrate"}),
    "writes_elsewhere": frozenset({"move", "copy"}),
    "keeps_caching": frozenset({"client"}),
}
# One override for all subcommands.
WHOLE_FAMILIES: Final = ("command", "cluster")
# ACL categories of what is no list, sorted set or stream.
STREAMED_CATEGORIES: Final = frozenset({b"@string", b"@hash", b"@set"})
# Refused as a whole; single subcommands may have a row above.
REFUSED_FAMILIES: Final = ("module", "latency")
COORDINATED_FAMILIES: Final = ("script", "function")
REFUSED_FLAGS: Final = ("blocking", "pubsub")

# Refused unless an option of the start allows them.
PROTECTED: Final = {
    "debug": "enable-debug-command",
    **dict.fromkeys(("module|load", "module|loadex", "module|unload"), "enable-module-command"),
}

ACCESSES: Final = ("RO", "RW", "OW", "RM")
MERGES: Final = {
    "agg_sum": "sum",
    "agg_min": "min",
    "agg_max": "max",
    "agg_logical_and": "and",
    "agg_logical_or": "or",
    "all_succeeded": "all_succeeded",
    "one_succeeded": "one_succeeded",
}


def derive(entries: list[Any], *, is_split: bool = False) -> list[Row]:
    """Build the table from the reply of COMMAND (RESP2, as hiredis reads it).

    ``is_split``: the parts of a command in ``SPLITTABLE`` are sent separately.
    """
    # Valkey 9 refuses MULTI inside MULTI like other commands, and names the command.
    words_it = any(entry[0] == b"multi" and b"no_multi" in entry[2] for entry in entries)
    rows: list[Row] = []
    for entry in entries:
        row = _row(entry, "", words_it)
        if is_split and row.name in SPLITTABLE:
            route, detail = _route_by_tips(entry)
            row = replace(row, route=route, detail=detail)
        rows.append(row)
        name = row.name
        subcommands = entry[9] if len(entry) > 9 else []
        rows.extend(_row(sub, name, words_it) for sub in subcommands)
    return _with_missing(rows)


def protect(rows: list[Row], allowed: Mapping[str, str]) -> list[Row]:
    """Close commands that the options of ``PROTECTED`` (no, yes, local) do not allow."""
    return [_protected(row, allowed) for row in rows]


def _protected(row: Row, allowed: Mapping[str, str]) -> Row:
    option = PROTECTED.get(row.name)
    granted = allowed[option] if option else "yes"
    if option is None or granted == "yes":
        return row
    shown = row.name.split("|")[0].upper()
    why = (
        f'ERR {shown} command not allowed. If the {option} option is set to "local", you can '
        "run it from a local connection, otherwise you need to set this option in the "
        "configuration file, and then restart the server."
    )
    return replace(row, protection=why, is_open_to_local=granted == "local")


def _with_missing(rows: list[Row]) -> list[Row]:
    """Add commands that Redis 7.0 has, but does not list."""
    names = {row.name for row in rows}
    if "quit" not in names:
        rows.append(
            Row("quit", -1, "session", "quit", no_auth=True, ends_multi=True, is_shown=False)
        )
    return rows


def _row(entry: list[Any], parent: str, words_it: bool) -> Row:
    name = entry[0].decode().lower()
    family = parent or name
    if parent and "|" not in name:
        name = f"{parent}|{name}"
    flags = {flag.decode() for flag in entry[2]}
    route, detail, override = _route(name, entry, flags)
    return Row(
        name=name,
        arity=entry[1],
        route=route,
        detail=detail,
        keys=_keys(entry, flags),
        no_auth="no_auth" in flags,
        may_replicate="write" in flags or name in MAY_REPLICATE,
        writes="write" in flags,
        needs_memory="denyoom" in flags,
        feeds="write" in flags and name not in FEED_NOTHING,
        streams=route == "keys" and ("write" not in flags or _is_waited_by_nobody(entry)),
        multi_refusal=_multi_refusal(name, flags, words_it),
        needs_coordinator="noscript" in flags or family in SCRIPTS,
        ends_multi=name in ENDS_MULTI and "no_multi" not in flags,
        blocks=name in BLOCKING,
        takes_first=name in BLOCKING and BLOCKING[name].takes_first,
        is_logged=flags.isdisjoint(UNLOGGED),
        is_shown="admin" not in flags and ("skip_monitor" not in flags or family in SCRIPTS),
        touches_keys=not flags.isdisjoint(("readonly", "write")) or name in MAY_REPLICATE | SCRIPTS,
        special_words=override.special_words if override else (),
        words_until=override.words_until if override else "",
        traits=tuple(trait for trait, names in TRAITS.items() if {name, family} & names),
        refusal=_refusal(name),
    )


def _keys(entry: list[Any], flags: set[str]) -> tuple[KeySpec, ...]:
    """Return its key specs; XREADGROUP is said to read only, but its groups change."""
    specs = _key_specs(entry)
    if "write" in flags and all(spec.access == "RO" for spec in specs):
        specs = tuple(replace(spec, access="RW") for spec in specs)
    return specs


def _is_waited_by_nobody(entry: list[Any]) -> bool:
    """Whether it writes only values that no client can wait for.

    While an argument arrives, a client may begin to wait for the key. A push must then serve that
    client, which takes the whole command.
    """
    return not STREAMED_CATEGORIES.isdisjoint(entry[6] if len(entry) > 6 else [])


def _multi_refusal(name: str, flags: set[str], words_it: bool) -> str:
    if "no_multi" not in flags:
        return ""
    which = f"Command '{name}'" if words_it else "Command"
    return f"ERR {which} not allowed inside a transaction"


def _route(name: str, entry: list[Any], flags: set[str]) -> tuple[str, str, Override | None]:
    """Decide how a command is run; commands without a rule are refused."""
    family = name.split("|")[0]
    override = OVERRIDES.get(name if family not in WHOLE_FAMILIES else family)
    if override:
        return override.route, override.detail, override
    if name.endswith("|help"):
        return "any", "", None
    if family in RUN_BY_WORKERS:
        return "script", "", None
    if family in SCRIPTS or (family in COORDINATED_FAMILIES and "|" in name):
        return "coordinator", "", None
    if "blocking" in flags and _key_specs(entry):
        return "coordinator", "", None
    if family in REFUSED_FAMILIES or flags.intersection(REFUSED_FLAGS):
        return "refuse", "", None
    return *_route_by_tips(entry), None


def _route_by_tips(entry: list[Any]) -> tuple[str, str]:
    tips = dict(
        tip.decode().split(":", 1) for tip in (entry[7] if len(entry) > 7 else []) if b":" in tip
    )
    policy = tips.get("request_policy")
    response = tips.get("response_policy")
    merge = MERGES.get(response or "")
    if policy == "multi_shard" and (merge or not response):
        return "split", merge or "keyed"
    if policy in ("all_shards", "all_nodes") and (merge or not response):
        return "all", merge or "concat"
    if policy is None and _key_specs(entry) and not _is_vague(entry):
        return "keys", ""
    return "refuse", ""


def _refusal(name: str) -> str:
    shown = name.replace("|", " ").upper()
    if name in REPLICATION:
        return (
            f"ERR threadis: {shown} is not possible: the data of all "
            "instances is not in one stream; each instance has its dump in the data directory"
        )
    return (
        f"ERR threadis: {shown} is not supported: the server does not report which keys it touches"
    )


def _is_vague(entry: list[Any]) -> bool:
    """Whether the server itself cannot name all keys of the command."""
    specs = [_pairs(spec) for spec in (entry[8] if len(entry) > 8 else [])]
    return any(
        b"incomplete" in spec[b"flags"]
        or _pairs(spec[b"begin_search"])[b"type"] == b"unknown"
        or _pairs(spec[b"find_keys"])[b"type"] == b"unknown"
        for spec in specs
    )


def _key_specs(entry: list[Any]) -> tuple[KeySpec, ...]:
    specs = entry[8] if len(entry) > 8 else []
    if not specs and entry[3] > 0:  # a module without key specifications
        return (KeySpec(index=entry[3], last=_relative(entry), step=max(entry[5], 1)),)
    found = (_key_spec(_pairs(spec)) for spec in specs)
    return tuple(spec for spec in found if spec is not None)


def _relative(entry: list[Any]) -> int:
    """Return the last key as key specs count it: from the first key, unless from the end."""
    last: int = entry[4]
    return last if last < 0 else last - int(entry[3])


def _key_spec(spec: dict[bytes, Any]) -> KeySpec | None:
    begin = _pairs(spec[b"begin_search"])
    find = _pairs(spec[b"find_keys"])
    if b"unknown" in (begin[b"type"], find[b"type"]):
        return None
    where = _pairs(begin[b"spec"])
    how = _pairs(find[b"spec"])
    is_count = find[b"type"] == b"keynum"
    return KeySpec(
        index=where.get(b"index", 0),
        keyword=where.get(b"keyword", b"").decode(),
        start_from=where.get(b"startfrom", 1),
        is_count=is_count,
        last=how.get(b"lastkey", 0),
        step=how[b"keystep"],
        limit=how.get(b"limit", 0),
        number=how.get(b"keynumidx", 0),
        first=how.get(b"firstkey", 0),
        access=next((flag for flag in ACCESSES if flag.encode() in spec[b"flags"]), "RW"),
        deletes=b"delete" in spec[b"flags"],
    )


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    """A RESP2 map, which is a flat array."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
