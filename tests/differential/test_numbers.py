"""Numbers at the end of what there is: taken, or refused, in the server's words."""

import pytest

from differential.pair import Pair
from waiting import until

NUMBERS = [
    2**63 - 1, 2**63 - 2, 2**63, -(2**63), 2**64 - 1, 9_223_372_036_854_775, 2**53, 2**32, 2**31,
    -1, "-0", "+1", "01", "", "1e400", "1e-400", "0x1p-1100", "-1e-400", "nan", "inf",
]  # fmt: skip
COMMANDS = [
    "CLIENT PAUSE {} WRITE", "CLIENT UNPAUSE", "CONFIG SET timeout {}",
    "CONFIG SET timeout 0", "CONFIG SET tcp-keepalive {}", "CONFIG SET tcp-keepalive 300",
    "CLIENT KILL ID {}", "CLIENT KILL MAXAGE {}", "CLIENT LIST ID {}", "CLIENT UNBLOCK {}",
    "CLIENT TRACKING ON REDIRECT {}", "OBJECT FREQ {}", "SELECT {}", "SWAPDB {} 1", "MOVE k {}",
    "XREAD COUNT {} STREAMS s 0", "LMPOP {} none LEFT", "SINTERCARD {} none",
]  # fmt: skip
# Timeouts with which the servers do not wait: wrong ones, and short ones.
SHORT = [2**63, 2**64 - 1, -1, -(2**63), "", "1e400", "1e-400", "0x1p-1100", "nan"]
BLOCKING = [
    "BLPOP none {}", "BLMOVE none x LEFT LEFT {}", "BLMPOP {} 2 none no LEFT", "BZPOPMIN none {}",
    "BZMPOP {} 1 none MIN", "BRPOPLPUSH none x {}",
]  # fmt: skip
# Numbers of replicas of which servers keep 32 bits.
WRAPPED = [2**32, 2**31, 2**63 - 1, 2**63 - 2, 9_223_372_036_854_775, 2**32 - 1, -1, 2**63]


@pytest.mark.sample
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_at_the_end(pair: Pair, number: int | str) -> None:
    with pair.both() as both:
        for line in COMMANDS:
            both.same(*(word.replace("{}", str(number)) for word in line.split()), how="exact")


@pytest.mark.parametrize("number", SHORT)
def test_timeouts_at_the_end(pair: Pair, number: int | str) -> None:
    with pair.both() as both:
        for line in BLOCKING:
            both.same(*(word.replace("{}", str(number)) for word in line.split()), how="exact")


@pytest.mark.parametrize("number", WRAPPED)
def test_numbers_of_replicas_at_the_end(pair: Pair, number: int) -> None:
    with pair.both() as both:
        both.same("WAIT", number, 0)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63 - 2])
def test_a_pause_without_end(pair: Pair, number: int) -> None:
    with pair.both() as both:
        both.same("CLIENT", "PAUSE", number, "WRITE")
        both.same("SET", "pause", 1)  # it is refused, or over at once
        both.same("CLIENT", "UNPAUSE")


@pytest.mark.parametrize("number", ["-1e-400", "-0.0005", "-0x1p-1100"])
def test_a_little_less_than_no_time_is_no_limit(pair: Pair, number: str) -> None:
    with pair.both() as waiter, pair.both() as other:
        for side, feeder in ((waiter.bare, other.bare), (waiter.ours, other.ours)):
            side.send(waiter.packed("BLPOP", "little", number))
            until(lambda: b"blocked_clients:1" in feeder.ask("INFO", "clients").text, "it waits")  # noqa: B023
            assert feeder.ask("RPUSH", "little", 1).raw == b":1\r\n"
            assert side.read().elements[1].text == b"1"


@pytest.mark.parametrize("most", ["1", "1kb", "131072"])
def test_little_memory_for_clients_shuts_nobody_out(pair: Pair, most: str) -> None:
    with pair.both() as both:
        both.same("CONFIG", "SET", "maxmemory-clients", most)
        for _ in range(3):
            with pair.both() as other:
                other.same("SET", "a", "x" * 1000)
                other.same("GET", "a")
        both.same("CONFIG", "SET", "maxmemory-clients", 0)
