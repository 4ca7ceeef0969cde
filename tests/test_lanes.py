"""Lanes are capped, and giving one up for another never sends a command elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest

from conftest import Threadis
from threadis import _core
from threadis.bench.load import Load

DATABASES = 400
CONNECTIONS = 24
INSTANCES = 4
LANES = 512  # of one worker; four instances in 400 databases would take 1,600


def test_more_databases_than_lanes(threadis: Callable[..., Threadis]) -> None:
    running = threadis(
        "--instances", str(INSTANCES), "--workers", "1", "--databases", str(DATABASES), "--save", ""
    )  # fmt: skip
    spread = {_core.slot(b"key:%d" % n) * INSTANCES // 16384: b"key:%d" % n for n in range(100)}
    keys = [spread[index] for index in range(INSTANCES)]
    with running.client(single_connection_client=True) as client:
        call: Callable[..., Any] = client.execute_command
        for turn in range(3):
            for db in range(DATABASES):
                call("SELECT", db)
                # One lane of this set stays younger than the rest, or older.
                call("GET", keys[(db + turn) % INSTANCES])
                values = [b"%d:%d:%d" % (turn, db, index) for index in range(INSTANCES)]
                call("MSET", *[part for pair in zip(keys, values, strict=True) for part in pair])
                assert call("MGET", *keys) == values
        info = client.info("threadis")
        assert info["threadis_lanes"] <= LANES
        for index in range(INSTANCES):
            assert info[f"instance{index}"]["keys"] == DATABASES


@pytest.mark.parametrize(("size", "lanes"), [(16, 1), (1000, 9)])
def test_bulky_replies_have_lanes_of_their_own(
    threadis: Callable[..., Threadis], size: int, lanes: int
) -> None:
    """Each client reads what it wrote last: on one instance its commands are on one lane."""
    running = threadis("--instances", "2", "--workers", "1", "--save", "")
    load = Load(
        address=f"127.0.0.1:{running.port}", connections=CONNECTIONS, private_keys=True,
        pipeline=32, mix="mixed:0.3", value_size=size, seconds=2,
    )  # fmt: skip
    load.preload()
    result = load.run()
    assert result.errors == 0, result.examples
    with running.client() as client:
        info: Any = client.info("threadis")
    assert info["threadis_lanes"] == 2 * lanes
