"""The sockets for clients: what is refused, and that no live server loses its socket."""

import socket
from pathlib import Path

import pytest

from threadis.errors import ListenError
from threadis.listeners import Listeners


def test_port_0_is_one_free_port_on_all_addresses() -> None:
    bound = Listeners()
    bound.bind_tcp("127.0.0.1 127.0.0.2 -10.255.255.1", 0)
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
        Listeners().bind_tcp(host, 0)


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
    with pytest.raises(ListenError, match="cannot listen on"):
        Listeners().bind_unix(str(tmp_path / ("x" * 120)))
