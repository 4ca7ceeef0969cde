"""What is remembered of a script: enough to lend it its keys at once, and no more."""

from threadis.coordinator.keys.colocation import Group
from threadis.coordinator.lua.profile import NEWEST, TOUCHES, ScriptProfile


def run(known: ScriptProfile, touches: set[bytes], groups: list[Group]) -> int:
    """A run that touches these keys undeclared; how many it was not lent."""
    missing = sorted(touches - set(known.guesses(groups)))
    known.touched(missing, groups)
    return len(missing)


def test_the_same_keys_are_lent_from_the_third_run_on() -> None:
    known, keys = ScriptProfile(), {b"key:%d" % number for number in range(3 * NEWEST)}
    assert run(known, keys, []) == 3 * NEWEST
    assert run(known, keys, []) == 2 * NEWEST
    assert run(known, keys, []) == 0


def test_keys_that_never_come_again_are_not_lent() -> None:
    known, missing = ScriptProfile(), 0
    for number in range(3 * TOUCHES):
        missing += run(known, {b"always", b"key:%d" % number}, [])
        assert len(known.guesses([])) <= NEWEST + 1
    assert missing == 3 * TOUCHES + 2
    assert b"always" in known.guesses([])


def test_another_queues_keys_are_not_lent() -> None:
    known = ScriptProfile()
    mail, video = [Group(b"bull:mail", (b":", b""))], [Group(b"bull:video", (b":", b""))]
    run(known, {b"bull:mail:1", b"bull:mail:2"}, mail)
    assert known.guesses(video) == []
    run(known, {b"bull:video:1"}, video)
    assert known.guesses(mail) == [b"bull:mail:1", b"bull:mail:2"]
