"""Many clients that wait for keys of their own: how often instances are asked because of them."""

import contextlib
import re
from collections.abc import Callable, Iterator

import pytest

from conftest import Threadis
from differential.wire import Connection, pack
from faults import stopped
from waiting import until

CROWD = 400
Start = Callable[..., Threadis]


@pytest.fixture
def running(threadis: Start) -> Iterator[Threadis]:
    """Two instances."""
    yield threadis("--instances", "2", "--workers", "1", "--save", "")


@pytest.fixture
def main(running: Threadis) -> Iterator[Connection]:
    """The client that looks, and feeds."""
    connection = Connection(("127.0.0.1", running.port))
    yield connection
    connection.close()


@pytest.fixture
def crowd(running: Threadis) -> Iterator[list[Connection]]:
    """Clients, connected."""
    crowd = [Connection(("127.0.0.1", running.port)) for _ in range(CROWD)]
    for client in crowd:
        assert client.ask("PING").raw == b"+PONG\r\n"
    yield crowd
    for client in crowd:
        client.close()


def number(main: Connection, field: str) -> int:
    """The sum of a field of INFO."""
    text = main.ask("INFO", "everything").text.decode()
    return sum(map(int, re.findall(rf"\b{field}[:=](\d+)", text)))


def let_wait(
    running: Threadis, main: Connection, crowd: list[Connection], commands: list[tuple[str, ...]]
) -> None:
    """All begin to wait in the same moment."""
    with stopped(running.proxy_pid()):
        for client, words in zip(crowd, commands, strict=True):
            client.send(pack(*words))
    until(lambda: number(main, "blocked_clients") == len(crowd), "all wait")


WAITS: list[tuple[str, ...]] = [
    ("BLPOP", "k{}", "0"),
    ("BZPOPMIN", "k{}", "75.5"),
    ("BLMOVE", "k{}", "to{}", "LEFT", "RIGHT", "0"),
    ("BRPOPLPUSH", "k{}", "to{}", "0"),
]


@pytest.mark.parametrize("words", WAITS, ids=lambda words: words[0])
def test_who_comes_together_is_looked_for_together(
    running: Threadis, main: Connection, crowd: list[Connection], words: tuple[str, ...]
) -> None:
    """An instance is asked for what many want in a few messages, not each in one of its own."""
    before = number(main, "reads")
    commands = [tuple(word.format(at) for word in words) for at in range(CROWD)]
    let_wait(running, main, crowd, commands)
    until(lambda: number(main, "threadis_armed_keys") == CROWD, "all are armed")
    assert number(main, "reads") - before < CROWD


SERVED: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("BLPOP", "k{}", "0"), ("RPUSH", "k{}", "v{}")),
    (("BRPOP", "all", "0"), ("LPUSH", "all", "v{}")),
    (("BZPOPMAX", "all", "0"), ("ZADD", "all", "1", "v{}")),
    (("XREADGROUP", "GROUP", "g", "c{}", "BLOCK", "0", "STREAMS", "s", ">"),
     ("XADD", "s", "*", "v{}", "")),
]  # fmt: skip


@pytest.mark.parametrize(("words", "feed"), SERVED, ids=lambda words: words[0])
def test_who_is_served_costs_an_instance_one_message(
    running: Threadis,
    main: Connection,
    crowd: list[Connection],
    words: tuple[str, ...],
    feed: tuple[str, ...],
) -> None:
    """For what feeds him and for his own command; and who came first is first."""
    assert main.ask("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM").raw == b"+OK\r\n"
    for at, client in enumerate(crowd):  # one after the other
        client.send(pack(*(word.format(at) for word in words)))
        if words[1] != "k{}":
            until(lambda: number(main, "blocked_clients") == at + 1, "it waits")  # noqa: B023
    until(lambda: number(main, "blocked_clients") == CROWD, "all wait")
    before = number(main, "reads")
    for at in range(CROWD):
        assert not main.ask(*(word.format(at) for word in feed)).is_error
    # And one to be told of the next change; as a stream stays, that is a reason to look again.
    messages = 3.5 if feed[0] == "XADD" else 2.5
    assert number(main, "reads") - before < messages * CROWD
    for at, client in enumerate(crowd):
        assert b"\nv%d\r\n" % at in client.read().raw


def test_what_is_pushed_at_once_is_handed_out_in_few_messages(
    running: Threadis, main: Connection, crowd: list[Connection]
) -> None:
    let_wait(running, main, crowd, [("BLPOP", "all", "0")] * CROWD)
    before = number(main, "reads")
    assert main.ask("RPUSH", "all", *range(CROWD + 1)).number == CROWD + 1
    got = [int(client.read().elements[1].text) for client in crowd]
    assert sorted(got) == list(range(CROWD))
    assert number(main, "reads") - before < CROWD / 2
    assert main.ask("LRANGE", "all", "0", "-1").elements[0].text == b"%d" % CROWD


def test_all_who_read_a_stream_hear_of_it_in_few_messages(
    running: Threadis, main: Connection, crowd: list[Connection]
) -> None:
    assert main.ask("XADD", "s", "1-1", "f", "v").raw == b"$3\r\n1-1\r\n"
    let_wait(running, main, crowd, [("XREAD", "BLOCK", "0", "STREAMS", "s", "$")] * CROWD)
    before = number(main, "reads")
    assert main.ask("XADD", "s", "1-2", "f", "v").raw == b"$3\r\n1-2\r\n"
    for client in crowd:
        assert b"1-2" in client.read().raw
    assert number(main, "reads") - before < CROWD / 2


MANY_KEYS = [f"many:{at}" for at in range(5_000)]


@pytest.mark.parametrize(
    ("words", "feed"),
    [
        (("BLPOP", *MANY_KEYS, MANY_KEYS[0], "0"), ("RPUSH", "{}", "v")),
        (("BLMPOP", "0", str(len(MANY_KEYS)), *MANY_KEYS, "LEFT"), ("RPUSH", "{}", "v")),
        (("BZPOPMIN", *MANY_KEYS, "0"), ("ZADD", "{}", "1", "v")),
        (("XREAD", "BLOCK", "0", "STREAMS", *MANY_KEYS, *["$"] * len(MANY_KEYS)),
         ("XADD", "{}", "1-1", "f", "v")),
    ],
    ids=["BLPOP", "BLMPOP", "BZPOPMIN", "XREAD"],
)  # fmt: skip
def test_who_waits_for_very_many_keys_is_served_and_leaves_nothing(
    running: Threadis, main: Connection, words: tuple[str, ...], feed: tuple[str, ...]
) -> None:
    """Whichever key is fed, as soon as he waits or before; and so is who comes next."""
    for key in (MANY_KEYS[-1], MANY_KEYS[0], MANY_KEYS[2_500]):
        with contextlib.closing(Connection(("127.0.0.1", running.port))) as client:
            client.send(pack(*words))
            until(lambda: number(main, "blocked_clients") == 1, "it waits")
            assert not main.ask(*(word.format(key) for word in feed)).is_error
            assert key.encode() in client.read().raw
            assert client.ask("PING").raw == b"+PONG\r\n"
        main.ask("DEL", *MANY_KEYS)
    until(lambda: number(main, "blocked_clients") == 0, "nobody waits")
    until(lambda: number(main, "threadis_armed_keys") == 0, "nothing is waited for")


def test_who_waits_for_very_many_keys_may_leave_at_any_moment(
    running: Threadis, main: Connection
) -> None:
    """By its time, by CLIENT UNBLOCK, by CLIENT KILL; while it is put in the lines, or behind."""
    for timeout in ("0.001", "0.05"):
        client = Connection(("127.0.0.1", running.port))
        assert client.ask("BLPOP", *MANY_KEYS, timeout).raw == b"*-1\r\n"
        for ending in ("UNBLOCK", "KILL ID"):
            its_id = client.ask("CLIENT", "ID").number
            client.send(pack("BLPOP", *MANY_KEYS, "0"))
            until(lambda: number(main, "blocked_clients") == 1, "it waits")
            assert main.ask("CLIENT", *ending.split(), its_id).number == 1
            if ending == "UNBLOCK":
                assert client.read().raw == b"*-1\r\n"
                assert client.ask("PING").raw == b"+PONG\r\n"
        client.close()
    until(lambda: number(main, "blocked_clients") == 0, "nobody waits")
    until(lambda: number(main, "threadis_armed_keys") == 0, "nothing is waited for")
    assert main.ask("RPUSH", MANY_KEYS[0], "v").number == 1
    assert main.ask("LPOP", MANY_KEYS[0]).text == b"v"


@pytest.mark.parametrize(
    ("words", "feed"),
    [
        (("BLPOP", *MANY_KEYS, "0"), ("RPUSH", "{}", "v{}")),
        (("BZPOPMIN", *MANY_KEYS, "0"), ("ZADD", "{}", "1", "v{}")),
        (("BLMPOP", "0", "1000", *MANY_KEYS[:1_000], "LEFT"), ("RPUSH", "{}", "v{}")),
    ],
    ids=["BLPOP", "BZPOPMIN", "BLMPOP"],
)
def test_keys_for_which_somebody_waits_are_looked_at_together(
    running: Threadis, main: Connection, words: tuple[str, ...], feed: tuple[str, ...]
) -> None:
    """By who waits for them, too, and by who changes them: not each in a message of its own."""
    keys = [word for word in words if word.startswith("many:")]
    with contextlib.ExitStack() as stack:
        clients = []
        for at in range(3):
            client = Connection(("127.0.0.1", running.port))
            clients.append(stack.enter_context(contextlib.closing(client)))
            before = number(main, "reads")
            client.send(pack(*words))
            until(lambda: number(main, "blocked_clients") == at + 1, "it waits")  # noqa: B023
            assert number(main, "reads") - before < len(keys) / 2
        until(lambda: number(main, "threadis_armed_keys") == len(keys), "all are armed")
        for change, reply in (
            (["FLUSHALL"], b"+OK\r\n"),
            (["DEL", *keys], b":0\r\n"),
            (["MSET", *(word for key in keys for word in (key, "string"))], b"+OK\r\n"),
        ):
            before = number(main, "reads")
            assert main.ask(*change).raw == reply
            assert number(main, "reads") - before < len(keys) / 2, change[0]
        main.ask("DEL", *keys)
        fed = (keys[-1], keys[0], keys[len(keys) // 2])
        for at, (client, key) in enumerate(zip(clients, fed, strict=True)):
            assert not main.ask(
                *(word.format(key if word == "{}" else at) for word in feed)
            ).is_error
            assert b"\nv%d\r\n" % at in client.read().raw  # who came first is first


def test_streams_for_which_consumers_wait_are_looked_at_together(
    running: Threadis, main: Connection, crowd: list[Connection]
) -> None:
    """Whose group has read all of its stream is not tried; whose stream or group has gone is."""
    keys = MANY_KEYS[:1_000]
    main.send(b"".join(pack("XGROUP", "CREATE", key, "g", "$", "MKSTREAM") for key in keys))
    assert {main.read().raw for _ in keys} == {b"+OK\r\n"}
    read = ["BLOCK", "0", "STREAMS", *keys, *[">"] * len(keys)]
    for at, client in enumerate(crowd[:4]):
        before = number(main, "reads")
        client.send(pack("XREADGROUP", "GROUP", "g", f"c{at}", *read))
        until(lambda: number(main, "blocked_clients") == at + 1, "it waits")  # noqa: B023
        assert number(main, "reads") - before < len(keys) / 2
    for at, key in enumerate((keys[-1], keys[0])):
        assert main.ask("XADD", key, "*", "f", f"v{at}").text
        assert b"\nv%d\r\n" % at in crowd[at].read().raw  # who came first is first
    block = [pack("XGROUP", "DESTROY", key, "g") for key in keys[:100]]
    main.send(pack("MULTI") + b"".join(block) + pack("EXEC"))
    assert main.read().raw == b"+OK\r\n"
    assert {main.read().raw for _ in block} == {b"+QUEUED\r\n"}
    assert {reply.number for reply in main.read().elements} == {1}
    for client in crowd[2:4]:
        assert client.read().raw.startswith(b"-NOGROUP")
