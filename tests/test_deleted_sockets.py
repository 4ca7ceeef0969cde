"""Whoever deletes the instances' sockets while it runs cuts nobody off."""

import os
import shutil
import signal

import pytest

from test_supervisor import KEYS, Start, answers, check, fill
from waiting import until


@pytest.mark.parametrize("dies", ["proxy", "instance"])
def test_whoever_deletes_the_sockets_cuts_nobody_off(threadis: Start, dies: str) -> None:
    running = threadis("--instances", "2", "--workers", "1", "--appendonly", "yes")
    with running.client() as client:
        fill(client)
        shutil.rmtree(running.folder / "sockets")
        until(lambda: running.log().count("replaced by a link") == 2, "they are put back")
        if dies == "proxy":
            os.kill(running.proxy_pid(), signal.SIGKILL)
            until(lambda: "proxy serves again" in running.log(), "another proxy")
        else:
            os.kill(running.instance_pids()[0], signal.SIGKILL)
            until(lambda: "instance 0 is back" in running.log(), "another process")
        until(lambda: all(answers(client, key) for key in KEYS), "all keys answer")
        check(client)
        shutil.rmtree(running.folder / "sockets")  # also of those that were put back
        until(lambda: running.log().count("replaced by a link") == 4, "they are put back again")
        os.kill(running.proxy_pid(), signal.SIGKILL)
        until(lambda: answers(client, KEYS[0]) and answers(client, KEYS[1]), "a proxy")
        until(lambda: all(answers(client, key) for key in KEYS), "all keys answer")
        check(client)
    assert running.stop() == 0
    assert not (running.folder / "sockets").exists()


def test_sockets_that_cannot_be_put_back_are_told_of(threadis: Start) -> None:
    running = threadis("--instances", "1", "--workers", "1")
    folder = running.folder / "sockets"
    with running.client() as client:
        assert client.set("a", "1")
        shutil.rmtree(folder)
        folder.touch()  # nobody can make a folder of that name, be it root
        until(lambda: "cannot be restored" in running.log(), "somebody says so")
        assert client.set("a", "2")  # what is connected goes on
        folder.unlink()
        until(lambda: "replaced by a link" in running.log(), "it is put back")
        os.kill(running.proxy_pid(), signal.SIGKILL)
        until(lambda: answers(client, "a"), "another proxy")
        assert client.get("a") == b"2"
