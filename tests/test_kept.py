"""What an administrator sets and saves is there again: users (ACL SAVE, ACL LOAD) and settings
(CONFIG REWRITE), after restarts of everything, of the proxy, of an instance.
"""

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from conftest import Threadis
from threadis.supervisor import server
from waiting import until

Start = Callable[..., Threadis]
SETTINGS = {
    "maxmemory": "104857600",
    "maxmemory-policy": "allkeys-lfu",
    "save": "3600 1 60 5",
    "notify-keyspace-events": "AKE",
    "slowlog-log-slower-than": "12345",
    "slowlog-max-len": "77",
    "maxclients": "4321",
    "timeout": "1234",
    "tcp-keepalive": "99",
    "maxmemory-clients": "64000000",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 1000000 0 0",
    "hash-max-listpack-entries": "7",
    "latency-tracking-info-percentiles": "50 99",
    "protected-mode": "no",
}
ODD_SELECTOR = """("~k\\"'" ~foo(bar) &n) +get)"""
RULES = "~b:* &c:* -@all +get +set +acl|whoami"


def odd_users(client: "redis.Redis") -> None:
    """Users whose rules servers show in other words than those that they take."""
    client.execute_command(  # type: ignore[no-untyped-call]
        "ACL SETUSER", "carol", "on", ODD_SELECTOR
    )
    client.execute_command(  # type: ignore[no-untyped-call]
        "ACL SETUSER", "erin", "%RW~*", "~a", "(%R~* %W~* ~c +get)"
    )


def digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def shown(client: "redis.Redis") -> dict[str, str]:
    found = client.config_get(*SETTINGS, "appendonly")
    return {str(name): str(text).replace("replica ", "slave ") for name, text in found.items()}


def acl(client: "redis.Redis") -> list[list[str]]:
    """The users; servers tell the rules for commands in any order."""
    return [sorted(str(line).split()) for line in client.acl_list()]


def secrets_on_disk(folder: Path, *secrets: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(one.encode() in path.read_bytes() for one in secrets)]


def test_everything_set_is_there_after_a_restart(
    threadis: Start, stock_server: server.ServerBinary
) -> None:
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1", "--save", ""]
    first = threadis(*flags)
    with first.client(decode_responses=True) as client:
        for name, text in SETTINGS.items():
            client.config_set(name, text)
        client.config_set("appendonly", "yes")
        client.acl_setuser("bob", enabled=True, passwords=["+bobs"], keys=["b:*"],
                           categories=["+@all"], channels=["c:*"])  # fmt: skip
        odd_users(client)
        client.execute_command("ACL SETUSER default -keys -flushall")
        client.config_set("requirepass", "geheimnis")
        client.execute_command("AUTH", "geheimnis")
        client.set("key", "value")
        before, users = shown(client), acl(client)
        assert client.config_rewrite()
    assert first.stop() == 0
    assert before == SETTINGS | {"appendonly": "yes"}
    assert secrets_on_disk(first.folder, "geheimnis", "bobs") == []
    for name in ("users.acl", "settings.json"):
        assert (first.folder / name).stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        again = threadis(*flags, folder=first.folder)
        with again.client() as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.get("key")
        with again.client(password="geheimnis", decode_responses=True) as client:
            assert (shown(client), acl(client)) == (before, users)
            assert client.get("key") == "value"
        with again.client(username="bob", password="bobs") as client:
            assert client.set("b:1", "x")
        assert again.stop() == 0


def test_what_is_given_anew_beats_what_was_kept(threadis: Start, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("one\n")
    flags = ["--instances", "2", "--workers", "1", "--maxmemory", "100mb",
             "--requirepass-file", str(password)]  # fmt: skip
    first = threadis(*flags)
    with first.client(password="one") as client:
        client.config_set("maxmemory", "200mb")
        client.execute_command("CONFIG SET requirepass two timeout 77")
        client.execute_command("ACL SETUSER default -keys")
        client.config_rewrite()
    assert first.stop() == 0
    same = threadis(*flags, folder=first.folder)
    with same.client(password="two", decode_responses=True) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(200 * 1024**2)}
    assert same.stop() == 0
    password.write_text("three\n")
    flags[5] = "50mb"
    other = threadis(*flags, folder=first.folder)
    with other.client(password="three", decode_responses=True) as client:
        found = client.config_get("maxmemory", "timeout", "requirepass")
        assert found == {"maxmemory": str(50 * 1024**2), "timeout": "77", "requirepass": "three"}
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.keys()
    assert "maxmemory: the value saved by CONFIG REWRITE is dropped: it was set anew" in other.log()


def test_what_was_given_anew_stays_so(threadis: Start, tmp_path: Path) -> None:
    """Also when a later start is told what the first was told: nothing comes back."""
    password = tmp_path / "password"
    password.write_text("one")
    flags = ["--instances", "2", "--workers", "1", "--requirepass-file", str(password)]
    first = threadis(*flags, "--maxmemory", "100mb", "--timeout", "50")
    with first.client(password="one") as client:
        client.execute_command("CONFIG SET maxmemory 200mb requirepass two timeout 77")
        client.config_rewrite()
    assert first.stop() == 0
    for size, word in (("50mb", "three"), ("100mb", "one")):
        password.write_text(word)
        later = threadis(*flags, "--maxmemory", size, "--timeout", "50", folder=first.folder)
        with later.client(password=word, decode_responses=True) as client:
            found = client.config_get("maxmemory", "timeout")
            assert found == {"maxmemory": str(int(size[:-2]) * 1024**2), "timeout": "77"}
        assert later.stop() == 0
    assert "is dropped" not in later.log()


def test_a_user_whom_the_configuration_names_no_more_is_gone(
    threadis: Start, tmp_path: Path
) -> None:
    file = tmp_path / "threadis.toml"
    lines = ["'bob on nopass ~* +@all'", "'carol on nopass ~* +@all'"]
    file.write_text(f"users = [{lines[0]}, {lines[1]}]\ninstances = 2\nworkers = 1\n")
    first = threadis("--config", str(file))
    with first.client() as client:
        client.execute_command("ACL SETUSER dora on nopass ~x")
        client.execute_command("ACL SETUSER default -flushall")
        client.acl_save()
    assert first.stop() == 0
    before = file.read_text()
    file.write_text(before.replace(f"{lines[0]}, ", ""))
    for _ in range(2):
        second = threadis("--config", str(file), folder=first.folder)
        with second.client(decode_responses=True) as client:
            assert client.acl_users() == ["carol", "default", "dora"]
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
        assert second.stop() == 0
        assert "user bob: saved by ACL SAVE, dropped" in second.log()
    file.write_text(before)
    third = threadis("--config", str(file), folder=first.folder)
    with third.client(username="bob", password="x", decode_responses=True) as client:
        assert client.acl_users() == ["bob", "carol", "default", "dora"]


def test_a_restarted_proxy_or_instance_has_all_of_it(threadis: Start) -> None:
    """Saved or not; and also when all of them die at the same moment."""
    running = threadis("--instances", "2", "--workers", "1")
    with running.client(decode_responses=True) as client:
        for name, text in SETTINGS.items():
            client.config_set(name, text)
        client.execute_command("ACL SETUSER bob on >bobs ~b:* &* +@all")
        odd_users(client)
        client.execute_command("ACL SETUSER default -keys -flushall")
        client.config_set("requirepass", "geheimnis")
        client.execute_command("AUTH", "geheimnis")
        before, users = shown(client), acl(client)
    for victims in ("proxy", "instance", "both"):
        gone = [] if victims == "instance" else [running.proxy_pid()]
        gone += [] if victims == "proxy" else running.instance_pids()
        for pid in gone:
            os.kill(pid, signal.SIGKILL)

        def is_back() -> bool:
            try:
                with running.client(password="geheimnis", decode_responses=True) as client:
                    return (shown(client), acl(client)) == (before, users)
            except redis.exceptions.RedisError:
                return False

        until(is_back, f"all of it is back: {victims}")
        with running.client(username="bob", password="bobs") as client:
            until(lambda: answers(client), "every instance serves")


def answers(client: "redis.Redis") -> bool:
    try:
        return all(client.set(f"b:{number}", "x") for number in range(20))
    except redis.exceptions.RedisError:
        return False


def test_users_of_the_configuration(threadis: Start, tmp_path: Path) -> None:
    file = tmp_path / "threadis.toml"
    file.write_text(f"users = ['bob on #{digest('bobs')} {RULES}', 'default off']\ninstances = 2\n")
    first = threadis("--config", str(file))
    with first.client() as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.get("key")
    with first.client(username="bob", password="bobs") as client:
        assert client.set("b:1", "x")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("other", "x")
    assert first.stop() == 0
    file.write_text("users = ['bob on nopass ~* +nosuch']\ninstances = 2\n")
    second = threadis("--config", str(file), folder=first.folder, wait=False)
    assert second.process.wait(20) == 2
    assert "threadis: users: bob: ERR Error in ACL SETUSER modifier '+nosuch'" in second.log()
    assert second.log().endswith(f"fix it in {file}\n")


def test_a_saved_user_whose_selector_has_quotes_and_parentheses(threadis: Start) -> None:
    first = threadis("--instances", "2")
    with first.client(decode_responses=True) as client:
        odd_users(client)
        before = acl(client)
        assert client.acl_save()
        assert client.acl_load()
        assert acl(client) == before
    assert first.stop() == 0
    with threadis(folder=first.folder).client(decode_responses=True) as client:
        assert acl(client) == before


def test_an_acl_file(threadis: Start, tmp_path: Path) -> None:
    file = tmp_path / "my.acl"
    file.write_text(f"user default on nopass ~* &* +@all\nuser bob on #{digest('bobs')} {RULES}\n")
    first = threadis("--instances", "2", "--aclfile", str(file))
    with first.client() as client:
        assert client.config_get("aclfile") == {"aclfile": str(file)}
        file.write_text("user default on nopass ~* &* +@all\nuser carol on nopass ~* +@all\n")
        assert client.acl_load()
        assert client.acl_users() == ["carol", "default"]
        client.acl_setuser("dora", enabled=True, nopass=True, keys=["x"])
        assert client.acl_save()
    assert first.stop() == 0
    names = [line.split()[1] for line in file.read_text().splitlines()]
    assert names == ["carol", "default", "dora"]
    second = threadis(folder=first.folder, wait=False)
    with second.wait_until_serving().client() as client:
        assert client.acl_users() == ["default"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist; create it, or remove aclfile"),
        ("hello\n", "my.acl, line 1: 'user NAME RULES' is expected"),
        ("user a on\nuser a on\n", "my.acl, line 2"),
        ("user a +nosuch\n", "users: a: ERR Error in ACL SETUSER modifier '+nosuch'"),
        ("user a (~x +get\n", "users: a: ERR Unmatched parenthesis"),
    ],
)
def test_a_wrong_acl_file_is_refused(
    threadis: Start, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "my.acl"
    if content is not None:
        file.write_text(content)
    running = threadis("--instances", "2", "--aclfile", str(file), wait=False)
    assert running.process.wait(20) != 0
    assert words in running.log().splitlines()[-1]


CONTENTS = [
    "hello\n", "user\n", "user a on nopass ~* +@all\nuser a on\n", "user a +nosuch\n",
    "user a\tb on\n", "user bob on #zz\n", "# comment\nuser bob on\n", "",
    "user a +nosuch\nuser b +nono\nhello\n", "user default on nopass ~* +@all\nuser x off\n",
    "user bob  on   >pw ~x* (+get ~y*) +get\n", "\n \n\nuser q ~a +nope\n",
    "user  alice on\n", "user  on nopass\n", "user  \n", "user alice  on   nopass\n",
    "user alice on ~a*\t +get\r \n", " \tuser alice\ton\n", "user\talice on\n",
    "user alice on >pass\t\n", "user alice on >pa\tss \t nopass\r\r\n\r\nuser bob on \t\r\n",
    "user alice on\tnopass\n", "user alice on \v nopass\n", "user alice on nopass\f\n",
    "user alice on ( ~b*  +get ) \t (~c*\t+set)\n", "user alice on (~b*\t +get)\t\n",
    "user alice on (~b* +get)(~c* +set)\n", "user alice on (  )\n", "user alice on &\t\n",
    'user "alice" on \'nopass\'\n', "USER alice on\n", "user alice on\nuser  bob on\n",
    "user default on nopass ~* &* +@all -debug\r\nuser c on #%s ~c +@read" % ("a" * 64), None,
]  # fmt: skip


def test_acl_load_says_and_does_what_the_stock_server_does(
    threadis: Start, stock_server: server.ServerBinary, tmp_path: Path
) -> None:
    """Both have the same file."""
    file, socket = tmp_path / "my.acl", tmp_path / "bare.sock"
    file.write_text("")
    bare = subprocess.Popen(
        [stock_server.path, "--port", "0", "--unixsocket", str(socket), "--save", "",
         "--aclfile", str(file), "--dir", str(tmp_path), "--logfile", str(tmp_path / "bare.log")]
    )  # fmt: skip
    try:
        ours = threadis("--server", stock_server.path, "--instances", "2", "--aclfile", str(file))
        until(socket.exists, "the bare server listens")
        with redis.Redis(unix_socket_path=str(socket)) as stock, ours.client() as client:
            for content in CONTENTS:
                file.unlink() if content is None else file.write_text(content)
                said = [attempt(one, "ACL LOAD") for one in (stock, client)]
                assert said[0] == said[1], content
                assert acl(stock) == acl(client), content
            saved = [(attempt(one, "ACL SAVE"), file.read_text()) for one in (stock, client)]
            assert saved[0] == saved[1]
            file.unlink()
            file.mkdir()
            assert attempt(stock, "ACL SAVE") == attempt(client, "ACL SAVE")
    finally:
        bare.terminate()
        bare.wait()


def attempt(client: "redis.Redis", line: str) -> str:
    try:
        return str(client.execute_command(line))  # type: ignore[no-untyped-call]
    except redis.exceptions.ResponseError as error:
        return f"-{error}"


def test_acl_load_closes_whom_the_stock_server_closes(
    threadis: Start, stock_server: server.ServerBinary, tmp_path: Path
) -> None:
    file = tmp_path / "my.acl"
    file.write_text("user bob on nopass ~* &* +@all\nuser carol on nopass ~* &* +@all\n")
    running = threadis("--server", stock_server.path, "--instances", "2", "--aclfile", str(file))
    with (
        running.client() as admin,
        running.client(single_connection_client=True) as bob,
        running.client(single_connection_client=True) as carol,
    ):
        for client, name in ((bob, "bob"), (carol, "carol")):
            client.execute_command("AUTH", name, "x")
        file.write_text("user bob on nopass ~* &* +@all\n")
        admin.acl_load()
        kept = "bob" if stock_server.version >= (7, 2) else ""
        for client, name in ((bob, "bob"), (carol, "carol")):
            if name == kept:
                assert client.ping()
            else:
                with pytest.raises(redis.exceptions.ConnectionError):
                    client.ping()
