"""``--set``: which of the stock server's directives may be passed through to the instances."""

import re

from threadis.config import values
from threadis.errors import ConfigError

# Directives about clients, which the proxy applies
OF_CLIENTS = ("client-output-buffer-limit", "client-query-buffer-limit", "maxmemory-clients")
# Directives for which we have a flag, because they concern all instances together.
FLAG_INSTEAD = {
    "aclfile": "--aclfile",
    "appendonly": "--appendonly",
    "bind": "--host",
    "databases": "--databases",
    "dir": "--dir",
    "enable-debug-command": "--enable-debug-command",
    "enable-module-command": "--enable-module-command",
    "enable-protected-configs": "--enable-protected-configs",
    "maxclients": "--maxclients",
    "maxmemory": "--maxmemory",
    "maxmemory-policy": "--maxmemory-policy",
    "port": "--port",
    "protected-mode": "--protected-mode",
    "requirepass": "--requirepass-file",
    "save": "--save",
    "server_cpulist": "--pin",
    "server-cpulist": "--pin",
    "tcp-backlog": "--tcp-backlog",
    "tcp-keepalive": "--tcp-keepalive",
    "timeout": "--timeout",
    "unixsocket": "--unixsocket",
    "user": "users = [...] in the configuration file, or --aclfile",
    "unixsocketgroup": "--unixsocketgroup",
    "unixsocketperm": "--unixsocketperm",
}

# Directives that would break our control of an instance, with the reason.
OURS = {
    "bio_cpulist": "threadis pins the instances",
    "aof_rewrite_cpulist": "threadis pins the instances",
    "bgsave_cpulist": "threadis pins the instances",
    "daemonize": "instances stay children of the supervisor",
    "include": "pass each directive with its own --set",
    "logfile": "each instance writes to server.log in its own directory",
    "masterauth": "instances do not replicate",
    "masteruser": "instances do not replicate",
    "pidfile": "instances stay children of the supervisor",
    "primaryauth": "instances do not replicate",
    "primaryuser": "instances do not replicate",
    "rename-command": "the proxy relies on the commands' own names",
    "replicaof": "instances do not replicate",
    "slaveof": "instances do not replicate",
    "supervised": "instances stay children of the supervisor",
    "syslog-enabled": "each instance writes to server.log in its own directory",
}
OUR_PREFIXES = {
    "cluster-": "instances run without cluster mode; threadis keeps the slot map",
    "tls-": "instances listen on Unix sockets only",
}


# Directives about clients that are parsed here.
INPUT_LIMIT = "client-query-buffer-limit"
INPUT_LIMIT_LEAST = 1024**2  # bytes; the servers' own
CLIENT_MEMORY = "maxmemory-clients"
ARGUMENT_LIMIT = "proto-max-bulk-len"
ARGUMENT_LIMIT_LEAST = 1024**2  # bytes; the servers' own


def check(name: str, value: str) -> tuple[str, str]:
    """Check a directive for the instances; return its name in lower case, and its value."""
    lower = name.lower()
    if not re.fullmatch(r"[a-z0-9_.-]+", lower):
        raise ConfigError(f"set: {name!r} is not a directive's name; write --set NAME=VALUE")
    if lower in FLAG_INSTEAD:
        raise ConfigError(f"set {lower}: threadis controls this; use {FLAG_INSTEAD[lower]} instead")
    reason = OURS.get(lower) or next(
        (why for prefix, why in OUR_PREFIXES.items() if lower.startswith(prefix)), None
    )
    if reason:
        raise ConfigError(f"set {lower}: not possible, {reason}; leave it out")
    if not value.strip() or re.search(r"[\r\n\0]", value):
        raise ConfigError(
            f"set {lower}: the value must be one line that is not empty; "
            f"write '{lower}=\"\"' for an empty one"
        )
    values.text(f"set {lower}", value)
    _check_of_clients(lower, value.strip())
    return lower, value.strip()


def _check_of_clients(name: str, value: str) -> None:
    if name == INPUT_LIMIT and values.memory(name, value) < INPUT_LIMIT_LEAST:
        raise ConfigError(f"set {name}: {value!r} is less than the least, 1mb")
    if name == ARGUMENT_LIMIT:
        values.memory(name, value)
    if name == CLIENT_MEMORY and not re.fullmatch(r"[0-9]{1,2}%|100%", value):
        values.memory(name, value)


def parse(pair: str) -> tuple[str, str]:
    """Parse ``NAME=VALUE`` as typed after ``--set``."""
    name, equals, value = pair.partition("=")
    if not equals:
        raise ConfigError(f"set: {pair!r} has no '='; write --set NAME=VALUE")
    return check(name.strip(), value)


def quote(value: str) -> str:
    """Quote a value as the servers' configuration files do."""
    return '"' + re.sub(r'[\\"]', r"\\\g<0>", value) + '"'
