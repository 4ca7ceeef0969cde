"""The coordinator's connections: who is waited for, and that whoever was answered leaves one that
answers the next, too.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from threadis import control
from threadis.coordinator.instances import deadline, links, sockets
from threadis.coordinator.instances.links import ANONYMOUS, Kind, Link, Links, UnknownOutcomeError
from threadis.supervisor import server
from waiting import until

PLAIN = Kind(user=ANONYMOUS)
PING, PONG = [b"PING"], [b"+PONG\r\n"]
LONG = [b"EVAL", b"for i = 1, 1e8 do end return 1", b"0"]
WAIT = 0.01  # seconds; a script of that length is longer
Process = subprocess.Popen[bytes]


@pytest.fixture
def instance(
    stock_server: server.ServerBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Process, str]]:
    """A stock server, and its Unix socket."""
    most = deadline.LOOK * deadline.LOOKS_MOST / WAIT  # as long in all as without the patch
    monkeypatch.setattr(deadline, "LOOK", WAIT)
    monkeypatch.setattr(deadline, "LOOKS_MOST", int(most))
    path = tmp_path / "s"
    process = subprocess.Popen(
        [stock_server.path, "--port", "0", "--unixsocket", str(path), "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: listens(path), "the server listens")
    yield process, str(path)
    process.kill()
    process.wait()


def listens(path: Path) -> bool:
    """Whether somebody can connect there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@contextlib.contextmanager
def links_to(instance: tuple[Process, str]) -> Iterator[Links]:
    links = Links(1, b"")
    tell(links, instance, control.State.READY)
    yield links
    tell(links, instance, control.State.FAILED)  # closes what it keeps


def tell(links: Links, instance: tuple[Process, str], state: control.State) -> None:
    process, path = instance
    links.update(control.Instance(index=0, state=state, socket=path, pid=process.pid, cpus=[]))


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def ask_late(link: Link, process: Process) -> None:
    """Ask, and look for the reply only once the time for it is up, and it has been looked for."""
    loop = asyncio.get_running_loop()
    process.send_signal(signal.SIGSTOP)
    asked = asyncio.ensure_future(link.ask(PING, wait=0))
    for _ in range(5):
        await asyncio.sleep(0)
    process.send_signal(signal.SIGCONT)
    end = loop.time() + WAIT
    # The loop is busy: ten thousand clients have begun to wait, say.
    assert select.select([link.writer.get_extra_info("socket")], [], [], 10)[0]
    while loop.time() <= end:
        pass
    assert await asked == PONG


def test_a_reply_that_came_in_time_counts_however_late_we_look(
    instance: tuple[Process, str],
) -> None:
    async def ask() -> None:
        with links_to(instance) as links:
            async with links.lease(0, PLAIN) as link:
                await ask_late(link, instance[0])
                assert await link.ask(PING) == PONG
            assert await links.raw(0, [PING], kind=PLAIN) == PONG

    run(ask())


def test_a_connection_that_was_told_to_give_up_is_not_lent_again(
    instance: tuple[Process, str],
) -> None:
    async def ask() -> None:
        with links_to(instance) as links:
            async with links.lease(0, PLAIN) as link:
                assert await link.ask(PING) == PONG
                tell(links, instance, control.State.STOPPED)
                tell(links, instance, control.State.READY)
            assert await links.raw(0, [PING], kind=PLAIN) == PONG

    run(ask())


def test_an_instance_at_work_is_waited_for(instance: tuple[Process, str]) -> None:
    async def ask() -> None:
        with links_to(instance) as links:
            assert await links.raw(0, [LONG], kind=PLAIN, wait=WAIT) == [b":1\r\n"]

    run(ask())


def test_an_instance_that_does_nothing_is_not_waited_for(instance: tuple[Process, str]) -> None:
    async def ask() -> None:
        with links_to(instance) as links:
            assert await links.raw(0, [PING], kind=PLAIN) == PONG
            instance[0].send_signal(signal.SIGSTOP)
            with pytest.raises(UnknownOutcomeError, match="did not answer"):
                await links.raw(0, [PING], kind=PLAIN, wait=WAIT)

    run(ask())


def test_a_connection_that_was_made_counts_however_late_we_look(
    instance: tuple[Process, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "TIMEOUT", WAIT)

    async def ask() -> None:
        with links_to(instance) as known:
            loop = asyncio.get_running_loop()
            made = asyncio.ensure_future(known.connect(0, PLAIN))
            await asyncio.sleep(0)
            end = loop.time() + 2 * WAIT
            while loop.time() <= end:  # ten thousand clients have begun to wait, say
                pass
            link = await made
            assert await link.ask(PING) == PONG
            link.writer.close()

    run(ask())


def test_who_finds_the_queue_of_an_instance_full_comes_again(tmp_path: Path) -> None:
    """It says so to whoever comes while very many others do."""
    path, count = str(tmp_path / "s"), 8

    async def answer(client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client:
            client.setblocking(False)
            assert await loop.sock_recv(client, 100)
            await loop.sock_sendall(client, PONG[0])

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.setblocking(False)
            known = Links(1, b"")
            here = control.Instance(0, control.State.READY, path, os.getpid(), [])
            known.update(here)
            asked = [asyncio.ensure_future(known.raw(0, [PING], kind=PLAIN)) for _ in range(count)]
            await asyncio.sleep(2 * sockets.AGAIN)
            for _ in range(count):
                await answer((await loop.sock_accept(listener))[0])
            assert await asyncio.gather(*asked) == [PONG] * count
            known.update(replace(here, state=control.State.FAILED))  # closes what it keeps

    run(ask())
