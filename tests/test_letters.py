"""Bugs in what the workers' letters ask for: they cost no other letter, and keep no lock."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from threadis import proxy
from threadis.coordinator.multikey.commits import Commits


class Coordinator:
    """Takes letters; some are too much for it."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.given_up: list[object] = []

    def receive(self, letter: object) -> None:
        if letter == "bad":
            raise KeyError(letter)
        self.taken.append(letter)

    def give_up(self, letter: object) -> None:
        self.given_up.append(letter)


def test_one_that_fails_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server: Any = proxy.ProxyMain(ours)
        server._coordinator = coordinator = Coordinator()
        server._core = SimpleNamespace(take=lambda: ["first", "bad", "bad", "last"])
        server._read_letters()
    assert coordinator.taken == ["first", "last"]
    assert coordinator.given_up == ["bad", "bad"]
    assert "a letter of a worker could not be handled: str" in caplog.text


def test_a_bug_in_settling_a_write_keeps_no_lock() -> None:
    released: list[str] = []

    async def fail(*_: object) -> None:
        raise TypeError("a bug")

    async def settle() -> None:
        commits: Any = SimpleNamespace(
            _running={b"name"},
            _locks=SimpleNamespace(release=released.append, release_of_worker=released.append),
            _links=SimpleNamespace(instance=lambda index: SimpleNamespace(socket="")),
            _drain_all=fail,
            _drain_and_resolve=fail,
        )
        own: Any = "own"
        letter: Any = SimpleNamespace(lanes=[(0, b"lane")], name=b"name", token="a worker's")
        with pytest.raises(TypeError):
            await Commits._resolve_and_release(commits, own, b"name", 0, [1], [])
        with pytest.raises(TypeError):
            await Commits._resolve_for_worker(commits, letter)
        assert not commits._running

    asyncio.run(settle())
    assert released == ["own", "a worker's"]
