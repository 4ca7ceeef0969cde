"""Commands that are special in a transaction: what they change for the commands after them."""

from typing import Final

# They change what the same client's next commands may do, or how they are answered.
CHANGES_SESSION: Final = frozenset({"auth", "hello", "reset", "client|no-touch"})
CHANGES_CLIENT: Final = frozenset({"auth", "hello"})
# They change which messages the same client gets.
CHANGES_AUDIENCE: Final = frozenset(
    prefix + word for word in ("subscribe", "unsubscribe") for prefix in ("", "p", "s")
)
CHANGES_TRACKING: Final = frozenset({"client|tracking", "client|caching"})
# Settings by which servers refuse what comes: when it is queued, and what scripts call, but no
# other command of EXEC. Nor is anything evicted before EXEC has ended.
REFUSING: Final = frozenset({
    b"maxmemory", b"min-replicas-max-lag", b"min-replicas-to-write", b"min-slaves-max-lag",
    b"min-slaves-to-write", b"stop-writes-on-bgsave-error",
})  # fmt: skip
# They read no keys, and change nothing that the others depend on.
INDEPENDENT: Final = frozenset({
    "acl|cat", "acl|dryrun", "acl|getuser", "acl|list", "acl|log", "acl|save", "acl|users",
    "acl|whoami", "bgrewriteaof", "bgsave", "client|getname", "client|getredir", "client|id",
    "client|info", "client|kill", "client|list", "client|no-evict", "client|pause",
    "client|setinfo", "client|setname", "client|trackinginfo", "client|unblock", "client|unpause",
    "command", "command|count", "command|docs", "command|info", "command|list", "commandlog|get",
    "commandlog|len", "commandlog|reset", "config|get", "config|resetstat", "config|rewrite",
    "function|dump", "function|kill", "function|list", "function|stats", "lastsave",
    "latency|doctor", "latency|graph", "latency|histogram", "latency|history", "latency|latest",
    "latency|reset", "memory|doctor", "memory|malloc-stats", "memory|purge", "pubsub|channels",
    "pubsub|numpat", "pubsub|numsub", "role", "save", "script|debug", "script|exists",
    "script|kill", "script|show", "slowlog|get", "slowlog|len", "slowlog|reset", "unwatch",
    "wait", "waitaof",
    # Their replies are a little later than they would be; SCAN may miss keys that come or go
    # meanwhile.
    "info", "memory|stats", "scan",
})  # fmt: skip
