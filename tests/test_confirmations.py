"""Who sends one SUBSCRIBE after the other hears what is published, however slow an instance is."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from conftest import Threadis
from faults import stopped
from raw import Address, Raw, bare_server, command
from threadis.supervisor.server import ServerBinary
from waiting import until

KINDS = [("SUBSCRIBE", "PUBLISH"), ("PSUBSCRIBE", "PUBLISH"), ("SSUBSCRIBE", "SPUBLISH")]
END = "all is told"
FLAGS = ("--instances", "2", "--save", "")


def up_to_the_end(client: Raw) -> bytes:
    client.send(command("PING", END))
    lines = [client.line()]
    while END.encode() not in lines[-1]:
        lines.append(client.line())
    return b"".join(lines)


def told(
    address: Address, login: list[bytes], kind: tuple[str, str], fault: Callable[[], Any]
) -> tuple[list[bytes], bytes]:
    """How many receive each message, and what a client reads that waits for no confirmation."""
    subscribe, publish = kind
    counts: list[bytes] = []
    with Raw(address) as listener, Raw(address) as speaker:
        for line in [b"", *login]:
            listener.send(line)
            up_to_the_end(listener)
        with fault():
            for number in range(6):
                listener.feed([command(subscribe, f"c{number}", "all")])
                if number == 2:
                    listener.feed([command(f"{subscribe[:-9]}UNSUBSCRIBE", "c0", "no")])
                if number == 3:
                    listener.feed([command("PING", "between")])
                if number == 4:
                    listener.feed([command(subscribe, "c4") + command(subscribe)])
                for name in (f"c{number}", "all", "c0"):
                    counts.append(speaker.ask(publish, name, f"{number}"))
            listener.send(command("SET", "k", "in its turn") + command("GET", "k"))
            listener.send(command(subscribe, "last"))
        return counts, up_to_the_end(listener)


HELLO = command("HELLO", 3)
LOGINS = {"RESP2": [], "RESP3": [HELLO]}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("login", LOGINS)
def test_no_subscription_waits_for_the_confirmation_of_another(
    threadis: Callable[..., Threadis],
    stock_server: ServerBinary,
    tmp_path: Path,
    login: str,
    workers: int,
) -> None:
    ours = str(tmp_path / "ours.sock")  # it shows what was read
    flags = ("--server", stock_server.path, "--workers", str(workers), "--unixsocket", ours)
    slow = threadis(*FLAGS, *flags).instance_pids()[1]
    with bare_server(stock_server.path, tmp_path) as bare:
        for kind in KINDS:
            expected = told(bare, LOGINS[login], kind, nullcontext)
            found = told(ours, LOGINS[login], kind, lambda: stopped(slow))
            assert found == expected
    with Raw(ours) as client:
        until(lambda: client.ask("PUBSUB", "CHANNELS") == b"*0\r\n", "nobody listens")
        until(lambda: client.ask("PUBSUB", "SHARDCHANNELS") == b"*0\r\n", "nor there")


def test_who_leaves_unconfirmed_is_forgotten(threadis: Callable[..., Threadis]) -> None:
    running = threadis(*FLAGS)
    address = ("127.0.0.1", running.port)
    with Raw(address) as speaker:
        listeners = [Raw(address) for _ in range(3)]
        for listener in listeners:
            listener.ask("PING")
        with stopped(running.instance_pids()[1]):
            for listener in listeners:
                listener.send(command("SUBSCRIBE", "a") + command("SUBSCRIBE", "b"))
            assert speaker.ask("PUBLISH", "b", "x") == b":3\r\n"
            listeners[0].socket.close()
            listeners[1].reset()
            listeners[2].send(command("QUIT"))
            sent = 1
            while speaker.ask("PUBLISH", "b", "x") != b":1\r\n":
                sent += 1
        rest = listeners[2].rest()
        listeners[2].socket.close()
        assert [rest.count(word) for word in (b"\r\nsubscribe\r\n", b"\r\nmessage\r\n")] == [
            2,
            sent + 1,
        ]
        assert rest.endswith(b"+OK\r\n")
        until(lambda: speaker.ask("PUBSUB", "CHANNELS") == b"*0\r\n", "all are forgotten")
