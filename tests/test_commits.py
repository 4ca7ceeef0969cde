"""Writes over several instances that workers do by themselves: together, and alone when need be."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from conftest import Threadis
from faults import stopped
from raw import Raw, command, keys_of
from threadis.supervisor.server import ServerBinary
from waiting import until

INSTANCES = 4
ON_ALL = [next(keys_of(index, INSTANCES)).decode() for index in range(INSTANCES)]
OK = b"+OK\r\n"


@pytest.fixture
def running(threadis: Callable[..., Threadis], stock_server: ServerBinary) -> Threadis:
    return threadis(
        "--server", str(stock_server.path), "--instances", str(INSTANCES), "--workers", "1",
        "--save", "",
    )  # fmt: skip


def counts(running: Threadis) -> tuple[int, int]:
    """Writes that workers have committed, and commits."""
    with running.client() as client:
        found: Any = client.info("threadis")
    return found["threadis_committed_writes"], found["threadis_commits"]


def mset(value: str, *keys: str) -> bytes:
    return command("MSET", *(word for key in keys for word in (key, value)))


def test_what_many_want_at_once_is_one_commit(running: Threadis) -> None:
    own = [[f"{key}:{number}" for key in "abcdefgh"] for number in range(40)]
    transaction = [command("MULTI"), command("INCR", "n"), command("LPUSH", ON_ALL[1], "x")]
    with ExitStack() as stack, running.client() as client:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(42)]
        for one in clients:
            assert one.ask("PING") == b"+PONG\r\n"
        client.set("n", 41)
        client.set(ON_ALL[1], "no list")
        writes, commits = counts(running)
        with stopped(running.proxy_pid()):
            for number, (one, keys) in enumerate(zip(clients, own, strict=False)):
                one.send(mset(str(number), *keys))
            clients[40].send(command("DEL", *own[0], "nobody", ON_ALL[0]))
            clients[41].send(b"".join([*transaction, command("INCR", "n"), command("EXEC")]))
        assert [one.reply() for one in clients[:40]] == [OK] * 40
        assert clients[40].reply() in (b":0\r\n", b":8\r\n")  # before or behind the first
        assert [clients[41].reply() for _ in range(4)] == [OK, *[b"+QUEUED\r\n"] * 3]
        answer = clients[41].reply()
        assert answer.startswith(b"*3\r\n:42\r\n-WRONGTYPE ") and answer.endswith(b"\r\n:43\r\n")
        for number, keys in enumerate(own[1:], 1):
            assert client.mget(keys) == [str(number).encode()] * 8
        now_writes, now_commits = counts(running)
    assert now_writes - writes == 42
    assert now_commits - commits <= 4  # one for each instance that may decide


@pytest.mark.parametrize(
    "words",
    [
        ("MSET", ON_ALL[0], "v", ON_ALL[1], "v"),
        ("DEL", ON_ALL[0], ON_ALL[1]),
        ("UNLINK", ON_ALL[3], ON_ALL[1]),
    ],
)
def test_workers_do_it(running: Threadis, words: tuple[str, ...]) -> None:
    before = counts(running)
    with running.client() as client:
        client.execute_command(*words)
    assert counts(running) == (before[0] + 1, before[1] + 1)


def test_workers_do_it_however_large_it_is(running: Threadis) -> None:
    before, keys = counts(running), [f"key:{number}" for number in range(50_000)]
    with running.client() as client, client.pipeline() as block:
        assert client.mset(dict.fromkeys(keys, "v"))
        for key in keys[:20_000]:
            block.append(key, "w" * 100)
        assert block.execute() == [101] * 20_000
        assert client.unlink(*keys, "nobody") == len(keys)
        assert client.dbsize() == 0
    assert counts(running) == (before[0] + 3, before[1] + 3)


@pytest.mark.parametrize("members", [1, 100_000])
def test_workers_do_a_transaction_of_few_commands_with_many_words(
    running: Threadis, members: int
) -> None:
    """More than a megabyte of short words: that there are few commands makes none of them long."""
    before, keys = counts(running), [f"key:{number}" for number in range(100_000)]
    with running.client() as client, client.pipeline() as block:
        if members == 1:
            block.mset(dict.fromkeys(keys, "v")).mget(keys).unlink(*keys)
            assert block.execute() == [True, [b"v"] * len(keys), len(keys)]
        else:
            block.sadd(ON_ALL[0], *range(members)).sadd(ON_ALL[1], *range(members))
            assert block.delete(*ON_ALL).execute() == [members, members, 2]
    assert counts(running) == (before[0] + 1, before[1] + 1)


def test_what_one_client_sends_at_once_is_one_commit(running: Threadis) -> None:
    """Each in its turn: whoever writes a key last has written it."""
    before = counts(running)
    with Raw(("127.0.0.1", running.port)) as client:
        pairs = [ON_ALL[:2], ON_ALL[1:3], ON_ALL[2:], ON_ALL[::3], ON_ALL]
        lines = [mset(str(number), *pairs[number % 5]) for number in range(100)]
        behind = [
            command("DEL", *ON_ALL[:2], "nobody"),
            command("DEL", *ON_ALL),
            mset("x", ON_ALL[0], ON_ALL[3]),
        ]
        with stopped(running.proxy_pid()):
            client.send(b"".join([*lines, *behind, command("GET", ON_ALL[3])]))
        assert [client.reply() for _ in range(100)] == [OK] * 100
        replies = [client.reply() for _ in range(4)]
        assert replies[:2] == [b":2\r\n", b":2\r\n"] and replies[2:] == [OK, b"$1\r\nx\r\n"]
    writes, commits = counts(running)
    assert writes - before[0] == 103 and commits - before[1] < 10


def test_what_is_given_up_of_a_pipeline_is_taken_again_in_order(running: Threadis) -> None:
    """One that should prepare hangs; the coordinator has the first, and the others wait for it."""
    with Raw(("127.0.0.1", running.port)) as client, running.client() as other:
        assert client.ask("MSET", *(word for key in ON_ALL for word in (key, "old"))) == OK
        others = [f"{{{key}}}n" for key in ON_ALL[:3]]
        with stopped(running.instance_pids()[3]):
            lines = [mset(str(number), *(ON_ALL if number < 2 else others)) for number in range(30)]
            client.send(b"".join([*lines, command("ECHO", "behind")]))
            replies = [client.reply() for _ in range(30)]
            assert {one[:1] for one in replies[:2]} <= {b"+", b"-"} and replies[2:] == [OK] * 28
            assert client.reply() == b"$6\r\nbehind\r\n"
            assert other.mget(others) == [b"29"] * 3
        until(lambda: wrote(other, "after"), "a write over all again", 60)


def test_what_monitors_see_is_the_coordinators(running: Threadis) -> None:
    before = counts(running)
    with Raw(("127.0.0.1", running.port)) as other, running.client() as client:
        assert other.ask("MONITOR") == OK
        assert client.mset({ON_ALL[0]: "v", ON_ALL[1]: "v"})
        assert client.mget(ON_ALL[:2]) == [b"v", b"v"]
        until(lambda: b'"MSET"' in other.line(), "the command, as it was sent")
    assert counts(running) == before


def test_what_changes_for_those_who_track_is_the_coordinators(running: Threadis) -> None:
    before = counts(running)
    with (
        running.client(protocol=3, single_connection_client=True) as other,
        running.client() as client,
    ):
        other.execute_command("CLIENT", "TRACKING", "ON", "BCAST")
        assert client.mset({ON_ALL[0]: "v", ON_ALL[1]: "v"})
        assert client.mget(ON_ALL[:2]) == [b"v", b"v"]
    assert counts(running) == before


def test_one_that_waits_for_a_key_gets_it(running: Threadis) -> None:
    """And what is behind it in the transaction is done, too."""
    with Raw(("127.0.0.1", running.port)) as waiter, running.client() as client:
        waiter.send(command("BLPOP", ON_ALL[2], "0"))
        until(lambda: client.info("clients")["blocked_clients"] == 1, "a waiting client")
        with client.pipeline() as block:
            block.set(ON_ALL[0], "v").rpush(ON_ALL[2], "one").llen(ON_ALL[2])
            assert block.execute() == [True, 1, 1]
        key = ON_ALL[2].encode()
        assert waiter.reply() == b"*2\r\n$%d\r\n%s\r\n$3\r\none\r\n" % (len(key), key)
        assert client.exists(ON_ALL[2]) == 0


def test_commands_of_a_transaction_are_done_in_parts(running: Threadis) -> None:
    before = counts(running)
    with running.client() as client, client.pipeline() as block:
        block.mset(dict.fromkeys(ON_ALL, "v")).mget(*ON_ALL, "nobody", ON_ALL[0])
        block.exists(*ON_ALL, ON_ALL[2]).get(ON_ALL[1]).delete(*ON_ALL[1:], "nobody")
        block.mget(ON_ALL).set(ON_ALL[3], "w")
        assert block.execute() == [
            True, [*[b"v"] * 4, None, b"v"], 5, b"v", 3, [b"v", None, None, None], True,
        ]  # fmt: skip
    assert counts(running) == (before[0] + 1, before[1] + 1)


def test_in_any_database_and_protocol(running: Threadis) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(running.client(db=db, protocol=resp))
            for db in (0, 3, 15)
            for resp in (2, 3)
        ]
        for number, client in enumerate(clients):
            with client.pipeline() as block:
                for key in ON_ALL:
                    block.hset(f"{{{key}}}{number}", "field", number)
                    block.hgetall(f"{{{key}}}{number}")
                answer = block.execute()
            assert answer == [1, {b"field": b"%d" % number}] * INSTANCES
        for number, client in enumerate(clients):
            assert client.delete(*[f"{{{key}}}{number}" for key in ON_ALL]) == INSTANCES
        assert [client.dbsize() for client in clients] == [0] * len(clients)


@pytest.mark.parametrize("silent", [0, 3], ids=["decides", "prepares"])
def test_an_instance_that_hangs_costs_only_its_own_keys(running: Threadis, silent: int) -> None:
    others = [f"{{{key}}}" for index, key in enumerate(ON_ALL) if index != silent]
    pid = running.instance_pids()[silent]
    with ExitStack() as stack, running.client() as client:
        client.mset(dict.fromkeys(ON_ALL, "before"))
        its, alien = (stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(2))
        its.ask("PING"), alien.ask("PING")
        with stopped(pid):
            with stopped(running.proxy_pid()):
                its.send(mset("its", *ON_ALL))
                alien.send(mset("alien", *others))
            assert alien.reply() == OK
            assert client.mset(dict.fromkeys(others, "more"))
            assert client.mget(others) == [b"more"] * 3
            answer = its.reply()
            assert answer.startswith((b"-TRYAGAIN ", b"-ERR instance ")), answer
        until(lambda: all_the_same(client), "all or nothing", 60)
        until(lambda: wrote(client, "after"), "a write over all again", 60)
        assert client.mget(ON_ALL) == [b"after"] * 4


def test_a_write_that_cannot_have_its_lock_holds_nobody_up(running: Threadis) -> None:
    """An instance hangs before it has answered something else: the lock does not hold."""
    others = [f"{{{key}}}" for key in ON_ALL[:3]]
    with ExitStack() as stack, running.client() as client:
        client.mset(dict.fromkeys(ON_ALL, "before"))
        reader, its, alien = (
            stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(3)
        )
        with stopped(running.instance_pids()[3]):
            reader.send(command("GET", ON_ALL[3]))
            its.send(mset("its", ON_ALL[0], ON_ALL[3]))
            its.send(command("PING"))  # taken once it is known what becomes of the write
            alien.send(mset("alien", *others))
            assert alien.reply() == OK
            transaction = [command("MULTI"), command("INCR", f"{others[0]}n")]
            alien.send(b"".join([*transaction, command("SET", others[1], "v"), command("EXEC")]))
            assert [alien.reply() for _ in range(4)][-1] == b"*2\r\n:1\r\n+OK\r\n"
        assert its.reply()[:1] in b"+-"
        until(lambda: wrote(client, "after"), "a write over all again", 60)


def test_a_key_that_stays_locked_holds_up_only_who_names_it(running: Threadis) -> None:
    """An instance hangs while it decides: who names its keys is refused meanwhile."""
    others = [f"{{{key}}}" for key in ON_ALL]
    with ExitStack() as stack, running.client() as client:
        client.mset(dict.fromkeys(ON_ALL, "before"))
        its, behind, alien = (
            stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(3)
        )
        with stopped(running.instance_pids()[0]):
            its.send(mset("its", *ON_ALL))
            assert its.reply().startswith(b"-ERR instance 0 was lost before it answered")
            for one, key in ((behind, ON_ALL[1]), (alien, others[1])):
                words = [("MULTI",), ("INCR", f"{others[1]}n"), ("SET", key, "v"),
                         ("SET", others[2], "v"), ("EXEC",)]  # fmt: skip
                one.send(b"".join(command(*word) for word in words))
                assert [one.reply() for _ in range(4)] == [OK, *[b"+QUEUED\r\n"] * 3]
            assert alien.reply() == b"*3\r\n:1\r\n+OK\r\n+OK\r\n"
            assert client.mset(dict.fromkeys(others[1:], "more"))
            assert behind.reply().startswith(b"-TRYAGAIN a write over several instances")


def all_the_same(client: Any) -> bool:
    """Whether an instance is back, and a write over all is there wholly or not at all."""
    try:
        values = client.mget(ON_ALL)
    except Exception:
        return False
    return set(values) == {b"its"} or values.count(b"its") == 0


def wrote(client: Any, value: str) -> bool:
    try:
        return bool(client.mset(dict.fromkeys(ON_ALL, value)))
    except Exception:
        return False


def test_workers_do_it_one_after_the_other(threadis: Callable[..., Threadis]) -> None:
    """Clients of three workers write the same keys, and look."""
    running = threadis("--instances", str(INSTANCES), "--workers", "3", "--save", "")
    rounds = 100
    with ExitStack() as stack:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(60)]
        assert clients[0].ask("MSET", *(word for key in ON_ALL for word in (key, "0"))) == OK
        with running.client() as observer:
            found: Any = observer.info("threadis")
        assert min(found[f"worker{index}"]["clients"] for index in range(3)) > 5
        writers, readers = clients[:30], clients[30:]
        for number in range(1, rounds + 1):
            for one in writers:
                one.send(mset(str(number), *ON_ALL))
            for one in readers:
                one.send(command("MGET", *ON_ALL))
            assert {one.reply() for one in writers} == {OK}
            for one in readers:
                values = one.reply().split(b"\r\n")[2::2]
                assert len(set(values[:INSTANCES])) == 1, values
    writes, commits = counts(running)
    assert writes == 1 + rounds * len(writers)
    assert commits < writes


def test_commits_of_many_keys_and_of_few_exclude_each_other(
    threadis: Callable[..., Threadis], stock_server: ServerBinary
) -> None:
    """Locks on very many keys are kept otherwise than those on few."""
    running = threadis(
        "--server", str(stock_server.path), "--instances", "2", "--workers", "2", "--save", "",
    )  # fmt: skip
    keys = [f"key:{number}" for number in range(1000)]
    few = keys[::333]
    with ExitStack() as stack, running.client() as client:
        clients = [stack.enter_context(Raw(("127.0.0.1", running.port))) for _ in range(6)]
        assert client.mset(dict.fromkeys(keys, "first"))
        for turn in range(10):
            for number, one in enumerate(clients):
                one.send(mset(f"{turn}:{number}", *(few if number % 2 else keys)) * 3)
            for _ in range(5):
                with client.pipeline() as block:
                    assert len(set(block.mget(few).execute()[0])) == 1
            assert all(one.reply() == OK for one in clients for _ in range(3))
        found = client.mget(keys)
        assert len({found[keys.index(key)] for key in few}) == 1
        assert len(set(found)) <= 2  # whoever of both was last
        assert client.delete(*keys) == len(keys)
    assert counts(running)[0] > 0
