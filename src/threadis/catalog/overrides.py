"""What the server's own COMMAND does not say of commands: a row each, with its reason."""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Override:
    """How a command is run, where the server's metadata does not say it."""

    route: str
    why: str
    detail: str = ""
    special_words: tuple[str, ...] = field(default=())
    words_until: str = ""


SESSION: Final = "the worker owns the session"
SAME: Final = "the answer is the same on every instance"
MESSAGES: Final = "workers know the subscribers and deliver messages"
MERGED: Final = "merged by the proxy"

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
    "pubsub": Override("any", "the server returns the error"),
    # Run by the coordinator.
    "client|kill": Override("coordinator", "the proxy has the clients, not the instances"),
    "client|pause": Override("coordinator", "the proxy has the clients, not the instances"),
    "client|unpause": Override("coordinator", "the proxy has the clients, not the instances"),
    "client|unblock": Override("coordinator", "the proxy has the clients, not the instances"),
    "client|import-source": Override(
        "coordinator", "it would change a connection that clients share"
    ),
    **dict.fromkeys(
        ("client|tracking", "client|caching", "client|getredir", "client|trackinginfo"),
        Override(
            "coordinator", "instances report changed keys to the proxy, which tells the clients"
        ),
    ),
    "client|list": Override("coordinator", "the proxy has the clients, not the instances"),
    "client|info": Override("coordinator", "the proxy has the clients, not the instances"),
    "monitor": Override(
        "coordinator", "scripts run on the instances, everything else in the proxy"
    ),
    "info": Override("coordinator", MERGED),
    "config|get": Override("coordinator", "some directives are the proxy's"),
    "config|set": Override(
        "coordinator", "on all instances or none; some directives are the proxy's"
    ),
    "config|resetstat": Override("coordinator", "also the proxy's counters"),
    "config|rewrite": Override("coordinator", "what CONFIG SET changed is kept beside the data"),
    "debug": Override("coordinator", "listed without its subcommands"),
    "randomkey": Override(
        "coordinator", "every key is equally likely: instances are weighted by size"
    ),
    "memory|stats": Override("coordinator", MERGED),
    "latency|graph": Override("coordinator", MERGED),
    "shutdown": Override("coordinator", "all of thREaDIS stops"),
    **dict.fromkeys(
        ("module|load", "module|loadex", "module|unload"),
        Override("coordinator", "only at the start"),
    ),
    # Any instance can answer.
    "failover": Override("any", "a primary without replicas"),
    "time": Override("any", "one clock"),
    "pfselftest": Override("any", SAME),
    "lolwut": Override("any", SAME),
    "module|list": Override("any", SAME),
    "command": Override("any", SAME),
    "role": Override("coordinator", "the writes of all instances"),
    "acl|cat": Override("any", SAME),
    "acl|genpass": Override("any", "random anyway"),
    "acl|save": Override("coordinator", "one file for all instances"),
    "acl|load": Override("coordinator", "one file for all instances; all of them, or an error"),
    "acl|whoami": Override("coordinator", "the session has the user"),
    **dict.fromkeys(
        ("acl|setuser", "acl|deluser", "acl|getuser", "acl|list", "acl|users", "acl|dryrun"),
        Override("coordinator", "on all instances; the proxy's own users are hidden"),
    ),
    "acl|log": Override("coordinator", MERGED),
    "readonly": Override("any", "every standalone server refuses it, with its own error"),
    "readwrite": Override("any", "every standalone server refuses it, with its own error"),
    "asking": Override("any", "every standalone server refuses it, with its own error"),
    "cluster": Override("any", "every standalone server refuses it, with its own error"),
    "clusterscan": Override("any", "every standalone server refuses it, with its own error"),
    # One instance after the other.
    "scan": Override("scan", "the cursor carries the instance"),
    # Another database may have its keys elsewhere, and the servers have more of them.
    "move": Override("coordinator", "reaches another database"),
    "copy": Override("keys", "DB reaches another database", special_words=("DB",)),
    # The metadata is not sufficient.
    "sort": Override("keys", "BY, GET and STORE name keys", special_words=("BY", "GET", "STORE")),
    "sort_ro": Override("keys", "BY and GET name keys", special_words=("BY", "GET")),
    "xread": Override("keys", "blocks", special_words=("BLOCK",), words_until="STREAMS"),
    "xreadgroup": Override("keys", "blocks", special_words=("BLOCK",), words_until="STREAMS"),
    "msetex": Override("keys", "all or nothing"),
    "msetnx": Override("keys", "asks all keys at once; Redis 7.0 says that it may be split"),
    "mset": Override("keys", "all or nothing", "all_succeeded"),
    "del": Override("keys", "all or nothing", "sum"),
    "unlink": Override("keys", "all or nothing", "sum"),
    "flushall": Override("coordinator", "alone with the whole keyspace"),
    "flushdb": Override("coordinator", "alone with the whole keyspace"),
    "swapdb": Override("coordinator", "alone with the whole keyspace"),
    "migrate": Override("coordinator", "its keys may be anywhere"),
    # The tips are about cluster mode, where no other commands have connections or scripts.
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
    "replicaof": Override("coordinator", "a primary stays a primary"),
    "slaveof": Override("coordinator", "a primary stays a primary"),
    "waitaof": Override("coordinator", "asks all instances"),
}
