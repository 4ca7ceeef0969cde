"""Values, flags, TOML and --set: what is read, and what is refused with which words."""

from pathlib import Path

import pytest

from threadis.config import config, values
from threadis.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("1b", 1),
        ("1k", 1000),
        ("1kb", 1024),
        ("1K", 1000),
        ("3m", 3_000_000),
        ("100mb", 100 * 1024**2),
        ("1g", 10**9),
        ("8gb", 8 * 1024**3),
        ("8GB", 8 * 1024**3),
    ],
)
def test_memory_is_read_as_redis_reads_it(text: str, size: int) -> None:
    assert values.memory("maxmemory", text) == size


def test_defaults() -> None:
    found = config.load({}, [])
    assert (found.host, found.port, found.instances, found.workers) == (
        "127.0.0.1",
        6379,
        None,
        None,
    )
    assert (found.databases, found.maxclients, found.protected_mode) == (16, 10000, True)
    assert found.save is None
    assert found.set == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("port", "auto", None),
        ("pin", "auto", None),
        ("pin", "no", ()),
        ("pin", "0-2,7", (0, 1, 2, 7)),
        ("unixsocketperm", "770", 0o770),
        ("unixsocketperm", "0700", 0o700),
        ("instances", "auto", None),
        ("instances", "256", 256),
        ("workers", "128", 128),
        ("appendonly", "yes", True),
        ("appendonly", "NO", False),
        ("save", "", ""),
        ("save", '""', ""),
        ("save", "3600 1  300 100", "3600 1 300 100"),
        ("maxmemory", "100mb", 100 * 1024**2),
        ("maxmemory_policy", "ALLKEYS-LRU", "allkeys-lru"),
        ("host", "127.0.0.1  -::1", "127.0.0.1 -::1"),
    ],
)
def test_a_flag_is_read(name: str, text: str, value: object) -> None:
    assert getattr(config.load({name: text}, []), name) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("port", "x", "--port: 'x' is neither auto nor from 0 to 65535"),
        ("port", "65536", "--port: '65536' is neither auto nor from 0 to 65535"),
        ("pin", "0-", "--pin: '0-' is neither auto, no, nor a list of CPUs"),
        ("pin", "3-1", "--pin: 3-1 is no range; write 1-3"),
        ("pin", "0 1", "--pin: '0 1' is neither auto, no, nor a list of CPUs"),
        ("unixsocketgroup", "", "--unixsocketgroup: the group is empty"),
        ("requirepass_file", "/dev/null", "requirepass-file: /dev/null is empty; write the"),
        ("pin", "yes", "--pin: 'yes' is neither auto, no, nor"),
        ("unixsocketperm", "778", "--unixsocketperm: '778' is not a mode in octal"),
        ("port", "-1", "--port: '-1' is neither auto"),
        ("port", "1_0", "--port: '1_0' is neither auto"),
        ("instances", "0", "--instances: '0' is neither auto nor from 1 to 256"),
        ("instances", "257", "--instances: '257' is neither auto nor from 1 to 256"),
        ("workers", "129", "--workers: '129' is neither auto nor from 1 to 128"),
        ("appendonly", "maybe", "--appendonly: 'maybe' is neither yes nor no"),
        ("maxmemory", "8tb", "--maxmemory: '8tb' is not a size"),
        ("maxmemory", "-1", "--maxmemory: '-1' is not a size"),
        ("maxmemory", "50%", "--maxmemory: '50%' is not a size"),
        ("maxmemory", "99999999999gb", "more than 64 bits hold"),
        ("maxmemory_policy", "lru", "--maxmemory-policy: 'lru' is not one of: noeviction, "),
        ("save", "3600", "--save: '3600' is not pairs of seconds and changes"),
        ("save", "0 1", "--save: '0 1' saves every 0 seconds"),
        ("save", "a b", "--save: 'a b' is not pairs"),
        ("host", " ", "--host: no address"),
        ("dir", "", "--dir: the path is empty"),
        ("dir", "a\nb", "--dir: line breaks"),
        ("databases", "0", "--databases: '0' is not a number from 1"),
        ("timeout", "1.5", "--timeout: '1.5' is not a number"),
        ("requirepass_file", "/nonexistent", "requirepass-file: cannot read /nonexistent"),
    ],
)
def test_a_wrong_flag_names_the_key_and_the_fix(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({name: text}, [])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def write(folder: Path, text: str) -> str:
    path = folder / "threadis.toml"
    path.write_text(text)
    return str(path)


def test_flags_beat_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'port = 7000\ninstances = "auto"\nmaxmemory = "1gb"\nmaxmemory-policy = "allkeys-lfu"\n'
        'appendonly = true\nsave = ""\nrequirepass = "secret"\n'
        "[set]\nhz = 50\nlazyfree-lazy-expire = true\nloglevel = 'notice'\n",
    )
    found = config.load({"port": "7001", "instances": None}, ["hz=20"], file)
    assert (found.port, found.instances, found.maxmemory) == (7001, None, 1024**3)
    assert (found.appendonly, found.save, found.requirepass) == (True, "", "secret")
    assert found.maxmemory_policy == "allkeys-lfu"
    assert found.set == {"hz": "20", "lazyfree-lazy-expire": "yes", "loglevel": "notice"}
    assert found.config_file == file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "unknown key 'prot'; did you mean port?"),
        ("max_memory = 1", "unknown key 'max_memory'; did you mean maxmemory?"),
        ("zzz = 1", "unknown key 'zzz'; valid keys: host, port"),
        ("port = ", "is not TOML"),
        ('port = "abc"', "port: 'abc' is neither auto"),
        ("port = true", "port: True is neither auto"),
        ("host = 1", "host: 1 is not text"),
        ("set = 1", "set: is a table in TOML"),
        ("[set]\nhz = 1.5", "set hz: 1.5 is not text"),
        ("[set]\nport = 1", "set port: threadis controls this; use --port instead"),
        ('requirepass = ""', "requirepass: the password is empty"),
        ('requirepass = "x"\nrequirepass-file = "y"', "requirepass-file is set, too"),
        (
            "requirepass = 'x'\nusers = ['default on nopass ~*']",
            "users: the user default has a password",
        ),
        ("requirepass = 'x'\nusers = ['bob on', 'default on >y ~*']", "remove one of them"),
        ("users = ['bob on', 'bob off']", "users: bob is named twice"),
        ("users = ['threadis-bob on']", "names that begin with threadis- are reserved"),
        ("users = [' ']", "users: ' ' does not begin with a user's name"),
    ],
)
def test_a_wrong_file_names_the_key_and_the_fix(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({}, [], write(tmp_path, text))
    assert words in str(caught.value)


def test_the_password_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret word\n")
    found = config.load({"requirepass_file": str(tmp_path / "password")}, [])
    assert found.requirepass == "s3cret word"


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("hz=50", ("hz", "50")),
        ("HZ=50", ("hz", "50")),
        ("appendfsync=always", ("appendfsync", "always")),
        (
            "client-output-buffer-limit=normal 0 0 0",
            ("client-output-buffer-limit", "normal 0 0 0"),
        ),
        ("notify-keyspace-events=KEA", ("notify-keyspace-events", "KEA")),
        ("loadmodule=/x.so a=b", ("loadmodule", "/x.so a=b")),
    ],
)
def test_a_directive_is_passed_through(pair: str, expected: tuple[str, str]) -> None:
    assert config.load({}, [pair]).set == dict([expected])


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("hz", "set: 'hz' has no '='"),
        ("hz=", "set hz: the value must be one line that is not empty"),
        ("h z=1", "set: 'h z' is not a directive's name"),
        ("hz\nport=1", "is not a directive's name"),
        ("hz=1\nport 1", "set hz: the value must be one line"),
        ("port=1", "use --port instead"),
        ("bind=1", "use --host instead"),
        ("dir=1", "use --dir instead"),
        ("unixsocket=1", "use --unixsocket instead"),
        ("databases=1", "use --databases instead"),
        ("maxmemory=1", "use --maxmemory instead"),
        ("maxmemory-policy=1", "use --maxmemory-policy instead"),
        ("appendonly=1", "use --appendonly instead"),
        ("save=1", "use --save instead"),
        ("requirepass=1", "use --requirepass-file instead"),
        ("maxclients=1", "use --maxclients instead"),
        ("timeout=1", "use --timeout instead"),
        ("protected-mode=no", "use --protected-mode instead"),
        ("cluster-enabled=yes", "set cluster-enabled: not possible, instances run without"),
        ("CLUSTER-ENABLED=yes", "set cluster-enabled: not possible"),
        ("replicaof=a 1", "set replicaof: not possible"),
        ("slaveof=a 1", "set slaveof: not possible"),
        ("rename-command=GET G", "set rename-command: not possible"),
        ("tls-port=1", "set tls-port: not possible"),
        ("user=x", "use users = [...] in the configuration file"),
        ("aclfile=x", "use --aclfile instead"),
        ("include=x", "set include: not possible"),
        ("daemonize=yes", "set daemonize: not possible"),
        ("unixsocketperm=777", "use --unixsocketperm instead"),
        ("server_cpulist=0", "set server_cpulist: threadis controls this; use --pin instead"),
        ("enable-debug-command=yes", "use --enable-debug-command instead"),
        ("enable-module-command=LOCAL", "use --enable-module-command instead"),
        ("enable-protected-configs=no", "use --enable-protected-configs instead"),
    ],
)
def test_a_directive_of_ours_is_refused(pair: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({}, [pair])
    assert words in str(caught.value)
