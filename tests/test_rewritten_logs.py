"""Append-only files that are switched on and off, or rewritten, and what a kill leaves of that."""

import json
import shutil
from collections.abc import Callable

import pytest
import redis

from conftest import Threadis
from faults import kill_all
from test_damage import KEYS, fill, found_keys, log_file, write_all
from threadis.supervisor import server
from waiting import until


def rewrite(client: redis.Redis) -> None:
    """Rewrite the logs, and wait until they are written."""
    client.bgrewriteaof()
    until_written(client)


def until_written(client: redis.Redis) -> None:
    """Wait until no log is being rewritten: one that is switched on begins so."""
    names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")

    def is_written() -> bool:
        info = client.info("persistence")
        return not any(info[name] for name in names)

    until(is_written, "it is written")


@pytest.mark.parametrize("wanted", ["yes", "no"])
def test_a_switch_that_was_not_kept_loses_nothing(
    threadis: Callable[..., Threadis], stock_server: server.ServerBinary, wanted: str
) -> None:
    """CONFIG SET appendonly, and a kill of everything as soon as that is done."""
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1"]
    flags += ["--save", ""] if wanted == "yes" else ["--appendonly", "yes"]
    first = threadis(*flags)
    with first.client() as client:
        client.config_set("appendonly", wanted)
        client.config_set("appendfsync", "always")
        write_all(client)
        if wanted == "no":
            client.save()
        until_written(client)
    kill_all(first)
    assert found_keys(threadis(*flags, folder=first.folder)) == KEYS


def test_a_kill_before_a_new_log_is_there_is_harmless(
    threadis: Callable[..., Threadis], stock_server: server.ServerBinary
) -> None:
    """A log that is switched on is one once it has been written: nothing was there that is gone."""
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1"]
    first = threadis(*flags)
    with first.client() as client:
        write_all(client)
        client.save()
        client.config_set("appendonly", "yes")
        until_written(client)
    files = first.folder / "instance-0" / "files"
    until(lambda: json.loads(files.read_bytes())["is_logged"], "it is noted")
    kill_all(first)
    noted = json.loads(files.read_bytes()) | {"manifest": None, "parts": []}
    files.write_text(json.dumps(noted))
    shutil.rmtree(files.parent / "appendonlydir")
    assert found_keys(threadis(*flags, folder=first.folder)) == KEYS


def test_a_log_that_is_rewritten_while_switched_off_is_its_own(
    threadis: Callable[..., Threadis], stock_server: server.ServerBinary
) -> None:
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1"]
    flags += ["--appendonly", "yes"]
    first = threadis(*flags)
    with first.client() as client:
        write_all(client)
        client.config_set("appendonly", "no")
        rewrite(client)
    kill_all(first)
    assert found_keys(threadis(*flags, folder=first.folder)) == KEYS


@pytest.mark.parametrize("rewrites", [True, False], ids=["rewritten", "as it was"])
def test_a_log_that_was_switched_off_is_loaded_where_there_is_no_snapshot(
    threadis: Callable[..., Threadis], stock_server: server.ServerBinary, rewrites: bool
) -> None:
    """Also once it is noted that it is switched off."""
    flags = ["--server", stock_server.path, "--instances", "1", "--workers", "1"]
    flags += ["--appendonly", "yes", "--set", "appendfsync=always"]
    first = threadis(*flags)
    files = first.folder / "instance-0" / "files"
    with first.client() as client:
        write_all(client)
        client.config_set("appendonly", "no")
        if rewrites:
            rewrite(client)

    def is_noted() -> bool:
        noted = json.loads(files.read_bytes())
        bases = [part["number"] for part in noted["parts"] if part["kind"] == "b"]
        return not noted["is_logged"] and bases == [2 if rewrites else 1]

    until(is_noted, "it is noted")
    kill_all(first)
    assert found_keys(threadis(*flags, folder=first.folder)) == KEYS


def test_a_kill_at_the_end_of_a_rewrite_is_harmless(
    threadis: Callable[..., Threadis], stock_server: server.ServerBinary
) -> None:
    """A server deletes what it has rewritten before it strikes it off the manifest."""
    flags = ["--server", stock_server.path, "--instances", "2", "--workers", "1"]
    flags += ["--appendonly", "yes"]
    first = threadis(*flags)
    fill(first, "log")
    folder = first.folder / "instance-0"
    old = [path.name for path in (folder / "appendonlydir").glob("*.1.*")]
    before = (folder / "files").read_bytes()
    with first.client() as client:
        rewrite(client)
    kill_all(first)
    manifest = log_file(first.folder, "manifest")
    base, increment = manifest.read_text().splitlines()
    history = [f"file {name} seq 1 type h" for name in old]
    manifest.write_text("\n".join([base, *history, increment, ""]))
    for name in old:
        (folder / "appendonlydir" / name).unlink(missing_ok=True)
    (folder / "files").write_bytes(before)
    assert found_keys(threadis(*flags, folder=first.folder)) == KEYS
