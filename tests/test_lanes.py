"""Lanes are capped, and giving one up for another never sends a command elsewhere."""

from collections.abc import Callable
from typing import Any

from conftest import Threadis
from threadis import _core

DATABASES = 400
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
