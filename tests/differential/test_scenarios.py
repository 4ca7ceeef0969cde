"""What users do, command by command: each reply is the bare server's."""

import pytest

from differential import scenarios_collections, scenarios_keys, scenarios_streams
from differential.pair import Pair, marked
from differential.wire import Connection
from threadis.catalog.blocking import BLOCKING

SCENARIOS = scenarios_keys.SCENARIOS | scenarios_collections.SCENARIOS | scenarios_streams.SCENARIOS
# Commands that no scenario runs, with the test that does.
FAMILIES = {
    b"acl": "test_acl",
    b"commandlog": "test_administration",
    b"debug": "test_debug",
    b"eval": "test_scripts",
    b"eval_ro": "test_scripts",
    b"evalsha": "test_scripts",
    b"evalsha_ro": "test_scripts",
    b"fcall": "test_scripts",
    b"fcall_ro": "test_scripts",
    b"function": "test_scripts",
    b"latency": "test_administration",
    b"memory": "test_administration",
    b"module": "test_administration",
    b"monitor": "test_monitor",
    b"script": "test_scripts",
    b"slowlog": "test_administration",
    **dict.fromkeys((name.encode() for name in BLOCKING), "test_blocking"),
}
IN_TRANSACTIONS = (b"multi", b"exec", b"discard", b"watch", b"unwatch", b"swapdb")
SUBSCRIPTIONS = (
    b"subscribe", b"psubscribe", b"ssubscribe", b"unsubscribe", b"punsubscribe", b"sunsubscribe",
    b"publish", b"spublish", b"pubsub", b"pubsub|channels", b"pubsub|numsub", b"pubsub|numpat",
    b"pubsub|shardchannels", b"pubsub|shardnumsub", b"pubsub|help",
)  # fmt: skip
ON_ALL = (
    b"save", b"bgsave", b"bgrewriteaof", b"lastsave", b"replicaof", b"slaveof", b"shutdown",
    b"wait", b"waitaof", b"config|rewrite", b"failover", b"migrate",
)  # fmt: skip
OF_CLIENTS = (
    b"client|kill", b"client|pause", b"client|unpause", b"client|reply", b"client|unblock",
    b"client|capa", b"client|import-source",
)  # fmt: skip
TRACKS = (b"client|tracking", b"client|caching", b"client|getredir", b"client|trackinginfo")
ELSEWHERE = {
    **dict.fromkeys(ON_ALL, "test_administration"),
    **dict.fromkeys(OF_CLIENTS, "test_clients"),
    **dict.fromkeys(IN_TRANSACTIONS, "test_transactions"),
    **dict.fromkeys(SUBSCRIPTIONS, "test_pubsub"),
    **dict.fromkeys(TRACKS, "test_tracking"),
    b"auth": "test_session",
    b"client|getname": "test_session",
    b"client|id": "test_session",
    b"client|info": "test_session",
    b"client|list": "test_session",
    b"client|no-evict": "test_session",
    b"client|no-touch": "test_session",
    b"client|setinfo": "test_session",
    b"client|setname": "test_session",
    b"config|set": "test_configuration",
    b"hello": "test_session",
    b"info": "test_configuration",
    b"object|freq": "test_configuration",
    b"quit": "test_session",
    b"reset": "test_session",
    b"restore": "below",
    b"restore-asking": "below",
    b"scan": "test_keyspace",
    b"debug|object": "stock servers refuse DEBUG unless told otherwise",
    b"asking": "standalone servers refuse it",
    b"readonly": "standalone servers refuse it",
    b"readwrite": "standalone servers refuse it",
    b"cluster": "standalone servers refuse it",
}


def lines(scenario: str) -> list[str]:
    return [line for line in scenario.splitlines() if line]


@pytest.mark.sample
@pytest.mark.parametrize("name", SCENARIOS)
def test_one_after_the_other(pair: Pair, protocol: int, name: str) -> None:
    with pair.both(protocol) as both:
        for line in lines(SCENARIOS[name]):
            both.same_line(line)


@pytest.mark.sample
@pytest.mark.parametrize("name", SCENARIOS)
def test_as_one_pipeline(pair: Pair, protocol: int, name: str) -> None:
    with pair.both(protocol) as both:
        read = [marked(line) for line in lines(SCENARIOS[name])]
        both.same_marked(read)


VALUES = """
SET {k}1 "a string with \\x00 bytes"
SET {k}2 12345
RPUSH {k}3 a b c
SADD {k}4 1 2 3
SADD {k}5 word
ZADD {k}6 1 a 2.5 b
HSET {k}7 f v g w
XADD {k}8 1-1 f v
PFADD {k}9 a b c
"""


def test_a_dump_is_the_same_and_can_be_restored(pair: Pair, protocol: int) -> None:
    with pair.both(protocol) as both:
        for line in lines(VALUES):
            both.same_line(line)
        for number in range(1, 10):
            dump = both.same("DUMP", f"{{k}}{number}", how="exact").text
            copy = f"copy:{number}"
            both.same("RESTORE", copy, 0, dump)
            assert both.same("RESTORE", copy, 0, dump).text.startswith(b"BUSYKEY")
            both.same("RESTORE", copy, 99999999999000, dump, "REPLACE", "ABSTTL")
            both.same("PEXPIRETIME", copy)
            both.same("RESTORE-ASKING", copy, 1000000, dump, "REPLACE", "IDLETIME", 5)
            assert both.same("DUMP", copy, how="exact").text == dump
            both.same("RESTORE", "other", 0, dump[:-1] + b"x")
            both.same("RESTORE", copy, -1, dump, "REPLACE")
            both.same("RESTORE", copy, 0, dump, "FREQ", 300)


def test_every_supported_command_is_used_with_success(pair: Pair) -> None:
    bare = Connection(pair.bare)
    try:
        used = set(ELSEWHERE)
        with pair.both() as both:
            for scenario in SCENARIOS.values():
                for line in ["FLUSHALL", *lines(scenario)]:
                    _, words = marked(line)
                    if not bare.ask(*words).is_error:
                        used.add(both.name(words))
    finally:
        bare.close()
    names = {row.name.encode() for row in pair.supported()}
    names = {name for name in names if not name.startswith((b"cluster|", b"clusterscan"))}
    names = {name for name in names if name.split(b"|")[0] not in FAMILIES}
    assert names - used == set()
