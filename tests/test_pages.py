"""The generated pages are what their sources say."""

import json
import re
from math import nan
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from threadis.bench import scale, suites
from threadis.bench.load import Load
from threadis.bench.report import Report
from threadis.bench.scale import ScaleReport
from threadis.bench.suite import measure
from threadis.bench.targets import Setup
from threadis.config import config
from threadis.supervisor.server import ServerBinary, find
from tools import architecture_page, commands_page
from tools.benchmarks import judged, pages, tables
from tools.benchmarks.markdown import DIRECTORY
from tools.benchmarks.svg import Bar, bars
from tools.compat import page
from tools.compat.__main__ import read
from tools.compat.results import Results, Unit

GETS = ("get P=1, 50 clients", "get P=16, 50 clients")
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


def test_the_page_of_the_configuration_has_every_knob() -> None:
    text = (commands_page.PAGE.parent / "configuration.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for name, _, knob in config.knobs():
        key = name.replace("_", "-")
        row = f"| `--{key}` |" if knob.is_flag else f"| `{key}` (file only) |"
        (found,) = [line for line in rows if line.startswith(row)]
        assert knob.help.replace("|", ", ") in found


def test_figures_are_of_what_users_run() -> None:
    for path in (DIRECTORY / "results").glob("*.json"):
        found = json.loads(path.read_text())
        assert found.get("machine", {}).get("build_profile", "release") == "release", path


def test_the_drawing_is_the_codes() -> None:
    assert architecture_page.PAGE.read_text() == architecture_page.page(), "run `make docs`"


def test_the_page_of_commands_is_the_tables(stock_server: ServerBinary) -> None:
    made = commands_page.page(stock_server)
    if stock_server.kind == "valkey":
        assert commands_page.PAGE.read_text() == made, "run `make docs`"
    else:
        assert re.search(r"^\| .*`GETEX`.* \| one key \|", made, re.MULTILINE)


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


def test_the_pages_of_benchmarks_are_the_results() -> None:
    for name, text in pages.made().items():
        assert (DIRECTORY / name).read_text() == text, f"{name}: run `make docs`"


def test_the_readme_says_of_the_torture_what_was_recorded() -> None:
    results = DIRECTORY / "results"
    faults = json.loads((results / "torture-faults-1.json").read_bytes())
    histories = json.loads((results / "torture-histories-1.json").read_bytes())
    under_faults = sum(one["known"] for name, one in histories.items() if "faults" in name)
    assert not any(
        faults[f"{what}_errors"] for what in ("ownership", "order", "missing", "protocol")
    )
    text = " ".join((DIRECTORY.parent / "README.md").read_text().split())
    for words in (
        f"{faults['cycles']} random kills and stops of instances under load, "
        f"{faults['commands'] / 1e6:.1f} million commands checked",
        f"{round(faults['ledger_acknowledged'], -3):,} acknowledged writes",
        f"{sum(one['known'] for one in histories.values()) / 1e6:.1f} million commands of",
        f"{round(under_faults, -3):,} of them while instances and proxy were killed",
    ):
        assert words in text, "README.md: take what was recorded"


def test_the_readme_says_of_speed_what_was_recorded() -> None:
    """Its table: what the program's own split reaches comes first."""
    text = (DIRECTORY.parent / "README.md").read_text().replace("\u00d7", "x")
    report = ScaleReport.load_from(DIRECTORY / "results" / "scale-redis.json")
    found = scale.rows(report.samples)
    bare = {row.case: row.throughput for row in found if not row.point.split}
    tried = {
        (sample.point.cores, str(sample.point.split), sample.case.pipeline): (
            sample.result.throughput / bare[sample.case]
        )
        for sample in report.samples
        if sample.repeat is None
    }
    best = {
        (row.point.cores, str(row.point.split), row.case.pipeline): row.ratio.median
        for row in found
    }
    figures = Report.load(DIRECTORY / "results" / "figures.json").blocks[0].rows
    (one, sixteen) = (
        row.cpu_ratio.median
        for row in figures
        if row.target == "threadis" and row.case in GETS and row.cpu_ratio
    )
    for cells in (
        f"| 2 : 2 | {tried[4, '2:2', 1]:.1f}x (one run) | {tried[4, '2:2', 16]:.1f}x (one run) |",
        f"| {tried[12, '6:6', 1]:.0f} to {tried[12, '8:4', 1]:.0f}x "
        f"| {tried[12, '8:4', 16]:.0f} to {tried[12, '6:6', 16]:.0f}x |",
        f"| 8 : 4 or 4 : 8 | {best[12, '8:4', 1]:.1f}x | {best[12, '4:8', 16]:.1f}x |",
        f"| {one:.2f} | {sixteen:.2f} |",
    ):
        assert cells in text, f"README.md: {cells}"


def test_the_readme_is_short() -> None:
    lines = (DIRECTORY.parent / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


def test_the_links_of_pages_lead_somewhere() -> None:
    root = DIRECTORY.parent
    for path in (*root.glob("*.md"), *DIRECTORY.glob("*.md"), *root.glob("docs/**/*.md")):
        for name in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            if name.startswith("https://"):
                continue
            file, _, place = name.partition("#")
            there = path.parent / file if file else path
            assert there.exists(), f"{path.name}: {name}"
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if place else []
            assert not place or place in map(anchor, titles), f"{path.name}: {name}"


def anchor(title: str) -> str:
    """Of a title, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_files_and_functions_that_pages_name_are_there() -> None:
    top = DIRECTORY.parent
    roots = [top, top / "rust/src", top / "src/threadis", top / "src/threadis/coordinator"]
    named = re.compile(r"`((?:[a-z_]+/)+\w+\.(?:rs|py))(?: : (\w+))?`")
    lost = set()
    for text in [*top.glob("docs/**/*.md"), top / "CONTRIBUTING.md"]:
        for path, function in named.findall(text.read_text()):
            files = [root / path for root in roots if (root / path).exists()]
            defined = re.compile(rf"\b(?:fn|def|class|struct|enum) {function}\b")
            if not any(not function or defined.search(file.read_text()) for file in files):
                lost.add((text.name, path, function))
    assert not lost


def test_every_page_is_in_an_index() -> None:
    docs = DIRECTORY.parent / "docs"
    for folder in (docs, docs / "decisions"):
        index = (folder / "README.md").read_text()
        for path in folder.glob("*.md"):
            assert path.name == "README.md" or f"({path.name})" in index, path.name


def test_a_page_is_made_of_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(seconds=0.1, warmup=0.02, key_count=1000, connections=5)
    plans = suites.latency({"redis": Setup(server=find().path)}, load)
    plans = [replace(plan, cases=plan.cases[:2]) for plan in plans]
    report = measure("latency", plans, 2, tmp_path / "latency.json")
    for module in (pages, tables, judged):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    made = pages.made()
    assert sorted(made) == ["latency-0.svg", "latency.md"]
    for row in report.blocks[0].rows:
        assert f"| {row.target} | {row.cpu_us['total']:.3g} |" in made["latency.md"]
    assert pages.made() == made
    ElementTree.fromstring(made["latency-0.svg"])


def test_a_plot_is_whole_xml_and_says_its_values() -> None:
    rows = [
        Bar("a & b", 0.5, 0.4, 0.6, mark=0.55),
        Bar("long", 9.0, 8.0, 10.0, colour=9),
        Bar("none", nan, nan, nan),
    ]
    plot = bars("Bars < 2", rows, 2.0, ["one", "two"])
    texts = {one.text for one in ElementTree.fromstring(plot).iter() if one.text}
    assert {"a & b", "9 →", "none", "not measured", "Bars < 2", "two"} <= texts
