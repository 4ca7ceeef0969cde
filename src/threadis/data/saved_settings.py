"""Settings and users that an administrator has saved, and that the next start uses again.

    DIR/users.acl      users (ACL SAVE), as in the servers' ACL files; passwords as digests only
    DIR/settings.json  directives (CONFIG REWRITE)

Flags and the configuration file are not changed. Each saved value is stored with what these said
when it was saved: while they say the same, the saved value counts, because it is newer; if they say
something else, they count. With ``aclfile`` the users are in that file, and nowhere else.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Set
from pathlib import Path

import msgspec

from threadis import control, own_names
from threadis.config import config as configuration
from threadis.config.config import Config
from threadis.config.directives import ARGUMENT_LIMIT, INPUT_LIMIT, OF_CLIENTS, quote
from threadis.config.values import memory
from threadis.errors import ConfigError, DataError
from threadis.system import file_errors
from threadis.system.files import write_atomically

log = logging.getLogger("threadis")

USERS, SETTINGS = "users.acl", "settings.json"
# Directives of several words, which configuration files have without quotes
WORDS = (
    "latency-tracking-info-percentiles",
    "oom-score-adj-values",
    "save",
)
DEFAULT = b"default"
EVERYTHING = [b"on", b"~*", b"&*", b"+@all"]
REPLACED = ""  # in place of the digest of what a start was told: by another start, since
OPEN = [*EVERYTHING, b"nopass"]  # the default user if nothing is configured


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directive as CONFIG SET had set it, and its value at the start."""

    value: str
    given: str


class SavedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of ``settings.json``."""

    format: int
    settings: dict[str, Setting] = {}
    users: dict[str, str] = {}  # digests of what the start had been told of users, by name


def read(folder: Path) -> SavedSettings:
    """Read the saved settings; empty if there is no such file."""
    path = folder / SETTINGS
    try:
        found: SavedSettings = msgspec.json.decode(path.read_bytes(), type=SavedSettings)
    except (FileNotFoundError, NotADirectoryError):
        return SavedSettings(1)
    except OSError as error:
        otherwise = "choose another --dir"
        raise DataError(f"dir: {file_errors.explain('read', path, error, otherwise)}") from None
    except msgspec.DecodeError as error:
        raise DataError(
            f"dir: {path} is damaged ({error}); restore it from a backup, or, to go without what "
            "CONFIG REWRITE has saved, delete it"
        ) from None
    if found.format != 1:
        raise DataError(f"dir: {path} was written by another version of threadis; use that one")
    return found


def write(folder: Path, kept: SavedSettings) -> None:
    """Save them; OSError if the disk refuses."""
    content = msgspec.json.format(msgspec.json.encode(kept), indent=1)
    write_atomically(folder / SETTINGS, content + b"\n")


# -- settings --


def given(config: Config) -> dict[str, str]:
    """Return the start's value of each directive that CONFIG SET can change."""
    told = {
        name.replace("_", "-"): _text(getattr(config, name))
        for name, _, _ in configuration.knobs()
        if name not in ("requirepass", "requirepass_file", "users")
    }
    return {**told, **config.set}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def merge(config: Config) -> Config:
    """Return the configuration with the saved settings."""
    now, found = given(config), {}
    directives = dict(config.set)
    knobs = {name.replace("_", "-"): (name, knob) for name, _, knob in configuration.knobs()}
    for name, kept in read(Path(config.dir)).settings.items():
        if now.get(name, "") != kept.given:
            log.warning(
                "%s: the value saved by CONFIG REWRITE is dropped: it was set anew at this start",
                name,
            )
        elif name in knobs:
            field, knob = knobs[name]
            found[field] = knob.read(f"{SETTINGS}: {name}", kept.value)
        else:
            is_bare = kept.value and (name in WORDS or name in OF_CLIENTS)
            directives[name] = kept.value if is_bare else quote(kept.value)
    return dataclasses.replace(config, **found, set=directives)


def forget(config: Config, told: Mapping[str, str], users: Mapping[str, str]) -> None:
    """Drop saved settings that this start has overridden, so that they do not come back later.

    ``told`` are the start's directives, ``users`` the digests of its users.
    """
    folder = Path(config.dir)
    before = read(folder)
    settings = {
        name: one for name, one in before.settings.items() if told.get(name, "") == one.given
    }
    digests = {
        name: digest if users.get(name) == digest else REPLACED
        for name, digest in before.users.items()
    }
    after = SavedSettings(1, settings, digests)
    if after != before:
        write(folder, after)


def restarted(start: control.Start, settings: Mapping[str, str]) -> control.Start:
    """Build the start message of the next proxy, after CONFIG SET."""
    fields: dict[str, object] = {"settings": dict(settings)}
    for name in ("maxclients", "timeout", "tcp-keepalive", "maxmemory"):
        if name in settings:
            fields[name.replace("-", "_")] = int(settings[name])
    if "protected-mode" in settings:
        fields["protected_mode"] = settings["protected-mode"] == "yes"
    if "requirepass" in settings:
        fields["requirepass"] = settings["requirepass"]
    if "maxmemory-clients" in settings:
        fields["maxmemory_clients"] = settings["maxmemory-clients"]
    if INPUT_LIMIT in settings:
        fields["input_limit"] = int(settings[INPUT_LIMIT])
    if ARGUMENT_LIMIT in settings:
        fields["argument_limit"] = memory(ARGUMENT_LIMIT, settings[ARGUMENT_LIMIT])
    if "client-output-buffer-limit" in settings:
        limits = f"{start.output_limits} {settings['client-output-buffer-limit']}"
        fields["output_limits"] = limits.strip()
    return msgspec.structs.replace(start, **fields)


# -- users --


def acl_file(config: Config) -> Path:
    """Return the file of the users."""
    return Path(config.aclfile).absolute() if config.aclfile else Path(config.dir) / USERS


def given_users(config: Config) -> dict[bytes, list[bytes]]:
    """Return the users of the configuration: names and rules."""
    found = {}
    for line in config.users:
        name, *rules = line.encode().split()
        found[name] = [hashed(rule) for rule in rules]
    if config.requirepass:
        rules = found.get(DEFAULT, EVERYTHING)
        found[DEFAULT] = [*_without_passwords(rules), hashed(b">" + config.requirepass.encode())]
    return found


def hashed(rule: bytes) -> bytes:
    """Replace a password in a rule by its digest."""
    return b"#" + hashlib.sha256(rule[1:]).hexdigest().encode() if rule[:1] == b">" else rule


def _without_passwords(rules: list[bytes]) -> list[bytes]:
    return [one for one in rules if one[:1] not in b"#>" and one not in (b"nopass", b"resetpass")]


def digests(users: Mapping[bytes, list[bytes]]) -> dict[str, str]:
    """Return digests that tell whether users have changed in the configuration."""
    return {
        name.decode("utf-8", "backslashreplace"): hashlib.sha256(b" ".join(rules)).hexdigest()[:16]
        for name, rules in users.items()
    }


def users(config: Config) -> dict[bytes, list[bytes]]:
    """Return all users at the start; empty if none are configured or saved."""
    path, told = acl_file(config), given_users(config)
    if config.aclfile and told:
        raise ConfigError(
            f"aclfile: users are in {path} or in the configuration, not in both; write those of "
            "users and requirepass into the file"
        )
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if config.aclfile:
            raise ConfigError(
                f"aclfile: {path} does not exist; create it, or remove aclfile"
            ) from None
        return {DEFAULT: OPEN, **told} if config.users else {}
    except OSError as error:
        knob = "aclfile" if config.aclfile else "dir"
        otherwise = f"choose another --{knob}"
        raise DataError(f"{knob}: {file_errors.explain('read', path, error, otherwise)}") from None
    found = {}
    for number, words in lines(content):
        if words[0] != b"user" or not all(words[1:2] or [b""]) or words[1] in found:
            raise DataError(
                f"aclfile: {path}, line {number}: 'user NAME RULES' is expected, once a user"
            )
        if own_names.is_ours(words[1]):
            shown = words[1].decode("utf-8", "backslashreplace")
            raise DataError(
                f"aclfile: {path}, line {number}: {shown}: names that begin with threadis- are "
                "reserved; choose another name"
            )
        found[words[1]] = words[2:]
    if found:
        found.setdefault(DEFAULT, OPEN)  # as the servers do
    before, now = read(Path(config.dir)).users, digests(told)
    if not config.aclfile:
        _leave_out(found, before.keys() - now.keys())
    for name, rules in told.items():
        text = name.decode()
        if now[text] == before.get(text):
            continue  # what was saved is newer
        log.warning(
            "user %s: the rules saved by ACL SAVE are replaced: they were set anew at this start",
            text,
        )
        if name == DEFAULT and not any(line.split()[0] == "default" for line in config.users):
            login = hashed(b">" + (config.requirepass or "").encode())
            rules = [*_without_passwords(found.get(DEFAULT, EVERYTHING)), login]
        found[name] = rules
    return found


def _leave_out(found: dict[bytes, list[bytes]], names: Set[str]) -> None:
    """Remove users whom the configuration named when users were saved, and does not name any more.

    The default user stays as saved: without it every client would have all rights.
    """
    for text in sorted(names - {DEFAULT.decode()}):
        if found.pop(text.encode(), None) is not None:
            log.warning(
                "user %s: saved by ACL SAVE, dropped: the configuration does not name it any more",
                text,
            )


def lines(content: bytes) -> list[tuple[int, list[bytes]]]:
    """Split an ACL file into its non-empty lines, as servers do: line numbers, from 1 on, and
    words. Two spaces before the name are an empty name; elsewhere they count as one.
    """
    split = [line.strip(b" \t\r") for line in content.split(b"\n")]
    words = [(number, line.split(b" ")) for number, line in enumerate(split, 1) if line]
    return [(number, [*line[:2], *_rules(line[2:])]) for number, line in words]


def _rules(words: list[bytes]) -> list[bytes]:
    """Return the rules of a user; a tab beside a rule is ignored, but not in a selector."""
    found, is_in_selector = [], False
    for word in words:
        if is_in_selector:
            is_in_selector = not word.endswith(b")")
            found.append(word)
        elif word.startswith(b"(") and not word.endswith(b")"):
            is_in_selector = True
            found.append(word)
        else:
            found.append(word.strip(b"\t\r"))
    return [word for word in found if word]


def write_users(path: Path, users: Mapping[bytes, list[bytes]]) -> None:
    """Save users in the format of ACL files; OSError if the disk refuses."""
    text = (b" ".join([b"user", name, *users[name]]) + b"\n" for name in sorted(users))
    write_atomically(path, b"".join(text))
