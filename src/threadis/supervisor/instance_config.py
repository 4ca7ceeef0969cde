"""The configuration text of an instance, which it reads from standard input."""

from pathlib import Path

from threadis import own_names
from threadis.config.config import Config
from threadis.config.directives import OF_CLIENTS, quote
from threadis.data.integrity import FileConfig
from threadis.supervisor.server import ServerBinary

# Connections an instance accepts: few clients may still need many lanes, and the supervisor asks
LEAST_LANES, SPARE_LANES = 10_000, 32
REPLICA_WAIT = 10  # seconds the server waits for replicas at its end; there are none
# Directives that name files, by the field of ``FileConfig`` that has the servers' default
FILE_NAMES = {"dump": "dbfilename", "folder": "appenddirname", "log": "appendfilename"}


def text(
    config: Config,
    server: ServerBinary,
    *,
    instances: int,
    folder: Path,
    socket: str,
    password: str,
    is_logged: bool,
) -> bytes:
    """Build the directives of one instance; ``--set`` comes last and takes precedence."""
    lines = [
        "port 0",
        f"unixsocket {quote(socket)}",
        "unixsocketperm 700",
        f"dir {quote(str(folder))}",
        f"logfile {quote(str(folder / 'server.log'))}",
        "daemonize no",
        # Ours, hidden from clients; the others are theirs
        f"user {own_names.ADMIN.decode()} on >{password} ~* &* +@all",
        f"user {own_names.NOBODY.decode()} on >{password} resetkeys resetchannels -@all",
        "protected-mode yes",
        # Through the proxy every client looks local: "local" is judged there
        f"enable-debug-command {yes_if_any(config.enable_debug_command)}",
        f"enable-module-command {yes_if_any(config.enable_module_command)}",
        f"enable-protected-configs {yes_if_any(config.enable_protected_configs)}",
        f"databases {config.databases + own_names.HIDDEN_DATABASES}",
        f"maxclients {max(LEAST_LANES, config.maxclients) + SPARE_LANES}",
        "timeout 0",  # a lane may be idle; clients' time-outs are the proxy's
        "tcp-backlog 511",
        "client-output-buffer-limit pubsub 0 0 0",  # one connection receives for all subscribers
        f"shutdown-timeout {REPLICA_WAIT}",
        f"maxmemory {share(config.maxmemory, instances)}",
        f"maxmemory-policy {config.maxmemory_policy}",
        f"appendonly {'yes' if is_logged else 'no'}",
    ]
    if config.requirepass:
        lines.append(f"requirepass {quote(config.requirepass)}")
    if config.save is not None:
        lines.append(f"save {config.save or quote('')}")
    if server.hides_user_data:
        lines.append("hide-user-data-from-log yes")
    lines.extend(f"{name} {value}" for name, value in config.set.items() if name not in OF_CLIENTS)
    return "".join(f"{line}\n" for line in lines).encode()


def yes_if_any(allowed: str) -> str:
    """Return the instance's value of an option that we grant to some or all clients."""
    return "no" if allowed == "no" else "yes"


def share(maxmemory: int, instances: int) -> int:
    """Return an instance's share of the memory, in bytes; never 0, which would mean no limit."""
    return max(1, maxmemory // instances) if maxmemory else 0


def wanted(config: Config) -> FileConfig:
    """Return what the configuration says of an instance's files."""
    names = {
        field: config.set[name].strip("\"'")
        for field, name in FILE_NAMES.items()
        if name in config.set
    }
    return FileConfig(**names, is_logged=config.appendonly, databases=config.databases)
