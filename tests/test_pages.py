"""The generated pages are what their sources say."""

from pathlib import Path

from threadis.server import Server
from tools import commands_page
from tools.compat import page
from tools.compat.__main__ import read
from tools.compat.results import Results, Unit

PRINTED = """
\x1b[32m[ok]\x1b[0m: one (3 ms)
[ok]: twice (0 ms)
[ok]: twice (1 ms)
[err]: bad {x} in tests/unit/some.tcl
Expected '1' to be equal to '2'
(context: proc)
[exception]: Executing test client: ERR no.
ERR no
[ok]: last (1 ms)
"""


def test_the_page_of_commands_is_the_tables(stock_server: Server) -> None:
    made = commands_page.page(stock_server)
    if stock_server.kind == "valkey":
        assert commands_page.PAGE.read_text() == made, "run `make docs`"
    else:
        assert "| `GETEX` | one key |" in made


def test_the_page_of_compatibility_is_the_results() -> None:
    found = sorted((page.ROOT / "benchmarks" / "results").glob("compat-*.json"))
    runs = [Results.load(path) for path in found]
    assert runs
    assert page.render(runs) == page.PAGE.read_text(), "run `make docs`"
    assert page.UNKNOWN not in page.render(runs)


def test_what_a_suite_prints_is_read() -> None:
    found = read(PRINTED)
    assert [name for name, error in found.items() if not error] == [
        "one", "twice", "twice (2)", "last",
    ]  # fmt: skip
    assert found["bad {x}"].startswith("Expected '1'")


def test_results_are_kept(tmp_path: Path) -> None:
    run = Results(
        "Redis 7", "redis 7.0.15", True, {"unit/a": Unit(3, {"x | y": "SYNC is not possible"})}
    )
    run.save(tmp_path / "r.json")
    again = Results.load(tmp_path / "r.json")
    assert again == run
    assert (again.passed, again.total) == (2, 3)
    assert "| unit/a | x \\| y | attaches to" in page.render([again])
