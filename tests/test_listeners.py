"""The sockets for clients: what is refused, and that no live server loses its socket."""

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from conftest import Threadis
from raw import Raw
from threadis.errors import ListenError
from threadis.supervisor.listeners import Listeners
from threadis.supervisor.server import ServerBinary
from waiting import children, until


def test_no_port_is_one_free_port_on_all_addresses() -> None:
    bound = Listeners()
    bound.bind_tcp("127.0.0.1 127.0.0.2 -10.255.255.1", None)
    port = bound.tcp_port
    assert [one.address for one in bound.listeners] == [f"127.0.0.1:{port}", f"127.0.0.2:{port}"]
    bound.close()


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"port: {port} is in use on 127.0.0.1"):
            Listeners().bind_tcp("127.0.0.1", port)


@pytest.mark.parametrize("host", ["10.255.255.1", "no.such.name.invalid", "300.1.1.1"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ListenError, match="is not an address of this machine; check --host"):
        Listeners().bind_tcp(host, None)


def test_a_unix_socket_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "clients.sock"
    bound = Listeners()
    bound.bind_unix(str(path))
    assert [(one.address, one.is_unix) for one in bound.listeners] == [(str(path), True)]
    assert path.is_socket()
    bound.close()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "clients.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    bound = Listeners()
    bound.bind_unix(str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:  # somebody else's now
        other.bind(str(path))
        bound.close()
        assert path.exists()


def test_a_live_unix_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clients.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ListenError, match="a server is listening on"):
            Listeners().bind_unix(str(path))
        assert path.is_socket()


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ListenError, match="is not a socket"):
        Listeners().bind_unix(str(tmp_path / "file"))
    with pytest.raises(ListenError, match="longer than 107 bytes"):
        Listeners().bind_unix(str(tmp_path / ("x" * 120)))


def test_the_mode_and_group_of_a_unix_socket_are_as_told(tmp_path: Path) -> None:
    bound = Listeners()
    bound.bind_unix(str(tmp_path / "s"), mode=0o770, group=str(os.getgid()))
    found = (tmp_path / "s").stat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o770, os.getgid())
    bound.close()
    with pytest.raises(ListenError, match="unixsocketgroup: there is no group no-such-group"):
        Listeners().bind_unix(str(tmp_path / "s"), group="no-such-group")
    assert not (tmp_path / "s").exists()


def test_every_address_of_a_name_is_bound() -> None:
    wanted = set()
    for family, *_, address in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM):
        with socket.socket(family) as probe:
            if probe.connect_ex((address[0], 1)) == errno.ECONNREFUSED:  # this machine has it
                wanted.add(address[0])
    bound = Listeners()
    bound.bind_tcp("localhost", None)
    shown = {one.address.rpartition(":")[0].strip("[]") for one in bound.listeners}
    bound.close()
    assert shown == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put another /etc/hosts in place")
def test_both_addresses_of_localhost_are_served(tmp_path: Path) -> None:
    """As Debian's /etc/hosts names them; here, nobody but the start sees that file."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    sees = 'mount --bind "$0" /etc/hosts && exec "$@"'
    running = Threadis(
        tmp_path / "data", tmp_path / "log", ["--host", "localhost", "--save", ""],
        before=["unshare", "--mount", "sh", "-c", sees, str(hosts)],
    )  # fmt: skip
    try:
        running.wait_until_serving()
        for address in ("127.0.0.1", "::1"):
            with redis.Redis(host=address, port=running.port) as client:
                assert client.mset({"a": 1, "b": 2, "c": 3})
    finally:
        running.close()


def test_an_address_that_is_named_twice_is_bound_once() -> None:
    bound = Listeners()
    bound.bind_tcp("127.0.0.1 localhost 127.0.0.2 127.0.0.1 -127.0.0.2", None)
    shown = [one.address.rpartition(":")[0] for one in bound.listeners]
    bound.close()
    assert sorted(set(shown)) == sorted(shown)
    assert {"127.0.0.1", "127.0.0.2"} <= set(shown)


@pytest.mark.parametrize("host", ["* 127.0.0.1", "127.0.0.2 0.0.0.0", "localhost *"])
def test_an_address_beside_all_interfaces_is_refused(host: str) -> None:
    """Both can be bound, but not listen."""
    with pytest.raises(ListenError, match=r"^host: 127\.0\.0\.[12] is included in all interfaces"):
        Listeners().bind_tcp(host, None)
    bound = Listeners()
    bound.bind_tcp("* -::1", None)  # of another family
    bound.close()


def test_each_line_that_is_printed_reaches_it(threadis: Callable[..., Threadis]) -> None:
    """Its redis-cli command, as somebody pastes it."""
    running = threadis("--host", "127.0.0.2 -::1", "--instances", "1", "--workers", "1")
    lines = [line for line in running.log().splitlines() if line.startswith("serving")]
    assert lines
    assert listening_ports(running.process.pid)
    for line in lines:
        words = line.partition("(")[2].rstrip(")").split()
        done = subprocess.run([*words, "PING"], capture_output=True, text=True, check=False)
        assert done.stdout == "PONG\n", (line, done)


def test_a_unix_socket_alone_opens_no_port(
    threadis: Callable[..., Threadis], stock_server: ServerBinary, tmp_path: Path
) -> None:
    path = tmp_path / "only.sock"
    running = threadis(
        "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "770",
        "--server", stock_server.path, "--instances", "2", "--workers", "1",
    )  # fmt: skip
    assert f"redis-cli -s {path}" in running.log()
    assert "redis-cli -p" not in running.log()
    assert path.stat().st_mode & 0o777 == 0o770
    for pid in [running.process.pid, *children(running.process.pid)]:
        assert not listening_ports(pid)
    with Raw(str(path)) as client:
        for name, value in (("unixsocket", str(path)), ("unixsocketperm", "770"), ("port", "0")):
            bulks = "".join(f"${len(word)}\r\n{word}\r\n" for word in (name, value))
            assert client.ask("CONFIG", "GET", name) == f"*2\r\n{bulks}".encode()
        assert client.ask("MSET", "a", 1, "b", 2, "c", 3) == b"+OK\r\n"
        assert client.ask("DBSIZE") == b":3\r\n"
        assert b"tcp_port:0\r\n" in client.ask("INFO", "server")
    os.kill(running.proxy_pid(), signal.SIGKILL)
    until(lambda: answers(path), "the next proxy answers on the same socket")
    assert running.stop() == 0
    assert not path.exists()


def listening_ports(pid: int) -> set[str]:
    """The TCP sockets in state LISTEN that a process has open."""
    held = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    rows = Path(f"/proc/{pid}/net/tcp").read_text() + Path(f"/proc/{pid}/net/tcp6").read_text()
    fields = [row.split() for row in rows.splitlines()]
    return {one[1] for one in fields if one[3] == "0A" and f"socket:[{one[9]}]" in held}


def answers(path: Path) -> bool:
    """Whether a server is there."""
    try:
        with Raw(str(path)) as client:
            return client.ask("PING") == b"+PONG\r\n"
    except (OSError, EOFError):
        return False


def test_no_port_and_no_socket_is_refused(
    run_threadis: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    done = run_threadis("serve", "--port", "0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--unixsocket PATH" in done.stderr
    assert "--port auto" in done.stderr
