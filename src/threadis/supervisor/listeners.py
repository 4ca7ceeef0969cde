"""The sockets that clients connect to: bound here, and passed to every proxy process in turn."""

import contextlib
import errno
import grp
import os
import shutil
import socket
import stat
from pathlib import Path

from threadis.control import Listener
from threadis.errors import ListenError
from threadis.system import file_errors
from threadis.system.files import SOCKET_PATH_LIMIT

LOOPBACK = "127.0.0.1"  # where redis-cli goes by itself
ANY = {"*": "0.0.0.0", "::*": "::"}  # noqa: S104  # redis-server's names for every interface
ANY_REACHED = {"*": LOOPBACK, "0.0.0.0": LOOPBACK, "::*": "::1", "[::]": "::1"}  # noqa: S104
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
NO_GROUP = 2**32 - 1  # the kernel's gid that is none
CHOOSE = "choose another --unixsocket"
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # this machine does not have the address


class Listeners:
    """Bound sockets. They listen once the proxy does so, and end when all copies are closed."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.tcp_port = 0
        self._sockets: list[socket.socket] = []
        self._bound: set[tuple[socket.AddressFamily, str]] = set()
        self._unix: tuple[Path, int] | None = None  # the path, and the inode that is ours

    def bind_tcp(self, host: str, port: int | None) -> None:
        """Bind every address of ``host``; port None: all to the same free port."""
        self.tcp_port = port or 0
        for word in host.split():
            # redis-server's dash: an address that this machine may not have
            name, optional = word.removeprefix("-"), word.startswith("-")
            try:
                found = self._bind_name(name)
            except OSError as error:
                if optional and error.errno in ABSENT:
                    continue
                self.close()
                raise ListenError(_sentence(name, self.tcp_port, error)) from None
            for sock, address in found:
                shown = name if name in ANY else address
                shown = f"[{shown}]" if ":" in shown and name not in ANY else shown
                self._add(sock, f"{shown}:{self.tcp_port}", is_unix=False)
        self._check_wildcards()
        if not self.listeners:
            raise ListenError(f"host: this machine has none of {host}; choose another --host")

    def bind_unix(self, path: str, mode: int | None = None, group: str | None = None) -> None:
        """Bind a Unix socket, replacing a stale one; connections are possible once it listens."""
        full = Path(path).absolute()
        check_unix(path, group)
        with contextlib.suppress(FileNotFoundError):
            full.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(full))
        except OSError as error:
            sock.close()
            raise ListenError(_unusable(full, error)) from None
        self._unix = (full, full.lstat().st_ino)
        self._add(sock, str(full), is_unix=True)
        try:
            if group:
                shutil.chown(full, group=int(group) if group.isdigit() else group)
            if mode:
                full.chmod(mode)
        except OSError as error:
            self.close()
            why = f"{error.strerror}; you may give it to a group that you are in"
            raise ListenError(f"unixsocketgroup: cannot give {full} to {group}: {why}") from None

    def close(self) -> None:
        """Close our copies and remove the Unix socket's name; connections stay open."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        if self._unix:
            path, inode = self._unix
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_ino == inode:
                    path.unlink()
            self._unix = None

    def _bind_name(self, name: str) -> list[tuple[socket.socket, str]]:
        """Bind all addresses of a name that this machine has: localhost may be two."""
        bound: list[tuple[socket.socket, str]] = []
        absent: OSError | None = None
        try:
            for family, address in _addresses(ANY.get(name, name)):
                if (family, address) in self._bound:  # named twice
                    continue
                try:
                    sock = _bind(family, (address, self.tcp_port))
                except OSError as error:
                    if error.errno not in ABSENT:
                        raise
                    absent = error
                    continue
                bound.append((sock, address))
                self._bound.add((family, address))
                self.tcp_port = sock.getsockname()[1]
        except OSError:
            for sock, _ in bound:
                sock.close()
            raise
        if absent and not bound:
            raise absent
        return bound

    def _check_wildcards(self) -> None:
        """Refuse an address beside the wildcard address: both cannot listen."""
        everywhere = {family for family, address in self._bound if address in EVERYWHERE}
        for family, address in sorted(self._bound):
            if family in everywhere and address not in EVERYWHERE:
                self.close()
                raise ListenError(
                    f"host: {address} is included in all interfaces (*), which are named, too; "
                    "remove one of them"
                )

    def _add(self, sock: socket.socket, address: str, *, is_unix: bool) -> None:
        self._sockets.append(sock)
        self.listeners.append(Listener(sock.fileno(), address, is_unix))


def check_unix(path: str, group: str | None = None) -> None:
    """Refuse a path where a server answers, or that cannot be a socket. Changes nothing."""
    full = Path(path).absolute()
    if len(os.fsencode(full)) > SOCKET_PATH_LIMIT:
        why = f"its path is longer than {SOCKET_PATH_LIMIT} bytes; choose a shorter --unixsocket"
        raise ListenError(f"unixsocket: cannot listen on {full}: {why}")
    if why := file_errors.explain_create(full, CHOOSE):
        raise ListenError(f"unixsocket: {why}")
    if group:
        try:
            if not group.isdigit():
                grp.getgrnam(group)
            elif int(group) >= NO_GROUP:
                raise KeyError
        except KeyError:
            raise ListenError(f"unixsocketgroup: there is no group {group}") from None
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(_unusable(full, error)) from None
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
                raise ListenError(_unusable(full, error)) from None
    raise ListenError(
        f"unixsocket: a server is listening on {path}; stop it, or choose another --unixsocket"
    )


def _unusable(path: Path, error: OSError) -> str:
    return f"unixsocket: {file_errors.explain('use', path, error, CHOOSE)}"


def _addresses(name: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return each address of a name once, IPv4 first: most clients try that first."""
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:  # no name of a machine is like that
        raise socket.gaierror(socket.EAI_NONAME, "no name") from None
    unique = dict.fromkeys((family, str(address[0])) for family, *_, address in found)
    return sorted(unique, key=lambda one: one[0] != socket.AF_INET)


def _bind(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
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
        return f"port: {port} is in use on {name}; choose another --port, or auto for a free one"
    if error.errno == errno.EACCES:
        return f"port: {port} needs root; choose another --port, above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host: {name} is not an address of this machine; check --host"
    return f"host: cannot listen on {name}, port {port}: {error.strerror}"
