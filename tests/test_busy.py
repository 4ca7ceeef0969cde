"""A script that runs for too long: whoever needs its instance is told BUSY, by old connections of
ours and by new ones, and these are used for the right database afterwards.
"""

from collections.abc import Callable

from conftest import Threadis
from differential.wire import Connection, pack
from threadis.server import Server
from waiting import until

FOREVER = "while true do end"


def test_new_connections_while_a_script_runs(
    threadis: Callable[..., Threadis], stock_server: Server
) -> None:
    running = threadis("--server", stock_server.path, "--instances", "4", "--save", "")

    def connect(db: int = 0) -> Connection:
        connection = Connection(("127.0.0.1", running.port))
        assert connection.ask("SELECT", db).raw == b"+OK\r\n"
        return connection

    first, other, script = connect(), connect(5), connect()
    assert first.ask("CONFIG", "SET", "lua-time-limit", "10").raw == b"+OK\r\n"
    for connection, text in ((first, "zero"), (other, "five")):
        for key in ("k", "l", "m"):  # of several instances
            assert connection.ask("SET", key, text).raw == b"+OK\r\n"
    assert first.ask("LCS", "k", "l").text == b"zero"  # our links are in database 0
    script.send(pack("EVAL", FOREVER, 1, "k"))
    until(lambda: first.ask("GET", "k").raw.startswith(b"-BUSY"), "it runs")
    for fresh in (connect(7), connect(8)):
        assert fresh.ask("GET", "k").raw.startswith(b"-BUSY")
        fresh.close()
    for _ in range(5):
        assert other.ask("LCS", "k", "l").raw.startswith(b"-BUSY")
    assert first.ask("SCRIPT", "KILL").raw == b"+OK\r\n"
    assert script.read().is_error
    for _ in range(5):
        assert other.ask("LCS", "k", "l").text == b"five"
        assert first.ask("LCS", "k", "l").text == b"zero"
    for connection in (first, other, script):
        connection.close()
