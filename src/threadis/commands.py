"""The command table: derived from the server's own COMMAND, plus a few rows that it cannot know.

Every server version and module describes its commands (arity, flags, key specifications, tips);
``derive`` turns that into rows for the workers. ``OVERRIDES`` says what metadata cannot: the tips
speak of cluster mode, our instances are standalone. A command that no rule places is refused.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final


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
    route: str  # keys, split, all, any, scan, session, pubsub, coordinator, refuse
    detail: str = ""  # the merge of split and all; the verb of session and pubsub
    keys: tuple[KeySpec, ...] = ()
    no_auth: bool = False
    may_replicate: bool = False  # CLIENT PAUSE WRITE holds it back
    writes: bool = False  # may change keys
    needs_memory: bool = False  # refused at maxmemory
    feeds: bool = False  # … so that a client that waits for them gets something
    streams: bool = False  # a big argument is sent on while the rest of it comes
    multi_refusal: str = ""  # why it is refused between MULTI and EXEC
    needs_coordinator: bool = False  # in a transaction, although its keys are on one instance
    ends_multi: bool = False  # runs at once between MULTI and EXEC
    blocks: bool = False  # may wait for its keys
    is_logged: bool = True  # by SLOWLOG
    is_shown: bool = True  # by MONITOR
    touches_keys: bool = False  # reads or writes keys: not for monitors
    special_words: tuple[str, ...] = ()  # options with which the coordinator runs it
    words_until: str = ""  # options end at this word
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """How a command is done, where the server's metadata does not say it."""

    route: str
    why: str
    detail: str = ""
    special_words: tuple[str, ...] = field(default=())
    words_until: str = ""


SESSION: Final = "the worker owns the session"
SAME: Final = "the answer is the same on every instance"
MESSAGES: Final = "workers know who is subscribed, and deliver"
MERGED: Final = "merged by hand"

OVERRIDES: Final[dict[str, Override]] = {
    # The session is the worker's.
    "ping": Override("session", SESSION, "ping"),
    "echo": Override("session", SESSION, "echo"),
    "quit": Override("session", SESSION, "quit"),
    "reset": Override("session", SESSION, "reset"),
    "hello": Override("session", SESSION, "hello"),
    "auth": Override("session", SESSION, "auth"),
    "select": Override("session", SESSION, "select"),
    "multi": Override("session", SESSION, "multi"),
    "exec": Override("session", SESSION, "exec"),
    "discard": Override("session", SESSION, "discard"),
    "watch": Override("session", SESSION, "watch"),
    "unwatch": Override("coordinator", "it watches"),
    "client|id": Override("session", SESSION, "client|id"),
    "client|getname": Override("session", SESSION, "client|getname"),
    "client|setname": Override("session", SESSION, "client|setname"),
    "client|setinfo": Override("session", SESSION, "client|setinfo"),
    "client|no-evict": Override("session", SESSION, "client|no-evict"),
    "client|no-touch": Override("session", SESSION, "client|no-touch"),
    "client|reply": Override("session", SESSION, "client|reply"),
    "client|capa": Override("session", SESSION, "client|capa"),
    # Workers deliver messages.
    "subscribe": Override("pubsub", MESSAGES, "subscribe"),
    "psubscribe": Override("pubsub", MESSAGES, "psubscribe"),
    "ssubscribe": Override("pubsub", MESSAGES, "ssubscribe"),
    "unsubscribe": Override("pubsub", MESSAGES, "unsubscribe"),
    "punsubscribe": Override("pubsub", MESSAGES, "punsubscribe"),
    "sunsubscribe": Override("pubsub", MESSAGES, "sunsubscribe"),
    "publish": Override("pubsub", MESSAGES, "publish"),
    "spublish": Override("pubsub", MESSAGES, "spublish"),
    "pubsub|channels": Override("pubsub", MESSAGES, "channels"),
    "pubsub|shardchannels": Override("pubsub", MESSAGES, "shardchannels"),
    "pubsub|numsub": Override("pubsub", MESSAGES, "numsub"),
    "pubsub|shardnumsub": Override("pubsub", MESSAGES, "shardnumsub"),
    "pubsub|numpat": Override("pubsub", MESSAGES, "numpat"),
    "pubsub": Override("any", "the server says what is wrong with it"),
    # Python knows better.
    "client|kill": Override("coordinator", "clients are ours, not the instances'"),
    "client|pause": Override("coordinator", "clients are ours, not the instances'"),
    "client|unpause": Override("coordinator", "clients are ours, not the instances'"),
    "client|unblock": Override("coordinator", "clients are ours, not the instances'"),
    "client|import-source": Override("coordinator", "no lane may change its state"),
    **dict.fromkeys(
        ("client|tracking", "client|caching", "client|getredir", "client|trackinginfo"),
        Override("coordinator", "instances tell us of changed keys, and we the clients"),
    ),
    "client|list": Override("coordinator", "clients are ours, not the instances'"),
    "client|info": Override("coordinator", "clients are ours, not the instances'"),
    "monitor": Override("coordinator", "scripts run on the instances, all else here"),
    "info": Override("coordinator", MERGED),
    "config|get": Override("coordinator", "some directives are ours"),
    "config|set": Override("coordinator", "on all instances or none; some directives are ours"),
    "config|resetstat": Override("coordinator", "our own counters too"),
    "config|rewrite": Override("coordinator", "the instances have no files of their own"),
    "debug": Override("coordinator", "listed without its subcommands"),
    "randomkey": Override("coordinator", "every key should be as likely: weighted by size"),
    "memory|stats": Override("coordinator", MERGED),
    "latency|graph": Override("coordinator", MERGED),
    "shutdown": Override("coordinator", "all of thREaDIS stops"),
    **dict.fromkeys(
        ("module|load", "module|loadex", "module|unload"),
        Override("coordinator", "only at the start"),
    ),
    # Any instance knows.
    "failover": Override("any", "a primary without replicas"),
    "time": Override("any", "one clock"),
    "pfselftest": Override("any", SAME),
    "lolwut": Override("any", SAME),
    "module|list": Override("any", SAME),
    "command": Override("any", SAME),
    "role": Override("any", "a primary without replicas"),
    "acl|cat": Override("any", SAME),
    "acl|genpass": Override("any", "random anyway"),
    "acl|save": Override("any", "there is no file: refused, in the server's words"),
    "acl|load": Override("any", "there is no file: refused, in the server's words"),
    "acl|whoami": Override("coordinator", "the session says who"),
    **dict.fromkeys(
        ("acl|setuser", "acl|deluser", "acl|getuser", "acl|list", "acl|users", "acl|dryrun"),
        Override("coordinator", "on all instances; some users are ours"),
    ),
    "acl|log": Override("coordinator", MERGED),
    "readonly": Override("any", "refused by every standalone server, in its words"),
    "readwrite": Override("any", "refused by every standalone server, in its words"),
    "asking": Override("any", "refused by every standalone server, in its words"),
    "cluster": Override("any", "refused by every standalone server, in its words"),
    # One instance after the other.
    "scan": Override("scan", "the cursor carries the instance"),
    # Another database may have its keys elsewhere, and the servers have more of them.
    "move": Override("coordinator", "reaches another database"),
    "copy": Override("keys", "DB reaches another database", special_words=("DB",)),
    # Metadata that says too little.
    "sort": Override("keys", "BY, GET and STORE name keys", special_words=("BY", "GET", "STORE")),
    "sort_ro": Override("keys", "BY and GET name keys", special_words=("BY", "GET")),
    "xread": Override("keys", "blocks", special_words=("BLOCK",), words_until="STREAMS"),
    "xreadgroup": Override("keys", "blocks", special_words=("BLOCK",), words_until="STREAMS"),
    "msetex": Override("keys", "all or nothing"),
    "msetnx": Override("keys", "asks all keys at once; Redis 7.0 says that it may be split"),
    "mset": Override("keys", "all or nothing"),
    "del": Override("keys", "all or nothing"),
    "unlink": Override("keys", "all or nothing"),
    "flushall": Override("coordinator", "alone with the whole keyspace"),
    "flushdb": Override("coordinator", "alone with the whole keyspace"),
    "swapdb": Override("coordinator", "alone with the whole keyspace"),
    "migrate": Override("coordinator", "its keys may be anywhere"),
    # The tips mean cluster mode, where lanes and scripts are nobody else's.
    **dict.fromkeys(
        (f"{log}|{name}" for log in ("slowlog", "commandlog") for name in ("get", "len", "reset")),
        Override("coordinator", "entries need one order and unique ids"),
    ),
    **dict.fromkeys(
        ("latency|history", "latency|latest", "latency|histogram", "latency|reset"),
        Override("coordinator", MERGED),
    ),
    **dict.fromkeys(
        ("latency|doctor", "memory|doctor", "memory|malloc-stats"),
        Override("coordinator", "a text about each instance"),
    ),
    **dict.fromkeys(
        ("save", "bgsave", "bgrewriteaof", "memory|purge"),
        Override("coordinator", "on all instances, however long it takes"),
    ),
    "lastsave": Override("coordinator", "the oldest"),
    "wait": Override("coordinator", "there are no replicas"),
    "replicaof": Override("coordinator", "a primary stays one"),
    "slaveof": Override("coordinator", "a primary stays one"),
    "waitaof": Override("coordinator", "asks all instances"),
}

# With ``multikey split``: as the server's tips say.
SPLITTABLE: Final = frozenset({"mset", "del", "unlink"})
# A replica, or redis-cli with --rdb or --replica, would get one instance's data.
REPLICATION: Final = frozenset({"sync", "psync", "replconf"})
# Run at once between MULTI and EXEC.
ENDS_MULTI: Final = frozenset({"multi", "exec", "discard", "watch", "quit", "reset"})
SCRIPTS: Final = frozenset({"eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"})
# Replicated although they do not write, which COMMAND does not say; of scripts only they know.
MAY_REPLICATE: Final = frozenset({"pfcount", "publish", "spublish"})
# One override for all subcommands.
WHOLE_FAMILIES: Final = ("command", "cluster")
# They write, but nothing that a client waits for; consumers of a stream use them all the time.
FEEDS_NOBODY: Final = frozenset({"xack", "xclaim", "xautoclaim", "xreadgroup", "xdel", "xtrim"})
# ACL categories of what is no list, sorted set or stream.
STREAMED_CATEGORIES: Final = frozenset({b"@string", b"@hash", b"@set"})
# Refused as a whole until their issue is done; single subcommands may have a row above.
REFUSED_FAMILIES: Final = ("module", "latency")
COORDINATED_FAMILIES: Final = ("script", "function")
REFUSED_FLAGS: Final = ("blocking", "pubsub")

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

    ``is_split`` lets each part of a command in ``SPLITTABLE`` go its own way.
    """
    # Valkey 9 refuses MULTI inside MULTI like any other, and names the command.
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


def _with_missing(rows: list[Row]) -> list[Row]:
    """Add what Redis 7.0 does not list although it knows it."""
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
        keys=_key_specs(entry),
        no_auth="no_auth" in flags,
        may_replicate="write" in flags or name in MAY_REPLICATE,
        writes="write" in flags,
        needs_memory="denyoom" in flags,
        feeds="write" in flags and name not in FEEDS_NOBODY,
        streams=route == "keys" and ("write" not in flags or _is_waited_by_nobody(entry)),
        multi_refusal=_multi_refusal(name, flags, words_it),
        needs_coordinator="noscript" in flags or family in SCRIPTS,
        ends_multi=name in ENDS_MULTI and "no_multi" not in flags,
        blocks="blocking" in flags and bool(_key_specs(entry)),
        is_logged="skip_slowlog" not in flags,
        is_shown="admin" not in flags and ("skip_monitor" not in flags or family in SCRIPTS),
        touches_keys=not flags.isdisjoint(("readonly", "write")) or name in MAY_REPLICATE | SCRIPTS,
        special_words=override.special_words if override else (),
        words_until=override.words_until if override else "",
        refusal=_refusal(name, override),
    )


def _is_waited_by_nobody(entry: list[Any]) -> bool:
    """Whether it writes only values for which no client can wait.

    While an argument comes, a client may begin to wait for the key: a push must then be seen by
    that client first, which takes the whole command.
    """
    return not STREAMED_CATEGORIES.isdisjoint(entry[6] if len(entry) > 6 else [])


def _multi_refusal(name: str, flags: set[str], words_it: bool) -> str:
    if "no_multi" not in flags:
        return ""
    which = f"Command '{name}'" if words_it else "Command"
    return f"ERR {which} not allowed inside a transaction"


def _route(name: str, entry: list[Any], flags: set[str]) -> tuple[str, str, Override | None]:
    """Say how a command is done; unplaced commands are refused."""
    family = name.split("|")[0]
    override = OVERRIDES.get(name if family not in WHOLE_FAMILIES else family)
    if override:
        return override.route, override.detail, override
    if name.endswith("|help"):
        return "any", "", None
    if family in SCRIPTS or (family in COORDINATED_FAMILIES and "|" in name):
        return "refuse" if name == "script|debug" else "coordinator", "", None
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


def _refusal(name: str, override: Override | None = None) -> str:
    shown = name.replace("|", " ").upper()
    if name in REPLICATION:
        return (
            f"ERR threadis: {shown} is not possible: no single stream has the data of all "
            "instances; their dumps are in the data directory"
        )
    if override and override.special_words:
        words = ", ".join(override.special_words)
        return f"ERR threadis: {shown} with {words} is not supported yet"
    return f"ERR threadis: {shown} is not supported yet"


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
    """The last key as key specifications count it: from the first, unless from the end."""
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
