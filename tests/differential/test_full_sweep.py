"""At maxmemory without eviction every command is refused exactly where one server refuses it.

With keys of several instances, with something to do and with nothing; `|` stands between the
commands of a transaction. No command with keys that is supported is missing.
"""

from collections.abc import Iterator
from typing import Final

import pytest

from differential.pair import Both, Pair
from differential.test_full_memory import KEYS, without_memory

A, B, C, D = KEYS  # on four instances
FILL = 100  # large values
GROUPS: Final = {
    "copies": f"""
        COPY {A} {B}new; COPY nosuch {A}new; COPY {A} {A} DB 1; COPY {A} {B} REPLACE; COPY
        nosuch {A}; COPY {A} {B}; COPY {A} {A}; COPY {A} {B} DB 1
    """,
    "moves": f"""
        LMOVE {A}q {B}q LEFT RIGHT; LMOVE nosuch {B}q LEFT RIGHT; RPOPLPUSH {A}q {B}q; RPOPLPUSH
        nosuch {B}q; BLMOVE nosuch {B}q LEFT LEFT 0.01; BRPOPLPUSH nosuch {B}q 0.01; BLMOVE {A}q
        {B}q LEFT LEFT 0.01; RPOPLPUSH {A}q {A}q; LMOVE {A} {B} LEFT LEFT
    """,
    "msetnx": f"""
        MSETNX {A} 1 {B} 2; MSETNX {A}n 1 {B}n 2; MSETNX {A} 1; MSETNX {A}n 1
    """,
    "smove": f"""
        SMOVE nosuch {B}u x; SMOVE {A}u {B}u nosuch; SMOVE {A}u {B}u only; SMOVE {A}u {A}u a
    """,
    "renames": f"""
        RENAME nosuch {B}x; RENAMENX nosuch {B}x; RENAMENX {A} {B}; RENAME {A} {A}; RENAME {A}
        {B}x; RENAMENX {C} {D}y
    """,
    "getex": f"""
        GETEX {A}; GETEX {A} EX 100; GETEX nosuch; GETEX {B} PERSIST; GETDEL {B}; GETSET {A} 1;
        GETDEL nosuch
    """,
    "sorts": f"""
        SORT {A}q STORE {B}new; SORT nosuch STORE {B}new; SORT {A}q; SORT {A}q BY w_*; SORT {A}q
        BY w_* GET o_*; SORT_RO {A}q; SORT nosuch STORE nosuch2; SORT {A}q STORE {A}q
    """,
    "sets": f"""
        SINTERSTORE {A}d {B}u {C}u; SINTERSTORE {A}d nosuch nosuch2; SUNIONSTORE {A}d nosuch;
        SDIFFSTORE {A}d {B}u {C}u; SUNIONSTORE {A}d {B}u {C}u; SINTERSTORE {A} nosuch nosuch2
    """,
    "zsets": f"""
        ZUNIONSTORE {A}d 2 {B}z {C}z; ZINTERSTORE {A}d 2 {B}z nosuch; ZDIFFSTORE {A}d 2 {B}z
        {C}z; ZRANGESTORE {A}d {B}z 0 -1; ZRANGESTORE {A}d nosuch 0 -1
    """,
    "hyperloglogs": f"""
        PFMERGE {A}h {B}h {C}h; PFMERGE {A}h; PFMERGE {A}new nosuch; PFCOUNT {A}h {B}h; PFADD
        {A}h z; PFADD {A}h
    """,
    "bits": f"""
        BITOP AND {A}new {B} {C}; BITOP NOT {A}new nosuch; BITCOUNT {A}; BITPOS {A} 1; SETBIT
        {A} 1 1; BITFIELD {A} GET u8 0; BITFIELD_RO {A} GET u8 0; BITFIELD {A} SET u8 0 1;
        BITFIELD {A}
    """,
    "geo": f"""
        GEOSEARCHSTORE {A}new {B}g FROMLONLAT 1 1 BYRADIUS 1 km; GEORADIUS {B}g 1 1 1 km STORE
        {A}new; GEORADIUS {B}g 1 1 1 km; GEORADIUS {B}g 1 1 1 km STORE {B}new; GEOADD {B}g 1 1
        x; GEOSEARCH {B}g FROMLONLAT 1 1 BYRADIUS 1 km
    """,
    "splits": f"""
        MSET {A} 1 {B} 2; MSET {A} 1; MGET {A} {B}; DEL {C} nosuch; UNLINK {D}h {C}h; EXISTS {A}
        {B}; TOUCH {A} {B}; DEL nosuch nosuch2 nosuch3
    """,
    "pops": f"""
        BLPOP {A}q {B}q 0; BLPOP nosuch nosuch2 0.01; BRPOP {A}none {B}q 0.01; BLMPOP 0.01 2
        {A}none {C}q LEFT; LMPOP 2 {A}none {C}q LEFT; ZMPOP 2 {A}none {C}z MIN; BZPOPMIN {A}none
        {B}z 0.01; BZMPOP 0.01 2 {A}none {B}z MAX; LMPOP 2 nosuch nosuch2 LEFT
    """,
    "streams": f"""
        XREAD STREAMS {A}s {B}s 0 0; XREADGROUP GROUP g c STREAMS {A}s {B}s > >; XREAD BLOCK 10
        STREAMS {A}s {B}s $ $; XREADGROUP GROUP g c STREAMS {A}s >; shape XADD {A}s * a b; XACK
        {A}s g 1-1; XCLAIM {A}s g c 0 1-1; XAUTOCLAIM {A}s g c 0 0; XTRIM {A}s MAXLEN 0; XGROUP
        CREATE {B}s g2 0; XGROUP CREATE nosuch g 0 MKSTREAM; XGROUP SETID {B}s g 0; XGROUP
        CREATECONSUMER {B}s g cc; XGROUP DELCONSUMER {B}s g cc; XGROUP DESTROY {B}s g2; XSETID
        {B}s 9-9; XDEL {B}s 1-1; XLEN {A}s; shape XINFO STREAM {A}s; XPENDING {A}s g
    """,
    "keys": f"""
        MOVE {A} 1; MOVE nosuch 1; SWAPDB 0 1; SWAPDB 0 1; SELECT 0; EXPIRE {A} 100; PERSIST
        {A}; PEXPIREAT {A} 9999999999999; EXPIRE nosuch 1; OBJECT ENCODING {A}; OBJECT FREQ {A};
        TYPE {A}; shape DUMP nosuch; RESTORE {A}new 0 x; TTL {A}
    """,
    "strings": f"""
        SET {A} 1; SET {A} 1 GET; SET {A} 1 XX; SET {A} 1 NX; SETEX {A} 1 1; SETNX {A} 1; APPEND
        {A} 1; SETRANGE {A} 0 x; INCR {A}; INCRBYFLOAT {A} 1; DECR {A}; STRLEN {A}; GETRANGE {A}
        0 1; LCS {A} {B}; SUBSTR {A} 0 1
    """,
    "lists": f"""
        LPUSH {A}q 1; LPUSHX nosuch 1; RPUSHX {A}q 1; LINSERT {A}q BEFORE 1 2; LSET {A}q 0 x;
        LREM {A}q 0 x; LTRIM {A}q 0 0; LPOP {B}q; RPOP {B}q 2; LRANGE {A}q 0 -1; LPOS {A}q 1;
        LINDEX {A}q 0
    """,
    "members": f"""
        SADD {A}u x; SREM {A}u x; SPOP {A}u 99; SRANDMEMBER nosuch; SUNION {A}u {B}u; SINTER
        {A}u {B}u; SDIFF {A}u {B}u; SINTERCARD 2 {A}u {B}u; SMISMEMBER {A}u a b; SISMEMBER {A}u
        a; SCARD {A}u; SSCAN {A}u 0
    """,
    "hashes": f"""
        HSET {A}hh a b; HSETNX {A}hh a b; HDEL {A}hh a; HINCRBY {A}hh c 1; HINCRBYFLOAT {A}hh c
        1; HGETALL {A}hh; HMSET {A}hh a b; HMGET {A}hh a
    """,
    "scores": f"""
        ZADD {A}z 1 a; ZINCRBY {A}z 1 a; ZREM {A}z a; ZPOPMIN {D}z; ZREMRANGEBYRANK {D}z 0 0;
        ZUNION 2 {A}z {B}z; ZINTER 2 {A}z {B}z; ZDIFF 2 {A}z {B}z; ZINTERCARD 2 {A}z {B}z;
        ZREMRANGEBYSCORE {D}z 0 1; ZREMRANGEBYLEX {D}z - +
    """,
    "scripts": f"""
        EVAL return(1) 0; EVAL return(1) 2 {A} {B}; EVAL return(redis.call('get',KEYS[1])) 1
        {A}; EVAL return(redis.call('set',KEYS[1],1)) 1 {A}; EVAL
        return(redis.call('set',KEYS[1],1)) 2 {A} {B}; EVAL return(redis.call('del',KEYS[1])) 2
        {A}x {B}; EVAL return(redis.call('set',ARGV[1],1)) 1 {A} {B}; EVAL_RO
        return(redis.call('get',ARGV[1])) 1 {A} {B}; EVAL return(redis.call('get',ARGV[1])) 0
        {B}; FCALL nosuch 0; SCRIPT LOAD return(7); SCRIPT EXISTS x; shape FUNCTION LIST; shape
        FUNCTION FLUSH; EVALSHA nosuch 0; SCRIPT FLUSH; EVAL
        return(redis.call('rename',KEYS[1],KEYS[2])) 2 {A}nosuch {B}; EVAL
        return(redis.call('lpop',KEYS[1])) 2 {A}q {B}q
    """,
    "server": f"""
        PUBLISH a b; PUBSUB NUMPAT; PING; ECHO x; shape TIME; DBSIZE; shape SCAN 0 COUNT 1000;
        shape KEYS nosuch; shape RANDOMKEY; shape INFO server; CONFIG GET maxmemory; shape
        CLIENT ID; shape CLIENT LIST; WATCH {A} {B}; UNWATCH; shape COMMAND COUNT; shape
        LASTSAVE; shape MEMORY USAGE {A}; shape SLOWLOG LEN; shape LATENCY LATEST; ACL WHOAMI;
        ACL SETUSER zz; ACL DELUSER zz; WAIT 0 0; CONFIG SET maxmemory-samples 6; shape CLIENT
        SETNAME x; shape CLIENT TRACKING ON; shape CLIENT TRACKING OFF; shape HELLO 2; RESET
    """,
    "newer": f"""
        SET {A} 1 EX 10; HSETEX {A}hh FIELDS 1 a b; HEXPIRE {A}hh 10 FIELDS 1 a; HGETEX {A}hh
        FIELDS 1 a; HGETDEL {A}hh FIELDS 1 a; HPERSIST {A}hh FIELDS 1 a; MSETEX 2 {A} 1 {B} 2 EX
        10; MSETEX 1 {A} 1; DELIFEQ {A} zz; SET {A} 1 IFEQ 9; DELEX {A}
    """,
    "transactions": f"""
        MULTI|DEL {A}hh {B}x|shape EXEC; MULTI|DEL {A}hh|DEL {B}hh|shape EXEC; MULTI|GET {A}|GET
        {B}|shape EXEC; MULTI|MGET {A} {B}|shape EXEC; MULTI|SET {A} 1|shape EXEC; MULTI|DEL
        {A}hh|SET {B} 1|shape EXEC; MULTI|LPOP {A}q|LPOP {B}q|shape EXEC; MULTI|RENAME {A}nosuch
        {B}|shape EXEC; MULTI|SUNION {A}u {B}u|DEL {C}hh|shape EXEC; MULTI|shape EXEC;
        MULTI|PING|shape EXEC; MULTI|DBSIZE|GET {A}|shape EXEC; MULTI|LMOVE {A}q {B}q LEFT
        LEFT|shape EXEC; MULTI|EXPIRE {A} 100|EXPIRE {B} 100|shape EXEC; MULTI|EVAL
        return(redis.call('get',KEYS[1])) 1 {A}|shape EXEC; MULTI|SELECT 1|GET {A}|SELECT
        0|shape EXEC; MULTI|GET {A}|DISCARD; MULTI|UNLINK {A}hh {B}hh|shape EXEC; MULTI|BLPOP
        {A}q {B}q 0|shape EXEC; MULTI|GETEX {A} EX 10|GETEX {B}|shape EXEC; MULTI|SINTERCARD 2
        {A}u {B}u|shape EXEC; MULTI|XREAD STREAMS {A}s {B}s 0 0|shape EXEC; MULTI|PUBLISH a
        b|DEL {A}hh|shape EXEC; MULTI|FLUSHDB|shape EXEC
    """,
    "reads": f"""
        GEODIST {A}g m m; GEOHASH {A}g m; GEOPOS {A}g m; GEORADIUS_RO {A}g 1 1 1 km;
        GEORADIUSBYMEMBER_RO {A}g m 1 km; GEORADIUSBYMEMBER {A}g m 1 km; GETBIT {A} 0;
        HEXISTS {A}hh a; HGET {A}hh a; HKEYS {A}hh; HLEN {A}hh; HSCAN {A}hh 0; HSTRLEN {A}hh a;
        HVALS {A}hh; HRANDFIELD {A}none; LLEN {A}q; SMEMBERS {A}u; XRANGE {A}s - +;
        XREVRANGE {A}s + -; ZCARD {A}z; ZCOUNT {A}z 0 1; ZLEXCOUNT {A}z - +; ZMSCORE {A}z a none;
        ZRANDMEMBER {A}none; ZRANGE {A}z 0 -1; ZRANGEBYLEX {A}z - +; ZRANGEBYSCORE {A}z 0 9;
        ZRANK {A}z a; ZREVRANGE {A}z 0 -1; ZREVRANGEBYLEX {A}z + -; ZREVRANGEBYSCORE {A}z 9 0;
        ZREVRANK {A}z a; ZSCAN {A}z 0; ZSCORE {A}z a; EXPIRETIME {A}; PEXPIRETIME {A}; PTTL {A};
        HTTL {A}hh FIELDS 1 a; HPTTL {A}hh FIELDS 1 a; HEXPIRETIME {A}hh FIELDS 1 a;
        HPEXPIRETIME {A}hh FIELDS 1 a
    """,
    "more": f"""
        BZPOPMAX {A}none {B}z 0.01; BZPOPMAX {A}z {A}none 0.01; ZPOPMAX {A}z; DECRBY {A} 1;
        INCRBY {A} 1; RPUSH {A}q 1; PSETEX {A} 1000 1; EXPIREAT {A} 9999999999; PEXPIRE {A} 99999;
        HPEXPIRE {A}hh 99999 FIELDS 1 a; HEXPIREAT {A}hh 9999999999 FIELDS 1 a;
        HPEXPIREAT {A}hh 9999999999999 FIELDS 1 a; RESTORE-ASKING {A}new 0 x; SPUBLISH a b;
        EVALSHA_RO nosuch 2 {A} {B}; FCALL_RO nosuch 2 {A} {B}; BLPOP {A}none {A}q 0.01;
        BRPOP {A}none {A}q {A}more 0.01; BZPOPMIN {A}none {A}z 0.01; SSUBSCRIBE a; SUNSUBSCRIBE a
    """,
    "nulls": f"""
        MULTI|MGET {A} nosuch {B}|DEL {C}hh|EXEC; MULTI|HMGET {A}hh a none|DEL {B}hh|EXEC;
        MULTI|LPOP nosuch|RPOP {B}none|GET {A}none|EXEC; MGET {A} nosuch {B};
        MULTI|GEOHASH {A}g m none|DEL {B}g|EXEC; MULTI|LPOP {A}none 2|SPOP {B}none|EXEC
    """,
}


def lines(group: str) -> list[list[str]]:
    """The commands of each line of a group."""
    return [line.strip().split("|") for line in " ".join(GROUPS[group].split()).split(";")]


@pytest.fixture
def full(pair: Pair) -> Iterator[Both]:
    """Two servers that have no memory left."""
    lines = (
        "SET {1} {0}", "RPUSH {1}q 1 2 3 4 5 6", "SADD {1}u a b {1} only",
        "ZADD {1}z 1 a 2.5 b {0} {1} 7 e", "PFADD {1}h a {1}", "XADD {1}s 1-1 f v",
        "XGROUP CREATE {1}s g 0", "GEOADD {1}g 1 1 m", "HSET {1}hh a b",
    )  # fmt: skip
    with pair.both() as admin, without_memory(admin, FILL, *lines):
        yield admin


@pytest.mark.sample
@pytest.mark.parametrize("group", GROUPS)
def test_what_one_server_refuses_is_refused_and_nothing_else(
    pair: Pair, full: Both, protocol: int, group: str
) -> None:
    with pair.both(protocol) as both:
        for line in lines(group):
            for command in line:
                both.same_line(command)
    full.same("DBSIZE")


# They need another server, look into what only developers know, or run in no standalone server.
LEFT_OUT: Final = {"migrate", "pfdebug", "clusterscan"}


def test_no_command_with_keys_is_missing(pair: Pair) -> None:
    parts = [part.split() for group in GROUPS for line in lines(group) for part in line]
    known = {word.lower() for words in parts for word in words[:2]}
    wanted = {row.name.split("|")[0] for row in pair.supported() if row.keys}
    assert wanted - known <= LEFT_OUT
