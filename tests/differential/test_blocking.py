"""Commands that wait, on one instance and over several: two clients and more, in step.

A line of a program is a command of the main client, compared on both sides; or ``1> command``:
client 1 sends it and everybody waits until it waits; ``1< count``: it reads so many replies.
"""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_keyspace import spread
from differential.wire import Connection, pack, split
from waiting import until

pytestmark = pytest.mark.sample

KEYS: Final = dict(zip("ABCDEFGH", spread("w"), strict=True))  # A and E on one instance …
CLIENTS: Final = "12345"

GROUP: Final = "XREADGROUP GROUP g c BLOCK 0 STREAMS"
END: Final = "EVAL \"redis.pcall('XGROUP','DESTROY',KEYS[1],'g') return 1\""
PUSH: Final = "for _, key in ipairs(KEYS) do redis.call('RPUSH', key, 'x') end"
AT_ONCE: Final = [
    f"1> {command} ; {push} ; 1< ; EXISTS A B ; DEL A B C"
    for command in ("BLPOP A B 0", "BRPOP B C A 0", "BLMPOP 0 2 B A LEFT")
    for push in (
        f'EVAL "{PUSH}" 3 A B C',
        f'EVAL "{PUSH}" 3 C B A',
        "MULTI ; RPUSH A x ; RPUSH B x ; RPUSH C x ; EXEC",
        "MULTI ; RPUSH C x ; RPUSH B x ; RPUSH A x ; EXEC",
    )
]
READ_AT_ONCE: Final = [
    "MULTI ; XADD B 1-* f v ; XADD A 1-* f v ; EXEC ; XGROUP CREATE A g $ ; XGROUP CREATE B g $ ; "
    f"1> {command} ; MULTI ; XADD C 1-* f v ; XADD B 1-* f v ; XADD A 1-* f v ; EXEC ; 1< ; "
    "DEL A B C"
    for command in (
        "XREAD BLOCK 0 STREAMS A B $ $",
        "XREAD COUNT 1 BLOCK 0 STREAMS D B A 0 $ 1-1",
        "XREADGROUP GROUP g c BLOCK 0 STREAMS A B > >",
    )
]

PROGRAMS: Final[dict[str, str]] = {
    "pop": "1> BLPOP A 0 ; RPUSH A a b ; LRANGE A 0 -1 ; 1<",
    "there already":
        "RPUSH B x y z ; BLPOP A B 0 ; BRPOP A B 1 ; BLMPOP 0 3 C A B LEFT COUNT 9 ; EXISTS "
        "B ; ZADD C 1 a 2 b 3 c ; BZPOPMIN D C A 0 ; BZPOPMAX C 0 ; BZMPOP 0 2 D C MAX "
        "COUNT 2",
    "there already, on one instance":
        "RPUSH A x y z v w ; BLPOP A 0 ; BRPOP E A 0 ; BLMPOP 0 2 E A LEFT COUNT 2 ; BLMOVE A E "
        "LEFT RIGHT 0 ; BRPOPLPUSH E A 0 ; SET E s ; BLPOP E A 1 ; BLPOP A E 1 ; BLPOP A -1 ; "
        "BLPOP A x ; BLPOP A ; BLMPOP 0 9 A LEFT ; ZADD C 1 a 2 b 3 c ; BZPOPMIN C 0 ; BZPOPMAX C "
        "0 ; BZMPOP 0 1 C MAX COUNT 2 ; XADD B 1-1 f v ; XREAD STREAMS B 0 ; XREAD STREAMS B 1-1 ; "
        "XREAD BLOCK 10 STREAMS B $ ; XGROUP CREATE B g 0 ; XREADGROUP GROUP g c STREAMS B > ; "
        "XREADGROUP GROUP g c BLOCK 10 STREAMS B > ; XREADGROUP GROUP g c STREAMS B 0 ; "
        "XREADGROUP GROUP no c STREAMS B > ; XINFO CONSUMERS B g ; DBSIZE ; 1> BLPOP F 0 ; RPUSH F "
        "x y ; 1< ; BLPOP F 0 ; EXISTS F",
    "in a transaction over several instances": " ; ".join([
        "MULTI ; SET A x ; BLPOP B 0 ; BLPOP C 0 ; BZPOPMIN D 0 ; EXEC ; DEL A ; RPUSH A x",
        "RPUSH B x ; RPUSH C x ; ZADD D 1 a ; MULTI ; BLPOP A 0 ; BRPOP B 0 ; BLPOP C 0",
        "BZPOPMAX D 0 ; EXEC",
    ]),
    "newer entries that are gone": " ; ".join([
        "XADD D 9-1 f v ; XDEL D 9-1 ; 1> XREAD BLOCK 0 STREAMS A D $ 3-3 ; XTRIM D MAXLEN 0",
        "XGROUP CREATE D g 5-5 ; 2> XREADGROUP GROUP g c BLOCK 0 STREAMS D > ; XTRIM D MAXLEN 0",
        "XADD D 10-9 f v ; 1< ; 2< ; XDEL D 10-9 ; 1> XREAD BLOCK 0 STREAMS D 10",
        "XTRIM D MAXLEN 0",
        "XADD D 11-1 f v ; 1< ; DEL D",
    ]),
    "a group that a script ends": " ; ".join([
        f"XGROUP CREATE A g $ MKSTREAM ; XGROUP CREATE B g $ MKSTREAM ; 1> {GROUP} A >",
        f"{END} 1 A ; 1< ; XGROUP CREATE A g $ ; 1> {GROUP} A B > >",
        f"{END} 1 B ; 1< ; XGROUP CREATE B g $ ; 1> {GROUP} A A > >",
        f"{END} 2 A E ; 1< ; XGROUP CREATE A g $ ; 1> {GROUP} A >",
        f"{END} 2 A B ; 1< ; XGROUP CREATE A g $ ; 1> {GROUP} A >",
        f"MULTI ; {END} 1 A ; EXEC ; 1< ; XGROUP CREATE A g $ ; 1> {GROUP} A >",
        f"{END} 1 B ; EVAL \"return 1\" 1 A ; XADD A 5-5 f v ; 1<",
        f"ACL SETUSER greta on nopass ~* +@all ; 2+ AUTH greta x ; 2< ; 2> {GROUP} A >",
        "ACL SETUSER greta -xreadgroup ; EVAL \"return 1\" 1 A ; XTRIM A MAXLEN 0",
        f"{END} 1 A ; 2< ; ACL DELUSER greta ; DEL A B",
    ]),
    "whose rights are lost meanwhile":
        "ACL SETUSER wanda on nopass ~* +@all ; 1+ AUTH wanda x ; 1< ; 1> BLPOP A B 0 ; ACL "
        "SETUSER wanda resetkeys ; LTRIM A 0 1 ; COPY C A ; RENAMENX C E ; SET B x ; DEL B ; "
        "FLUSHDB ; 2> BLPOP A 0 ; ACL SETUSER wanda ~* ; RPUSH A x y ; 1< ; 2< ; 1> BZPOPMIN A C "
        "0 ; ACL SETUSER wanda -@blocking ; ZPOPMIN C ; ZADD C 1 a 2 b ; 1< ; DEL C ; ACL SETUSER "
        "wanda +@all ; XADD D 1-1 f v ; 1> XREAD BLOCK 0 STREAMS D A $ 1-1 ; ACL SETUSER wanda "
        "-xread ; XTRIM D MAXLEN 0 ; XSETID D 1-1 ; XADD D 5-5 f v ; 1< ; DEL D ; ACL DELUSER "
        "wanda",
    "several keys":
        "1> BLPOP A B C D 0 ; LPUSH C x ; 1< ; EXISTS C ; 1> BLPOP A B C D 0 ; LPUSH A y ; "
        "1< ; DBSIZE",
    "several keys at once": " ; ".join([*AT_ONCE, *READ_AT_ONCE] * 3),
    "an earlier key is of another type":
        "1> BLPOP A B 0 ; SET A x ; RPUSH B y ; 1< ; EXISTS B ; DEL A B ; 1> BZPOPMIN A B C 0 ; "
        "MULTI ; SET B x ; ZADD C 1 y ; EXEC ; 1< ; EXISTS C",
    "longest waiting first":
        "1> BLPOP A 0 ; 2> BLPOP B A 0 ; 3> BRPOP A 0 ; RPUSH A a b ; 1< ; 2< ; LLEN A ; "
        "LPUSH A c ; 3< ; DBSIZE",
    "many elements, few waiters":
        "1> BLPOP A 0 ; 2> BRPOP A 0 ; RPUSH A a b c d ; LRANGE A 0 -1 ; 1< ; 2<",
    "move":
        "1> BLMOVE A B LEFT RIGHT 0 ; RPUSH A x ; 1< ; LRANGE B 0 -1 ; 1> BRPOPLPUSH A B 0 "
        "; RPUSH A y ; 1< ; LRANGE B 0 -1 ; 1> BLMOVE A E RIGHT LEFT 0 ; RPUSH A z ; 1< ; "
        "EXISTS A E",
    "chain of moves":
        "1> BLMOVE A B LEFT RIGHT 0 ; 2> BLMOVE B C LEFT RIGHT 0 ; 3> BLPOP C 0 ; RPUSH A x "
        "; 1< ; 2< ; 3< ; DBSIZE",
    "move to itself": "1> BLMOVE A A LEFT RIGHT 0 ; RPUSH A x y ; 1< ; LRANGE A 0 -1",
    "move to another type":
        "SET B x ; 1> BLMOVE A B LEFT RIGHT 0 ; RPUSH A x ; 1< ; LRANGE A 0 -1 ; BLMOVE A B "
        "LEFT RIGHT 0",
    "other types":
        "SET A x ; BLPOP A B 0 ; BLPOP A 0 ; BZPOPMIN A 0 ; RPUSH B x ; BLPOP B A 0 ; BLPOP "
        "C A 0 ; BLMOVE A B LEFT RIGHT 1 ; BZMPOP 0 2 C A MIN ; BLMPOP 0 2 C A LEFT",
    "becomes another type":
        "1> BLPOP A 0 ; SET A x ; DEL A ; ZADD A 1 a ; DEL A ; RPUSH A x ; 1<",
    "several keys become another type":
        "1> BLPOP A B 0 ; 2> BZMPOP 0 2 A B MIN ; XADD A 1-1 f v ; XADD B 1-1 f v ; DEL A B ; "
        "RPUSH B x ; 1< ; ZADD B 1 m ; 2< ; 1> BLMPOP 0 3 A E B LEFT ; 2> BZPOPMAX B A 0 ; SET A "
        "x ; SADD E x ; DEL A E ; RPUSH B x ; 1< ; ZADD A 1 m ; 2< ; DBSIZE",
    "another type comes with a transaction":
        "1> BLPOP A B 0 ; MULTI ; RENAME B B ; PING ; SADD A x ; SET C x ; EXEC ; DEL A ; RPUSH B "
        "x ; 1< ; 1> BZPOPMIN A B 0 ; MULTI ; FLUSHDB ; LPUSH A x ; EXEC ; DEL A ; ZADD B 1 x ; "
        "1< ; 1> BLMPOP 0 2 A B LEFT ; MULTI ; SET A x ; SET B x ; EXEC ; DEL A ; LPUSH A x ; 1<",
    "another type comes with a database":
        "1> BLPOP A B 0 ; 2> BZMPOP 0 2 A E MAX ; SELECT 1 ; XADD A 1-1 f v ; SWAPDB 0 1 ; SWAPDB "
        "0 1 ; SET E x ; SADD B x ; SWAPDB 0 1 ; SELECT 0 ; DEL A B E ; RPUSH B x ; 1< ; ZADD E 1 "
        "m ; 2<",
    "another type comes with a script":
        "1> BLPOP A B 0 ; EVAL \"redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 1)\" 2 A "
        "B ; DEL A ; SET A x ; DEL A ; RPUSH A x ; 1< ; DEL B",
    "a stream becomes another type":
        "XADD A 1-1 f v ; XADD B 1-1 f v ; 1> XREAD BLOCK 0 STREAMS A B $ $ ; SET A x ; XADD B 2-1 "
        "f v ; 1< ; DEL A ; 1> XREAD BLOCK 0 STREAMS B A $ 0 ; MULTI ; SET A x ; ZADD B 1 x ; EXEC "
        "; DEL A ; XADD B 3-1 f v ; 1< ; 1> XREAD BLOCK 0 STREAMS A B $ $ ; MULTI ; SET A x ; "
        "XADD B 4-1 f v ; EXEC ; 1<",
    "lists and sorted sets":
        "1> BZPOPMIN A 0 ; 2> BLPOP A 0 ; RPUSH A x ; 2< ; ZADD A 1 m ; 1< ; DBSIZE",
    "sorted sets":
        "1> BZPOPMIN A B 0 ; 2> BZPOPMAX B C 0 ; 3> BZMPOP 0 2 D B MIN COUNT 5 ; ZADD B 1 a "
        "2.5 b 3 c 4 d ; 1< ; 2< ; 3< ; DBSIZE",
    "multi pop": "1> BLMPOP 0 3 A B C RIGHT COUNT 2 ; RPUSH B a b c ; 1< ; LRANGE B 0 -1",
    "faults":
        "BLPOP ; BLPOP A ; BLPOP A x ; BLPOP A B -1 ; BLPOP A nan ; BLPOP A 1e400 ; BLPOP A "
        "B 1.5x ; BLMOVE A B LEFT x 0 ; BLMOVE A B LEFT RIGHT x ; BLMOVE A B LEFT RIGHT -1 "
        "; BRPOPLPUSH A B x ; BLMPOP x 1 A LEFT ; BLMPOP 0 0 A LEFT ; BLMPOP 0 2 A LEFT ; "
        "BLMPOP 0 2 A B x ; BLMPOP 0 2 A B LEFT COUNT 0 ; BZMPOP 0 2 A B MIN COUNT x ; "
        "BZPOPMIN A B x ; XREAD BLOCK x STREAMS A 0 ; XREAD BLOCK -1 STREAMS A B 0 0 ; "
        "XREAD BLOCK 0 STREAMS A B 0 ; XREAD COUNT x STREAMS A B 0 0 ; XREAD BLOCK 0 "
        "STREAMS A B 0 x ; XREAD STREAMS A B 0 x ; XREAD BLOCK 0 GROUP g c STREAMS A B 0 0 "
        "; XREADGROUP BLOCK 0 STREAMS A B > > ; XREADGROUP GROUP g c BLOCK 0 STREAMS A B > "
        "> ; XREAD ; XREADGROUP GROUP g c STREAMS A B $ $",
    "timeouts":
        "BLPOP A 0.01 ; BLPOP A B 0.01 ; BRPOP A B 0.001 ; BLMOVE A B LEFT LEFT 0.01 ; "
        "BRPOPLPUSH A B 0.01 ; BRPOPLPUSH A E 0.01 ; BLMPOP 0.01 2 A B LEFT ; BZPOPMIN A B "
        "0.01 ; BZPOPMAX A 0.01 ; BZMPOP 0.01 2 A B MAX ; XREAD BLOCK 10 STREAMS A B 0 0 ; "
        "XREAD BLOCK 10 STREAMS A $ ; BLPOP A 0x0.1p-4",
    "in transactions":
        "MULTI ; BLPOP A 0 ; BLPOP A B 0 ; RPUSH A x ; BLPOP A B 0 ; BLMOVE A B LEFT RIGHT "
        "0 ; BRPOPLPUSH B C 0 ; BLMPOP 0 2 A B LEFT ; BZPOPMIN A B 0 ; BZMPOP 0 2 A B MIN ; "
        "XREAD BLOCK 0 STREAMS A B 0 0 ; XREAD BLOCK 0 STREAMS A B $ $ ; EXEC",
    "fed by a transaction":
        "1> BLPOP A B 0 ; MULTI ; RPUSH A x ; DEL A ; EXEC ; MULTI ; RPUSH B y z ; EXEC ; "
        "1< ; LRANGE B 0 -1",
    "fed by a transaction over instances":
        "1> BLPOP A 0 ; 2> BLPOP B 0 ; MULTI ; RPUSH A x ; RPUSH B y ; RPUSH C z ; EXEC ; "
        "1< ; 2< ; EXISTS A B C",
    "fed by others":
        "1> BLPOP A 0 ; RPUSH B x ; RENAME B A ; 1< ; 1> BLPOP A 0 ; RPUSH B 7 ; COPY B A ; "
        "1< ; 1> BLPOP A 0 ; SORT B STORE A ; 1< ; 1> BLPOP A 0 ; LMOVE B A LEFT LEFT ; 1< "
        "; DBSIZE",
    "fed by sets":
        "1> BZPOPMIN A 0 ; SADD B x ; ZUNIONSTORE A 2 B C ; 1< ; 1> BZPOPMIN A 0 ; ZADD D 1 "
        "x ; ZRANGESTORE A D 0 -1 ; 1<",
    "fed by a script":
        "1> BLPOP A 0 ; EVAL \"return redis.call('rpush', KEYS[1], 1, 2)\" 1 A ; 1< ; LRANGE "
        "A 0 -1",
    "fed from another database":
        "1> BLPOP A 0 ; SELECT 3 ; RPUSH A x ; MOVE A 0 ; 1< ; EXISTS A ; 1> BLPOP A 0 ; "
        "RPUSH A y ; SWAPDB 0 3 ; 1< ; SELECT 0 ; EXISTS A",
    "other databases":
        "1> BLPOP A 0 ; SELECT 2 ; RPUSH A x ; 2> BLPOP B 0 ; SELECT 0 ; RPUSH B y ; 2< ; "
        "RPUSH A z ; 1< ; DBSIZE ; SELECT 2 ; DBSIZE",
    "emptied": "1> BLPOP A 0 ; FLUSHALL ; RPUSH A x ; 1<",
    "streams":
        "XADD A 1-1 f v ; XADD B 2-1 f v ; XADD B 2-2 f v ; XREAD STREAMS B C A 0 0 0 ; "
        "XREAD COUNT 1 STREAMS B A 0 0 ; XREAD BLOCK 0 STREAMS D B A 0 2-1 0 ; XREAD "
        "STREAMS B A 2-2 1-1 ; XREAD STREAMS A C $ $ ; SET C x ; XREAD STREAMS B C A 0 0 0 "
        "; XREAD BLOCK 0 STREAMS B C A 0 0 0 ; XREAD BLOCK 0 STREAMS B C $ $",
    "waiting for streams":
        "XADD A 5-1 f v ; 1> XREAD BLOCK 0 STREAMS A B C $ $ 7 ; XADD C 6-1 f v ; 2> XREAD "
        "COUNT 1 BLOCK 0 STREAMS A B $ 0 ; XADD A 6-1 a b ; 1< ; 2< ; 1> XREAD BLOCK 0 "
        "STREAMS A $ ; 2> XREAD BLOCK 0 STREAMS A 6-1 ; XADD A 7-1 c d ; 1< ; 2<",
    "groups":
        "XADD A 1-1 f v ; XADD B 2-1 f v ; XADD B 2-2 f v ; XREADGROUP GROUP g c STREAMS A "
        "B > > ; XGROUP CREATE A g 0 ; XREADGROUP GROUP g c STREAMS A B > > ; XGROUP CREATE "
        "B g 0 ; XREADGROUP GROUP g c COUNT 1 STREAMS B A > > ; XREADGROUP GROUP g c BLOCK "
        "0 STREAMS A B > > ; XREADGROUP GROUP g c BLOCK 0 STREAMS A B 0 0 ; XREADGROUP "
        "GROUP g c STREAMS A B > $ ; XREADGROUP GROUP g c STREAMS A B > x ; XREADGROUP "
        "GROUP g c BLOCK 1 STREAMS A B > > ; XPENDING A g ; XPENDING B g ; SET C x ; "
        "XREADGROUP GROUP g c STREAMS A C > >",
    "waiting for groups":
        "XGROUP CREATE A g 0 MKSTREAM ; XGROUP CREATE B g 0 MKSTREAM ; 1> XREADGROUP GROUP "
        "g c BLOCK 0 STREAMS A B > > ; 2> XREADGROUP GROUP g d BLOCK 0 STREAMS B > ; XADD B "
        "1-1 f v ; 1< ; XADD B 2-1 f v ; 2< ; XPENDING B g - + 10",
    "group goes":
        "XGROUP CREATE A g 0 MKSTREAM ; 1> XREADGROUP GROUP g c BLOCK 0 STREAMS A > ; "
        "XGROUP DESTROY A g ; 1< ; XGROUP CREATE A g 0 ; 1> XREADGROUP GROUP g c BLOCK 0 "
        "STREAMS A > ; DEL A ; 1< ; XGROUP CREATE A g 0 MKSTREAM ; 1> XREADGROUP GROUP g c "
        "BLOCK 0 STREAMS A > ; SET A x ; 1< ; DEL A ; XGROUP CREATE A g 0 MKSTREAM ; XGROUP "
        "CREATE B g 0 MKSTREAM ; 1> XREADGROUP GROUP g c BLOCK 0 STREAMS A B > > ; RENAME B "
        "C ; 1<",
    "same key twice":
        "1> BLPOP A A B A 0 ; RPUSH A x y ; 1< ; LRANGE A 0 -1 ; DEL A ; 1> BRPOP A A 0 ; RPUSH A "
        "x y ; 1< ; DEL A ; 1> BLMPOP 0 3 B A A LEFT COUNT 1 ; RPUSH B x y ; 1< ; DEL A B ; 1> "
        "BLMPOP 0 2 A A LEFT COUNT 9 ; MULTI ; RPUSH A x y ; RPUSH A z ; EXEC ; 1< ; 1> BZPOPMIN "
        "A A 0 ; ZADD A 1 a 2 b ; 1< ; DEL A ; 1> BZMPOP 0 3 A A B MAX COUNT 9 ; ZADD A 1 a 2 b ; "
        "1< ; RPUSH B x ; BLPOP B B 0 ; BLPOP B B 0.01 ; BLMPOP 0.01 2 A A RIGHT ; BLMOVE A A "
        "LEFT LEFT 0.01",
    "same stream twice":
        "XADD A 1-1 o 1 ; 1> XREAD BLOCK 0 STREAMS A A A $ $ $ ; XADD A 5-1 f v ; 1< ; 1> XREAD "
        "BLOCK 0 STREAMS A A $ 5-1 ; XADD A 6-1 f v ; 1< ; 1> XREAD BLOCK 0 STREAMS A A 6-1 8-1 ; "
        "XADD A 7-1 f v ; 1< ; 1> XREAD COUNT 1 BLOCK 0 STREAMS A B A E B $ $ 8-1 $ 0 ; MULTI ; "
        "XADD B 9-1 f v ; XADD B 9-2 f v ; EXEC ; 1<",
    "same stream twice, there already":
        "XADD A 1-1 f v ; XADD A 1-2 f v ; XADD B 1-1 f v ; XREAD BLOCK 0 STREAMS A A A $ 0 1-1 ; "
        "XREAD BLOCK 0 STREAMS A B A B $ 0 1-1 0 ; XREAD STREAMS A A 0 0 ; XREAD STREAMS B A B 0 "
        "0 5 ; XREAD BLOCK 5 STREAMS A A B $ 2 $ ; XGROUP CREATE A g 0 ; XGROUP CREATE B g 0 ; "
        "XREADGROUP GROUP g c COUNT 1 STREAMS A A > > ; XREADGROUP GROUP g c STREAMS A B A 0 > 0",
    "same stream twice, several at once":
        "1> XREAD BLOCK 0 STREAMS A B A $ $ 0 ; 2> XREAD BLOCK 0 STREAMS A A $ $ ; 3> XREAD BLOCK "
        "0 STREAMS C A C A B 0 $ $ 0 $ ; MULTI ; XADD A 1-1 f v ; XADD B 1-1 f v ; EXEC ; 1< ; 2< "
        "; 3<",
    "same stream of a group twice":
        "XGROUP CREATE A g 0 MKSTREAM ; XGROUP CREATE B g 0 MKSTREAM ; 1> XREADGROUP GROUP g c "
        "BLOCK 0 STREAMS A A > > ; XADD A 1-1 f v ; 1< ; 1> XREADGROUP GROUP g c COUNT 1 BLOCK 0 "
        "STREAMS A B A > > > ; MULTI ; XADD A 2-1 f v ; XADD A 2-2 f v ; XADD A 2-3 f v ; EXEC ; "
        "1< ; XPENDING A g ; XREADGROUP GROUP g c STREAMS A A > > ; 1> XREADGROUP GROUP g c BLOCK "
        "0 STREAMS A B B > > > ; DEL B ; 1<",
    "pipelined":
        "1> BLPOP A 0 ; 1+ SET B 1 ; 1+ GET B ; EXISTS B ; RPUSH A x ; 1< 3 ; EXISTS A",
}  # fmt: skip


class Cast:
    """The main client and those that wait, on both sides."""

    def __init__(self, pair: Pair, protocol: int) -> None:
        self._pair, self._protocol = pair, protocol
        self.main = pair.both(protocol)
        self._others: dict[str, Both] = {}
        self._waiting = 0

    def __enter__(self) -> "Cast":
        return self

    def __exit__(self, *_: object) -> None:
        for both in [self.main, *self._others.values()]:
            both.__exit__()

    def play(self, line: str) -> None:
        """One line of a program."""
        if not (found := re.fullmatch(r"([1-5])([><+])\s*(.*)", line)):
            self.main.same(*named(line))
            return
        who, what, rest = found.groups()
        if who not in self._others:
            self._others[who] = self._pair.both(self._protocol)
        both = self._others[who]
        if what == "<":
            for _ in range(int(rest or 1)):
                bare, ours = both.bare.read(), both.ours.read()
                assert ours.raw == bare.raw, f"{line}: {ours.raw!r}, not {bare.raw!r}"
            return
        for side in (both.bare, both.ours):
            before = blocked(side, self.main)
            side.send(pack(*named(rest)))
            if what == ">":
                until(lambda: blocked(side, self.main) == before + 1, rest)  # noqa: B023


def blocked(side: Connection, main: Both) -> int:
    """How many clients wait on a client's side, by its INFO."""
    is_bare = side.socket.family == main.bare.socket.family
    text = (main.bare if is_bare else main.ours).ask("INFO", "clients").text.decode()
    return int(re.findall(r"^blocked_clients:(\d+)", text, re.MULTILINE)[0])


def named(line: str) -> list[bytes]:
    """The words of a line, with keys for their letters."""
    return [KEYS[word.decode()].encode() if word.decode() in KEYS else word for word in split(line)]


@pytest.fixture
def cast(pair: Pair, protocol: int) -> Iterator[Cast]:
    """Clients on both sides; afterwards nobody waits."""
    with Cast(pair, protocol) as cast:
        yield cast
    with pair.both() as both:
        for side in (both.bare, both.ours):
            until(lambda: blocked(side, both) == 0, "nobody waits")  # noqa: B023


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_as_the_bare_server(cast: Cast, name: str) -> None:
    for line in PROGRAMS[name].split(" ; "):
        cast.play(line.strip())
