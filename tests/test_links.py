"""The coordinator's connections: whoever was answered leaves one that answers the next, too."""

import asyncio
import contextlib
import select
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest

from threadis import control, server
from threadis.coordinator.links import STRANGER, Kind, Link, Links
from waiting import until

PLAIN = Kind(user=STRANGER)
PING, PONG = [b"PING"], [b"+PONG\r\n"]


@pytest.fixture
def socket(stock_server: server.Server, tmp_path: Path) -> Iterator[str]:
    """A stock server's Unix socket."""
    path = tmp_path / "s"
    process = subprocess.Popen(
        [stock_server.path, "--port", "0", "--unixsocket", str(path), "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    until(path.exists, "the server listens")
    yield str(path)
    process.kill()
    process.wait()


@contextlib.contextmanager
def links_to(socket: str) -> Iterator[Links]:
    links = Links(1, b"")
    links.update(known(socket, control.State.READY))
    yield links
    links.update(known(socket, control.State.FAILED))  # closes what it keeps


def known(socket: str, state: control.State) -> control.Instance:
    return control.Instance(index=0, state=state, socket=socket, pid=0, cpus=[])


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


async def ask_late(link: Link) -> None:
    """Ask, and look for the reply only once the time for it is up."""
    loop, wait = asyncio.get_running_loop(), 0.01
    asked = asyncio.ensure_future(link.ask(PING, wait=wait))
    await asyncio.sleep(0)
    end = loop.time() + wait
    # The loop is busy: ten thousand clients have begun to wait, say.
    assert select.select([link.writer.get_extra_info("socket")], [], [], 10)[0]
    while loop.time() <= end:
        pass
    assert await asked == PONG


def test_a_reply_that_came_in_time_counts_however_late_we_look(socket: str) -> None:
    async def ask() -> None:
        with links_to(socket) as links:
            async with links.lease(0, PLAIN) as link:
                await ask_late(link)
                assert await link.ask(PING) == PONG
            assert await links.raw(0, [PING], kind=PLAIN) == PONG

    run(ask())


def test_a_connection_that_was_told_to_give_up_is_not_lent_again(socket: str) -> None:
    async def ask() -> None:
        with links_to(socket) as links:
            async with links.lease(0, PLAIN) as link:
                assert await link.ask(PING) == PONG
                links.update(known(socket, control.State.STOPPED))
                links.update(known(socket, control.State.READY))
            assert await links.raw(0, [PING], kind=PLAIN) == PONG

    run(ask())
