"""Placement rules and pinned databases: what they say of a key, what is recorded or refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from conftest import Threadis
from threadis import _core
from threadis.config import config, placement
from threadis.coordinator.keys.colocation import Colocation
from threadis.data.data_dir import DataDir
from threadis.data.layout import even_slot_map
from threadis.errors import ConfigError, DataError

QUEUE = "bull:{*}:*"
INSTANCES = 4
KEYS = st.text("ab:{}", max_size=12).map(str.encode)


def placed(*texts: str, pins: list[tuple[int, int]] | None = None) -> _core.Placement:
    slot_map = [(one.first, one.last, one.instance) for one in even_slot_map(INSTANCES)]
    rules = [rule.parts() for rule in placement.read(texts)]
    return _core.Placement(slot_map, INSTANCES, rules, pins or [])


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Texts of rules, good ones only."""
    pieces = draw(st.lists(st.sampled_from(["*", "a", "b", ":", "ab"]), min_size=1, max_size=7))
    begin = draw(st.integers(0, len(pieces) - 1))
    end = draw(st.integers(begin + 1, len(pieces)))
    text = [*pieces[:begin], "{", *pieces[begin:end], "}", *pieces[end:]]
    return re.sub(r"\*(\{|\}|)\*", r"*\1", re.sub(r"\*+", "*", "".join(text))).replace("{}", "{a}")


def reference(text: str, key: bytes) -> tuple[int, int] | None:
    """What a rule takes of a key, said with a regular expression."""
    shown = {"*": "(?:.*?)", "{": "(", "}": ")"}
    found = re.fullmatch("".join(shown.get(one, one) for one in text).encode(), key, re.DOTALL)
    return found.span(1) if found and found[1] else None


@given(st.lists(rules(), max_size=3), KEYS)
def test_rules_are_what_the_reference_says(texts: list[str], key: bytes) -> None:
    where = placed(*texts)
    found = ((reference(text, key), number) for number, text in enumerate(texts))
    span, rule = next(((span, number) for span, number in found if span), ((0, len(key)), None))
    assert where.part(key) == (*span, rule)
    assert where.slot(key) == _core.slot(key[slice(*span)])


@given(st.lists(rules(), max_size=3), KEYS, KEYS)
def test_a_group_is_on_one_instance(texts: list[str], key: bytes, rest: bytes) -> None:
    where = placed(*texts)
    group = Colocation(where, placement.read(texts), []).group(0, key)
    if group is None:
        return
    assert key in group
    for other in (group.prefix + rest, group.prefix + rest.join(group.tail)):
        if other in group:
            assert where.slot(other) == where.slot(key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bull:*", "needs one pair of braces, around the part of the key that decides, as in"),
        ("{a}:{b}", "needs one pair of braces"),
        ("bull:{*", "needs one pair of braces"),
        ("dramatiq,*:{*}", "is several; give each rule by itself"),
        ("bull:{*}:*,*:{*}", "is several; give each rule by itself"),
        ("}a{", "has nothing in its braces; write a * there, as in bull:{*}:*"),
        ("bull:{}:*", "has nothing in its braces"),
        ("bull:*{*}", "has two * side by side, so the end of the first one is not defined"),
        ("bull:\n{*}", "line breaks and NUL are not allowed"),
    ],
)
def test_what_is_no_rule_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({"placement": [text]}, [])
    assert str(caught.value).startswith("--placement: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        (["3"], "--pin-database: '3' is not a database and its instance; write 3=0 for"),
        (["3=x"], "--pin-database: '3=x' is not a database"),
        (["3=0", "3=1"], "--pin-database: database 3 is given twice"),
    ],
)
def test_what_is_no_pin_is_refused(pins: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        config.load({"pin_database": pins}, [])


def test_both_are_lists_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "threadis.toml"
    file.write_text('placement = ["bull:{*}:*", "{a}*"]\npin-database = ["3=0", "1=2"]\n')
    found = config.load({}, [], str(file))
    assert (found.placement, found.pin_database) == ((QUEUE, "{a}*"), ((1, 2), (3, 0)))
    file.write_text('placement = "bull:{*}:*"\n')
    with pytest.raises(ConfigError, match="is not a list; write placement ="):
        config.load({}, [], str(file))
    with pytest.raises(ConfigError, match="given twice"):
        config.load({"placement": ["{a}", "{a}"]}, [])


def test_pins_must_exist() -> None:
    placement.check_pins(((3, 1),), databases=4, instances=2)
    with pytest.raises(ConfigError, match="no database 4; the last one is 3"):
        placement.check_pins(((4, 1),), databases=4, instances=2)
    with pytest.raises(ConfigError, match="no instance 2; the last one is 1"):
        placement.check_pins(((3, 2),), databases=4, instances=2)


def test_an_empty_directory_may_change_its_rules(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for texts, pins in (((QUEUE,), ()), ((), ((3, 1),)), ((), ())):
        data = DataDir(str(folder))
        data.open(2, texts, pins)
        assert (data.layout.rules, data.layout.pins) == (list(texts), list(pins))
        data.close()


Start = Callable[..., Threadis]
Run = Callable[..., Any]


def test_a_rule_is_recorded_and_cannot_change_under_keys(
    threadis: Start, run_threadis: Run, tmp_path: Path, stock_server: Any
) -> None:
    folder = tmp_path / "data"
    flags = ["--instances", "4", "--server", stock_server.path]
    first = threadis(*flags, "--placement", "{x}*", folder=folder)
    assert "place    {x}*" in first.log()
    assert first.stop() == 0  # an empty snapshot may be there now
    asked = ["--placement", QUEUE, "--pin-database", "3=2", "--save", "3600 1"]
    second = threadis(*flags, *asked, folder=folder)
    assert "place    database 3 on instance 2" in second.log()
    client = second.client()
    keys = [f"bull:mail:{number}" for number in range(50)]
    client.mset(dict.fromkeys(keys, 1))
    second.client(db=3).mset(dict.fromkeys(keys, 3))
    sizes = {k: v["keys"] for k, v in client.info("threadis").items() if k.startswith("instance")}
    assert sorted(sizes.values())[:2] == [0, 0]
    assert sizes["instance2"] >= 50
    assert second.stop() == 0

    done = run_threadis("where", "bull:mail:7", "--dir", str(folder))
    slot = _core.slot(b"mail")
    home = slot * INSTANCES // 16384
    assert done.stdout == (
        f"key       bull:mail:7\nslot      {slot} of mail (bull:{{*}}:*)\n"
        f"instance  {home} (of 0 to 3)\n"
    )
    pinned = run_threadis("where", "bull:mail:7", "--dir", str(folder), "--db", "3")
    assert "database  3, as a whole on one instance" in pinned.stdout
    assert pinned.stdout.endswith("instance  2 (of 0 to 3)\n")
    assert "instance  " in run_threadis("where", "other", "--dir", str(folder)).stdout
    strange = run_threadis("where", "bull:a\x1b[2J\n:\udcff", "--dir", str(folder))
    assert strange.stdout.splitlines()[0] == r"key       bull:a\x1b[2J\n:\xff"
    assert r" of a\x1b[2J\n (bull:{*}:*)" in strange.stdout
    assert len(strange.stdout.splitlines()) == 3
    absent = run_threadis("where", "x", "--db", "16", "--dir", str(folder))
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr == "threadis: db: there is no database 16, only 0 to 15; see --databases\n"
    more = run_threadis("where", "x", "--db", "16", "--databases", "17", "--dir", str(folder))
    assert "instance  " in more.stdout
    nothing = run_threadis("where", "other", "--dir", str(tmp_path / "none"))
    assert nothing.returncode == 1
    assert "holds no data of threadis" in nothing.stderr

    data = DataDir(str(folder))
    with pytest.raises(DataError) as caught:
        data.open(4)
    assert f"placed with --placement '{QUEUE}' --pin-database 3=2; start it like" in str(
        caught.value
    )
    third = threadis(*flags, *asked, folder=folder)
    assert third.client().mget(keys) == [b"1"] * 50


def test_swapdb_of_a_pinned_database_is_refused(threadis: Start) -> None:
    client = threadis("--instances", "2", "--pin-database", "3=0").client()
    for pair in ((3, 5), (5, 3)):
        with pytest.raises(redis.ResponseError, match="database 3 is pinned to an instance"):
            client.swapdb(*pair)
    client.swapdb(4, 5)


@pytest.mark.parametrize(
    ("product", "together", "elsewhere"),
    [
        ("bullmq", ["bull:mail:wait", "bull:mail:7", "bull:mail:7:logs"], "bull:sms:wait"),
        ("bull", ["bull:mail:id", "bull:mail:7:lock"], "bull:sms:id"),
        ("bee-queue", ["bq:mail:jobs", "bq:mail:stalling"], "bq:sms:jobs"),
        ("dramatiq", ["dramatiq", "dramatiq:mail.msgs", "dramatiq:__heartbeats__"], "other"),
        ("rsmq", ["rsmq:mail", "rsmq:mail:Q", "rsmq:QUEUES"], "other"),
    ],
)
def test_a_products_rules_keep_together_what_it_uses_together(
    product: str, together: list[str], elsewhere: str
) -> None:
    where = placed(*placement.read_rules("placement", [product]))
    slots = {where.slot(key.encode()) for key in together}
    assert len(slots) == 1
    assert where.slot(elsewhere.encode()) not in slots


def test_products_and_rules_can_be_mixed() -> None:
    assert placement.read_rules("placement", ["bull,bullmq,bee-queue", "*:{*}"]) == (
        "bull:{*}:*",
        "bq:{*}:*",
        "*:{*}",
    )
    with pytest.raises(ConfigError, match="'nosuch' is not a known product"):
        placement.read_rules("placement", ["bullmq,nosuch"])
