"""The configuration: every knob once, with its default, its unit and its parser.

The command line and the TOML file are both made from this list: a knob ``maxmemory_policy`` is the
flag ``--maxmemory-policy`` and the TOML key ``maxmemory-policy``. Flags take precedence.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threadis.config import directives, values
from threadis.config import placement as placing
from threadis.errors import ConfigError
from threadis.system import file_errors

MAX_INSTANCES = 256
MAX_WORKERS = 128
POLICIES = (
    "noeviction",
    *(f"{keys}-{how}" for keys in ("allkeys", "volatile") for how in ("lru", "lfu", "random")),
    "volatile-ttl",
)
ALLOWED = ("no", "yes", "local")  # for no client, for all, for clients on this machine

# The groups of ``--help``
LISTEN, CORES, DATA, LIMITS, SERVER = "Listening", "Cores", "Data", "Clients", "Stock server"


@dataclasses.dataclass(frozen=True)
class Knob:
    """What the command line and the TOML file need to know of a field."""

    read: values.Reader[Any]
    panel: str
    metavar: str
    help: str
    is_flag: bool = True  # False: the TOML file only, because argv is public
    is_list: bool = False  # a flag that may be repeated; a list in TOML


def _knob(
    default: Any,
    read: values.Reader[Any],
    panel: str,
    metavar: str,
    text: str,
    *,
    is_flag: bool = True,
    is_list: bool = False,
) -> Any:
    knob = Knob(read, panel, metavar, text, is_flag, is_list)
    return dataclasses.field(default=default, metadata={"knob": knob})


_PORT, _ANY = values.auto_or_number(0, 65535), values.number(0, 2**31 - 1)
_SOME = values.number(1, 2**31 - 1)


# One knob a line, as in a table.
# fmt: off
@dataclasses.dataclass(frozen=True)
class Config:
    """The checked configuration of ``threadis serve``."""

    host: str = _knob("127.0.0.1", values.addresses, LISTEN, "ADDRESSES", "Addresses to listen on, separated by spaces; * is every interface.")
    port: int | None = _knob(6379, _PORT, LISTEN, "PORT|auto", "TCP port; auto: a free one, which is printed; 0: none, only --unixsocket.")
    unixsocket: str | None = _knob(None, values.path, LISTEN, "PATH", "Also listen on this Unix socket.")
    unixsocketperm: int | None = _knob(None, values.permissions, LISTEN, "MODE", "Mode of the Unix socket, as 770; write permission allows to connect (default: by umask)")
    unixsocketgroup: str | None = _knob(None, values.filled("group"), LISTEN, "GROUP", "Group of the Unix socket.")
    tcp_backlog: int = _knob(511, _SOME, LISTEN, "N", "Maximum number of connections that wait to be accepted.")
    protected_mode: bool = _knob(True, values.yes_or_no, LISTEN, "yes|no", "Without a password, accept only clients on loopback or the Unix socket.")
    requirepass: str | None = _knob(None, values.text, LISTEN, "PASSWORD", "Password that clients must give.", is_flag=False)
    requirepass_file: str | None = _knob(None, values.path, LISTEN, "FILE", "File with the password that clients must give.")
    users: tuple[str, ...] = _knob((), values.user_lines, LISTEN, "USERS", "ACL users, each as in an ACL file: 'bob on #DIGEST ~b:* +@all'.", is_flag=False, is_list=True)
    aclfile: str | None = _knob(None, values.path, LISTEN, "FILE", "ACL file with the users, also for ACL SAVE and ACL LOAD (default: users.acl in --dir)")
    instances: int | None = _knob(None, values.auto_or_number(1, MAX_INSTANCES), CORES, "N|auto", "Number of stock servers; auto: as many as the existing data has, else about 5 for every 12 CPUs.")
    workers: int | None = _knob(None, values.auto_or_number(1, MAX_WORKERS), CORES, "N|auto", "Number of proxy threads; auto: about 7 for every 12 CPUs.")
    pin: tuple[int, ...] | None = _knob(None, values.pinning, CORES, "auto|no|CPUS", "CPUs that workers and instances are pinned to, as 0-3,8; auto: free ones; no pinning under a CPU quota.")
    dir: str = _knob("threadis-data", values.path, DATA, "DIR", "Data directory; created if missing.")
    maxmemory: int = _knob(0, values.memory, DATA, "SIZE", "Memory for all instances together, as 100mb or 8gb; 0: no limit.")
    maxmemory_policy: str = _knob("noeviction", values.one_of(*POLICIES), DATA, "POLICY", "What to evict when the memory is full.")
    appendonly: bool = _knob(False, values.yes_or_no, DATA, "yes|no", "Log every write (AOF), so that no data is lost when a process is killed.")
    save: str | None = _knob(None, values.save_points, DATA, "POINTS", 'Snapshots: pairs of seconds and changes, "3600 1 300 100"; "": never (default: the server\'s own)')
    databases: int = _knob(16, _SOME, DATA, "N", "Databases that SELECT can reach.")
    placement: tuple[str, ...] = _knob((), placing.read_rules, DATA, "RULE", "Rule for the part of a key that determines its instance, as 'bull:{*}:*'; or a product: bullmq, bull, bee-queue, dramatiq, rsmq; may be repeated.", is_list=True)
    pin_database: tuple[tuple[int, int], ...] = _knob((), placing.read_pins, DATA, "DB=INSTANCE", "Put all keys of a database on one instance, as 3=0; may be repeated.", is_list=True)
    multikey: str = _knob("atomic", values.one_of("atomic", "split"), LIMITS, "atomic|split", "MSET, DEL, UNLINK over several instances: atomic, or faster but each instance on its own.")
    ordered_pipelines: bool = _knob(False, values.yes_or_no, LIMITS, "yes|no", "A write waits for the earlier writes of its pipeline on other instances.")
    maxclients: int = _knob(10000, _SOME, LIMITS, "N", "Maximum number of clients at the same time.")
    timeout: int = _knob(0, _ANY, LIMITS, "SECONDS", "Close clients that were idle for so long; 0: never.")
    tcp_keepalive: int = _knob(300, _ANY, LIMITS, "SECONDS", "Time between TCP keepalive probes of an idle client; 0: none.")
    server: str | None = _knob(None, values.path, SERVER, "PATH", "The redis-server or valkey-server to run (default: from PATH, else the bundled Valkey)")
    allocator: str = _knob("auto", values.path, SERVER, "auto|none|LIBRARY", "Memory allocator of servers built without jemalloc; auto: jemalloc if installed, else a tuned glibc.")
    enable_debug_command: str = _knob("no", values.one_of(*ALLOWED), SERVER, "no|yes|local", "Allow DEBUG; local: by loopback or Unix socket.")
    enable_protected_configs: str = _knob("no", values.one_of(*ALLOWED), SERVER, "no|yes|local", "Allow CONFIG SET of protected directives.")
    enable_module_command: str = _knob("no", values.one_of(*ALLOWED), SERVER, "no|yes|local", "Allow MODULE LOAD and UNLOAD.")
    set: Mapping[str, str] = dataclasses.field(default_factory=dict)  # directives passed through
    config_file: str | None = None  # the TOML file this came from
# fmt: on


def knobs() -> list[tuple[str, Any, Knob]]:
    """Return each knob: the field's name, its default, and its metadata."""
    fields = dataclasses.fields(Config)
    return [(f.name, f.default, f.metadata["knob"]) for f in fields if "knob" in f.metadata]


def load(
    flags: Mapping[str, str | list[str] | None], directive_flags: list[str], file: str | None = None
) -> Config:
    """Build the configuration from flags (field name to text, None when not given) and a TOML file."""
    table = _read_toml(file) if file else {}
    found: dict[str, Any] = {}
    for name, _, knob in knobs():
        key = name.replace("_", "-")
        given = flags.get(name)
        if given is not None:
            found[name] = knob.read(f"--{key}", given)
        elif key in table:
            found[name] = knob.read(key, table[key])
    found["set"] = _toml_directives(table.get("set", {})) | dict(
        directives.parse(pair) for pair in directive_flags
    )
    if {"requirepass", "requirepass-file"} <= table.keys():
        raise ConfigError("requirepass: requirepass-file is set, too; remove one of them")
    if found.get("requirepass_file"):
        found["requirepass"] = _read_password(found["requirepass_file"])
    if found.get("requirepass") == "":
        raise ConfigError("requirepass: the password is empty; set one, or remove requirepass")
    if found.get("requirepass"):
        _check_default(found.get("users", ()))
    return Config(**found, config_file=str(Path(file).absolute()) if file else None)


def _check_default(users: tuple[str, ...]) -> None:
    """Refuse passwords of the default user in ``users`` if ``requirepass`` is set."""
    for line in users:
        name, *rules = line.split()
        if name == "default" and any(rule == "nopass" or rule[0] in "#>" for rule in rules):
            raise ConfigError(
                "users: the user default has a password or nopass, and requirepass is set, too; "
                "remove one of them"
            )


def _read_toml(file: str) -> dict[str, object]:
    """Read the file's table, and check its names."""
    try:
        table = tomllib.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        why = file_errors.explain("read", file, error, "check --config")
        raise ConfigError(f"config: {why}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "; this is not a redis.conf: write NAME = VALUE, other directives below [set]"
        raise ConfigError(f"config: {file} is not TOML: {error}{hint}") from None
    known = [name.replace("_", "-") for name, _, _ in knobs()] + ["set"]
    for key in table:
        if isinstance(table[key], dict) and key != "set":
            raise ConfigError(
                f"config: {file} has a table [{key}]; write its lines at the top, without a table"
            )
        if key not in known:
            near = difflib.get_close_matches(key.replace("_", "-").lower(), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(known)}"
            raise ConfigError(f"config: {file} has the unknown key {key!r}; {hint}")
    return table


def _toml_directives(table: object) -> dict[str, str]:
    """Parse the ``[set]`` table: NAME = VALUE; the value is text, a number, true or false."""
    if not isinstance(table, dict):
        raise ConfigError("set: is a table in TOML; write [set] and a line NAME = VALUE below it")
    found: dict[str, str] = {}
    for name, raw in table.items():
        if not isinstance(raw, str | int):
            raise ConfigError(f"set {name}: {raw!r} is not text; put it in quotes")
        value = ("no", "yes")[raw] if isinstance(raw, bool) else str(raw)
        found.update([directives.check(name, value)])
    return found


def _read_password(file: str) -> str:
    """Read the password in a file, without the line break at its end."""
    try:
        password = Path(file).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        why = file_errors.explain("read", file, error, "check --requirepass-file")
        raise ConfigError(f"requirepass-file: {why}") from None
    except UnicodeDecodeError:
        why = "is not UTF-8; write the password as text"
        raise ConfigError(f"requirepass-file: {file} {why}") from None
    if not password:
        raise ConfigError(f"requirepass-file: {file} is empty; write the password into it")
    return values.text("requirepass-file", password)
