"""Owns the sockets that clients connect to: bound here, handed to every proxy process in turn."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from threadis.control import Listener
from threadis.errors import ListenError

ANY = {"*": "0.0.0.0", "::*": "::"}  # noqa: S104  # redis-server's names for every interface


class Listeners:
    """Bound sockets. They listen once the proxy says so, and end when all copies are closed."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.tcp_port = 0
        self._sockets: list[socket.socket] = []
        self._unix: tuple[Path, int] | None = None  # the path, and the inode that is ours

    def bind_tcp(self, host: str, port: int) -> None:
        """Bind every address of ``host``; with port 0 all to the same free one."""
        self.tcp_port = port
        for word in host.split():
            # redis-server's dash: an address that this machine may not have
            name, optional = word.removeprefix("-"), word.startswith("-")
            try:
                sock = _bind(ANY.get(name, name), self.tcp_port)
            except OSError as error:
                if optional and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue
                self.close()
                raise ListenError(_sentence(name, self.tcp_port, error)) from None
            self.tcp_port = sock.getsockname()[1]
            shown = f"[{name}]" if ":" in name and name != "::*" else name
            self._add(sock, f"{shown}:{self.tcp_port}", is_unix=False)
        if not self.listeners:
            raise ListenError(f"host: this machine has none of {host}; choose another --host")

    def bind_unix(self, path: str) -> None:
        """Bind a Unix socket, over a stale one if need be."""
        full = Path(path).absolute()
        check_unix(path)
        with contextlib.suppress(FileNotFoundError):
            full.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(full))
        except OSError as error:
            sock.close()
            why = "longer than 107 bytes" if error.errno is None else error.strerror
            raise ListenError(f"unixsocket: cannot listen on {full}: {why}") from None
        self._unix = (full, full.lstat().st_ino)
        self._add(sock, str(full), is_unix=True)

    def close(self) -> None:
        """Close our copies and take the Unix socket's name away; connections live on."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        if self._unix:
            path, inode = self._unix
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_ino == inode:
                    path.unlink()
            self._unix = None

    def _add(self, sock: socket.socket, address: str, *, is_unix: bool) -> None:
        self._sockets.append(sock)
        self.listeners.append(Listener(sock.fileno(), address, is_unix))


def check_unix(path: str) -> None:
    """Refuse a path where a server answers, or that is no socket. Changes nothing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"unixsocket: cannot use {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"unixsocket: {path} is not a socket; choose another --unixsocket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live server with a full backlog says EAGAIN
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # stale: left by a server that was killed
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise ListenError(f"unixsocket: cannot use {path}: {error.strerror}") from None
    raise ListenError(
        f"unixsocket: a server is listening on {path}; stop it, or choose another --unixsocket"
    )


def _bind(name: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections are in TIME_WAIT is free; one that is served is not
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _sentence(name: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"host: {name!r} is not an address of this machine; check --host"
    if error.errno == errno.EADDRINUSE:
        return f"port: {port} is in use on {name}; choose another --port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port: {port} needs root; choose another --port, above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host: {name} is not an address of this machine; check --host"
    return f"host: cannot listen on {name}, port {port}: {error.strerror}"
