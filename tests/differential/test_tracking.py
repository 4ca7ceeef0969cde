"""CLIENT TRACKING tells clients what the bare server tells them, from whichever instance."""

from functools import partial

import pytest

from differential.conftest import INSTANCES
from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.wire import Connection, Reply, pack
from raw import owner
from waiting import until

pytestmark = pytest.mark.sample

KEYS = [f"key:{number}" for number in range(8)]  # on all instances


def told(client: Both) -> Reply:
    """The next thing that both say unasked."""
    bare, ours = client.bare.read(), client.ours.read()
    assert ours == bare
    return ours


def invalid(client: Both, *keys: str) -> None:
    """Both say that these keys have changed, one after the other."""
    for key in keys:
        push = told(client)
        assert push.raw == b">2\r\n$10\r\ninvalidate\r\n*1\r\n" + client.packed(key)[4:], push.raw


def redirect(client: Both, ids: tuple[int, int]) -> None:
    """Let another client be told."""
    for side, number in zip((client.bare, client.ours), ids, strict=True):
        assert side.ask("CLIENT", "TRACKING", "ON", "REDIRECT", number).raw == b"+OK\r\n"


def info(side: Connection) -> list[bytes]:
    """INFO's lines."""
    return side.ask("INFO", "all").text.split()


def tracks_alone(side: Connection) -> bool:
    """Whether exactly one client tracks."""
    return b"tracking_clients:1" in info(side)


def test_what_was_read_is_told_once(pair: Pair) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        reader.same("CLIENT", "TRACKING", "ON")
        for key in KEYS:
            reader.same("GET", key)
            writer.same("SET", key, 1)
            invalid(reader, key)
            writer.same("SET", key, 2)
        reader.same("MGET", *KEYS)
        for key in KEYS:
            writer.same("DEL", key)
            invalid(reader, key)
        reader.same("SUNION", "s", *KEYS)  # by the coordinator
        writer.same("SADD", "s", 1)
        invalid(reader, "s")
        for block in (("GET", "a"), ("GET", "b"), ("GET", "c")), (("GET", "a{x}"), ("GET", "x")):
            reader.same("MULTI")
            for words in block:
                reader.same(*words)
            reader.same("EXEC")
            for _, key in block:
                writer.same("INCR", key)
                invalid(reader, key)
        reader.same("CLIENT", "TRACKING", "OFF")
        reader.same("GET", "a")
        writer.same("SET", "a", 3)
        reader.same("PING")


def test_scripts_expiry_and_renames_are_told(pair: Pair) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        reader.same("CLIENT", "TRACKING", "ON")
        reader.same("MGET", "p1", "p3")
        writer.same("EVAL", "return redis.call('set', KEYS[1], 1)", 1, "p1")
        invalid(reader, "p1")
        writer.same("SADD", "{1}s", 1)
        writer.same("SUNIONSTORE", "p3", "{1}s", "{2}s", "{3}s")
        invalid(reader, "p3")
        reader.same("CLIENT", "TRACKING", "OFF")
        reader.same("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "p")
        writer.same("SET", "q", 1)
        writer.same("PEXPIRE", "p1", 1)
        invalid(reader, "p1", "p1")
        writer.same("RENAME", "q", "p2")
        invalid(reader, "p2")


def test_one_change_of_everything(pair: Pair) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        reader.same("CLIENT", "TRACKING", "ON")
        reader.same("GET", "a")
        for command in ("FLUSHALL", "FLUSHDB"):
            writer.same(command)
            assert told(reader).raw == b">2\r\n$10\r\ninvalidate\r\n_\r\n"
        reader.same("GET", "b")
        writer.same("SET", "b", 1)
        invalid(reader, "b")


def test_opting_in_and_out(pair: Pair) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        for option, word in (("OPTIN", "YES"), ("OPTOUT", "NO")):
            reader.same("CLIENT", "TRACKING", "ON", option)
            reader.same("GET", "a")
            reader.same("CLIENT", "CACHING", word)
            reader.same("CLIENT", "TRACKINGINFO")
            reader.same("GET", "b")
            reader.same("CLIENT", "TRACKINGINFO")
            reader.same("GET", "c")
            for key in ("a", "b", "c"):
                writer.same("SET", key, 1)
            invalid(reader, *(["b"] if option == "OPTIN" else ["a", "c"]))
            reader.same("CLIENT", "CACHING", word)
            reader.same("MULTI")
            reader.same("GET", "d")
            reader.same("EXEC")
            reader.same("GET", "e")
            writer.same("SET", "d", 1)
            writer.same("SET", "e", 1)
            invalid(reader, "d" if option == "OPTIN" else "e")
            reader.same("CLIENT", "TRACKING", "OFF")


@pytest.mark.parametrize("target_protocol", [2, 3])
def test_another_client_is_told(pair: Pair, target_protocol: int) -> None:
    with (
        pair.both(target_protocol) as target,
        pair.both(3) as reader,
        pair.both() as old,
        pair.both() as writer,
    ):
        ids = (target.bare.ask("CLIENT", "ID").number, target.ours.ask("CLIENT", "ID").number)
        target.same("SUBSCRIBE", "__redis__:invalidate")
        for client in (reader, old):
            redirect(client, ids)
            client.same("GET", "a")
            writer.same("SET", "a", 1)
            told(target)
        writer.same("FLUSHALL")
        told(target)
        told(target)
        reader.same("GET", "a")
        target.bare.close()
        target.ours.close()
        # The servers may see it go after the change: then they say nothing.
        for side in (writer.bare, writer.ours):
            while b"sub=1" in side.ask("CLIENT", "LIST").raw:
                pass
        writer.same("SET", "a", 2)
        for side in (reader.bare, reader.ours):
            assert side.read().raw.startswith(b">2\r\n$21\r\ntracking-redir-broken\r\n:")
        for side in (reader.bare, reader.ours):
            assert b"broken_redirect" in side.ask("CLIENT", "TRACKINGINFO").raw
            assert b" flags=tR" in side.ask("CLIENT", "INFO").raw


def test_words_and_counts(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as client:
        for line in (
            "TRACKINGINFO", "GETREDIR", "TRACKING MAYBE", "TRACKING ON WHAT", "CACHING YES",
            "TRACKING ON PREFIX a", "TRACKING ON OPTIN OPTOUT", "TRACKING ON BCAST OPTIN",
            "TRACKING ON REDIRECT x", "TRACKING ON REDIRECT 99999999", "TRACKING ON REDIRECT",
            "TRACKING ON BCAST PREFIX b PREFIX a", "TRACKINGINFO", "TRACKING ON BCAST PREFIX aa",
            "TRACKING ON BCAST PREFIX cc PREFIX c", "TRACKING ON BCAST PREFIX d", "TRACKINGINFO",
            "GETREDIR", "TRACKING ON", "CACHING YES", "TRACKING OFF WHAT", "TRACKING OFF",
            "TRACKING OFF", "TRACKING ON OPTIN", "CACHING NO", "CACHING WHAT", "TRACKING ON OPTOUT",
            "TRACKING ON BCAST", "TRACKINGINFO", "TRACKING OFF", "TRACKING ON BCAST",
            "TRACKINGINFO", "TRACKING OFF", "TRACKING ON",
        ):  # fmt: skip
            client.same("CLIENT", *line.split())
        client.same("MGET", *KEYS)
        for side in (client.bare, client.ours):
            # Clients of other tests may be on their way out.
            until(partial(tracks_alone, side), "only one tracks")
            for count in ("keys:8", "items:8", "prefixes:0"):
                assert b"tracking_total_" + count.encode() in info(side)
        client.same("RESET")
        client.same("CLIENT", "TRACKINGINFO")


def test_an_old_value_comes_before_its_invalidation(pair: Pair) -> None:
    """However the two race, whoever keeps what it is told has the last value in the end."""
    reader, writer = pair.ours(), pair.ours()
    reader.ask("HELLO", 3)
    reader.ask("CLIENT", "TRACKING", "ON")
    for value in range(300):
        reader.send(Both.packed("GET", "k"))
        writer.ask("SET", "k", value)
        first = reader.read()
        assert first.kind in "$_", "the reply comes before what makes it stale"
        if first.text != str(value).encode():
            assert reader.read().raw == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
            continue
        writer.ask("SET", "k", "other")
        assert reader.read().raw == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    reader.close()
    writer.close()


def test_what_has_changed_is_told_before_the_next_reply(pair: Pair) -> None:
    """Also while another thread has just heard it."""
    with pair.both(3) as reader, pair.both() as writer:
        for _ in range(300):
            reader.same("CLIENT", "TRACKING", "OFF")
            reader.same("CLIENT", "TRACKING", "ON", "BCAST")
            writer.same("INCR", "key")
            for side in (reader.bare, reader.ours):
                side.send(Both.packed("PING"))
            invalid(reader, "key")
            assert told(reader).raw == b"+PONG\r\n"


@pytest.mark.parametrize("options", [(), ("BCAST",)])
def test_changes_are_told_in_their_order(pair: Pair, options: tuple[str, ...]) -> None:
    """Whichever instances have the keys: the last first."""
    keys = sorted(KEYS, key=lambda key: owner(key.encode(), INSTANCES), reverse=True)
    with pair.both(3) as reader, pair.both() as writer:
        reader.same("CLIENT", "TRACKING", "ON", *options)
        for _ in range(200):
            reader.same("MGET", *keys)
            for key in keys:
                writer.same("INCR", key)
            invalid(reader, *keys)


OWN = [
    ("SET", "key:1", 1),
    ("MSET", "key:1", 1, "key:2", 2, "key:3", 3, "key:4", 4),
    ("DEL", "key:1", "key:2", "key:3"),
    ("EVAL", "return redis.call('SET', KEYS[1], 5)", 1, "key:1"),
    ("EVAL", "return redis.call('MSET', KEYS[1], 5, KEYS[2], 6)", 2, "key:1", "key:2"),
    ("RENAME", "key:1", "key:3"),
    ("DEL", "nothing"),
]


@pytest.mark.parametrize("options", [(), ("BCAST",), ("BCAST", "PREFIX", "key:")])
def test_a_client_may_not_want_to_hear_of_itself(pair: Pair, options: tuple[str, ...]) -> None:
    with pair.both(3) as both, pair.both() as writer:
        writer.same("FLUSHALL")
        both.same("CLIENT", "TRACKING", "ON", "NOLOOP", *options)
        both.same("CLIENT", "TRACKINGINFO")
        for in_block in (False, True):
            for words in OWN:
                if options and words[0] == "EVAL":
                    continue  # the server tells all the same: a script is another client to BCAST
                both.same("MGET", *KEYS, "nothing")
                if in_block:
                    both.same("MULTI")
                    both.same(*words)
                    both.same("EXEC")
                else:
                    both.same(*words)
                both.same("GET", "key:7")
                writer.same("INCR", "key:7")
                invalid(both, "key:7")
        both.same("CLIENT", "TRACKING", "OFF")
        both.same("CLIENT", "TRACKING", "ON")
        both.same("GET", "key:7")
        both.same("SET", "key:7", 1)
        invalid(both, "key:7")


def test_changes_over_several_instances_are_one(pair: Pair) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        reader.same("MGET", *KEYS)
        reader.same("CLIENT", "TRACKING", "ON", "BCAST")
        writer.same("MSET", *(word for key in KEYS for word in (key, 1)))
        bare, ours = reader.bare.read(), reader.ours.read()
        for push in (bare, ours):
            assert {key.text.decode() for key in push.elements[1].elements} == set(KEYS)
        reader.same("CLIENT", "TRACKING", "OFF")
        reader.same("CLIENT", "TRACKING", "ON")
        reader.same("MGET", *KEYS)
        writer.same("MSET", *(word for key in reversed(KEYS) for word in (key, 1)))
        invalid(reader, *reversed(KEYS))


def test_a_script_reads_all_its_keys_or_none(pair: Pair) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        reader.same("CLIENT", "TRACKING", "ON")
        for body, reads in (
            ("return 1", False), ("return redis.call('SET', KEYS[3], 1)", False),
            ("return redis.call('GET', KEYS[1])", True), ("return redis.call('PING')", False),
            ("return redis.call('set', 'undeclared', 1)", False),
        ):  # fmt: skip
            for _ in range(2):
                reader.same("EVAL", body, 3, *KEYS[:3])
                if "SET" not in body:
                    writer.same("MSET", KEYS[1], 1, KEYS[0], 1)
                if reads and pair.server.kind == "redis":
                    invalid(reader, KEYS[1])
                if reads:
                    invalid(reader, KEYS[0])
        reader.same("GET", KEYS[7])
        writer.same("SET", KEYS[7], 1)
        invalid(reader, KEYS[7])


def test_nobody_hears_of_our_records(pair: Pair) -> None:
    """Of writes over several instances, by workers and by the coordinator, and of WAITAOF."""
    keys = spread("hidden")
    with pair.both(3) as listener, pair.both() as writer:
        listener.same("CLIENT", "TRACKING", "ON", "BCAST")
        for number in range(20):
            pairs = [word for key in keys for word in (key, str(number))]
            writer.same("MSET", *pairs)
            writer.same("MSETNX", "hidden:new", 1, *pairs)
            writer.same("RENAME", keys[0], keys[1])
            writer.same("SUNIONSTORE", keys[2], "hidden:none", keys[3])
            writer.same("DEL", *keys)
        listener.ours.send(pack("ECHO", "end"))
        heard = b""
        while b"$3\r\nend" not in heard:
            heard += listener.ours.read().raw
    assert b"hidden" in heard
    assert b"threadis:" not in heard


FORBIDDEN = ["secret:1", "secret:2", "secret:3"]
READS = [
    "GET secret:1", "MGET open secret:1", "MGET secret:1 secret:2 secret:3", "STRLEN secret:2",
    "EXISTS open secret:3", "SUNION s secret:1", "SORT open BY secret:*", "TYPE secret:1",
    "EVAL \"return redis.call('GET', KEYS[1])\" 1 secret:1",
    "EVAL \"return redis.pcall('GET', KEYS[1])\" 1 secret:2",
    "EVAL \"redis.call('GET', KEYS[1]); redis.pcall('GET', ARGV[1])\" 1 open secret:1",
    "MULTI ; GET secret:1 ; EXEC", "MULTI ; GET open ; EXEC", "WATCH secret:2",
    "XREAD STREAMS secret:1 0", "SET open 1 GET", "GETEX secret:1", "LPOS secret:2 x",
]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("BCAST",), ("BCAST", "PREFIX", "secret"), ("OPTIN",)])
def test_who_may_not_read_a_key_hears_of_it_as_on_one_server(
    pair: Pair, options: tuple[str, ...]
) -> None:
    with pair.both(3) as reader, pair.both() as writer:
        writer.same("ACL", "SETUSER", "carl", "on", ">pw", "~open", "~s", "&*", "+@all")
        reader.same("AUTH", "carl", "pw")
        reader.same("CLIENT", "TRACKING", "ON", *options)
        for line in READS:
            if options == ("OPTIN",):
                reader.same("CLIENT", "CACHING", "YES")
            for one in line.split(" ; "):
                reader.same_line(one)
            for key in FORBIDDEN:
                writer.same("SET", key, 1)
                writer.same("DEL", key)
            writer.same("DEL", "open")
            for side in (reader.bare, reader.ours):
                side.send(pack("ECHO", "end"))
            heard = [until_end(side) for side in (reader.bare, reader.ours)]
            assert heard[1] == heard[0], line
        writer.same("ACL", "DELUSER", "carl")


def until_end(side: Connection) -> list[bytes]:
    """The keys that a client hears of before a reply."""
    found: list[bytes] = []
    while (reply := side.read()).raw != b"$3\r\nend\r\n":
        found.append(reply.raw)
    return found


QUEUED = {
    "one": [("GET", "b:0"), ("GET", "b:1"), ("SET", "b:2", "x")],
    "several": [("MGET", *(f"b:{number}" for number in range(4))), ("GET", "b:5")],
    "in order": [("PING",), ("GET", "b:0"), ("SORT", "b:l", "BY", "nosort"), ("SELECT", "0")],
    "script": [("EVAL", "return redis.call('GET', KEYS[1])", "1", "b:0"), ("GET", "b:1")],
}


@pytest.mark.parametrize("watches", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("options", [(), ("OPTIN",)], ids=str)
@pytest.mark.parametrize("rule", ["-get", "-mget", "-eval", "resetkeys ~c:*", "+get"])
@pytest.mark.parametrize("queued", QUEUED)
def test_who_may_not_read_a_key_any_more_at_exec_does_not_hear_of_it(
    pair: Pair, queued: str, rule: str, options: tuple[str, ...], *, watches: bool
) -> None:
    with pair.both(3) as client, pair.both() as writer:
        writer.same("ACL", "SETUSER", "ann", "on", ">pw", "~b:*", "+@all")
        for number in range(6):
            writer.same("SET", f"b:{number}", "1")
        client.same("AUTH", "ann", "pw")
        client.same("CLIENT", "TRACKING", "ON", *options)
        if watches:
            client.same("WATCH", "b:0")
        if options:
            client.same("CLIENT", "CACHING", "YES")
        client.same("MULTI")
        for words in QUEUED[queued]:
            client.same(*words)
        writer.same("ACL", "SETUSER", "ann", *rule.split())
        client.same("EXEC")
        for number in range(6):
            writer.same("SET", f"b:{number}", "2")
            writer.same("DEL", f"b:{number}")
        for side in (client.bare, client.ours):
            side.send(pack("ECHO", "end"))
        heard = [sorted(until_end(side)) for side in (client.bare, client.ours)]
        assert heard[1] == heard[0]
        writer.same("ACL", "DELUSER", "ann")
